//! The network between the hosts of one attempt.
//!
//! Invariant: an attempt on several hosts has a network of its own, found by its label as its containers are, so that
//! hosts know each other by name and no other attempt's. Of one with network isolation nothing leads out, not even to the
//! daemon's machine. One host needs none.

use std::collections::HashMap;

use bollard::models::{EndpointSettings, NetworkCreateRequest, NetworkingConfig};
use bollard::query_parameters::ListNetworksOptions;

use super::daemon::{self, Error, infrastructure};
use crate::domain::names::AttemptId;
use crate::executor::ExecutorError;
use crate::executor::contract::host_name;

/// Leaves the daemon's machine without an address in the network: with one, its services would be within reach.
const NO_ADDRESS_FOR_THE_MACHINE: &str = "com.docker.network.bridge.inhibit_ipv4";

/// Where names are asked for that are not the hosts' own: nobody answers there. A daemon may otherwise ask its machine's
/// servers for them, and that is a way out.
const NOBODY: &str = "127.0.0.1";

/// An attempt's network, as its containers use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) id: String,
    /// Nothing leads out.
    pub(super) internal: bool,
}

impl Network {
    /// Who answers for names of other machines; none for the daemon's choice.
    pub(super) fn dns(&self) -> Option<Vec<String>> {
        self.internal.then(|| vec![NOBODY.to_owned()])
    }

    /// How one of the hosts is connected: under its name.
    pub(super) fn connection(&self, host: usize) -> NetworkingConfig {
        let settings = EndpointSettings { aliases: Some(vec![host_name(host)]), ..EndpointSettings::default() };
        NetworkingConfig { endpoints_config: Some(HashMap::from([(self.id.clone(), settings)])) }
    }
}

/// Whether an attempt's network is to lead nowhere; an error where hosts cannot have the network that the owner chose.
pub(super) fn is_internal(configured: &str, isolated: bool) -> Result<bool, ExecutorError> {
    match configured {
        _ if isolated => Ok(true),
        "none" => Ok(true),
        "bridge" | "default" => Ok(false),
        other => Err(ExecutorError::Client(format!(
            "a training job on several hosts has a network of its own, and on this server containers use the network \
             {other} (docker.network): use InstanceCount 1 or EnableNetworkIsolation"
        ))),
    }
}

/// The network of an attempt, made where there is none. Only one at a time may make an attempt's.
pub(super) async fn ensure(
    docker: &bollard::Docker,
    executor: &str,
    name: &str,
    attempt: AttemptId,
    internal: bool,
) -> Result<Network, ExecutorError> {
    let known = of_attempt(docker, executor, attempt).await.map_err(infrastructure("looking for a network"))?;
    if let Some(id) = known.into_iter().next() {
        return Ok(Network { id, internal });
    }
    let labels = [("tunesmith.executor", executor.to_owned()), ("tunesmith.attempt", attempt.to_string())];
    let options = internal.then(|| HashMap::from([(NO_ADDRESS_FOR_THE_MACHINE.to_owned(), "true".to_owned())]));
    let request = NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        internal: Some(internal),
        options,
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ..NetworkCreateRequest::default()
    };
    let made = docker.create_network(request).await.map_err(infrastructure(format!("making the network {name}")))?;
    Ok(Network { id: made.id, internal })
}

/// Removes what networks there are of an attempt whose containers are gone.
pub(super) async fn remove(docker: &bollard::Docker, executor: &str, attempt: AttemptId) -> Result<(), ExecutorError> {
    let failed = || infrastructure(format!("removing the network of attempt {attempt}"));
    for network in of_attempt(docker, executor, attempt).await.map_err(failed())? {
        daemon::there(docker.remove_network(&network).await).map_err(failed())?;
    }
    Ok(())
}

/// The attempts that have networks.
pub(super) async fn attempts(docker: &bollard::Docker, executor: &str) -> Result<Vec<AttemptId>, Error> {
    let found = labelled(docker, vec![format!("tunesmith.executor={executor}")]).await?;
    Ok(found.into_iter().filter_map(|network| network.labels?.get("tunesmith.attempt")?.parse().ok()).collect())
}

/// An attempt's networks, the oldest first: a request that a killed server left may have made one more.
async fn of_attempt(docker: &bollard::Docker, executor: &str, attempt: AttemptId) -> Result<Vec<String>, Error> {
    let labels = vec![format!("tunesmith.executor={executor}"), format!("tunesmith.attempt={attempt}")];
    let mut found = labelled(docker, labels).await?;
    found.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    Ok(found.into_iter().filter_map(|network| network.id).collect())
}

async fn labelled(docker: &bollard::Docker, labels: Vec<String>) -> Result<Vec<bollard::models::Network>, Error> {
    let filters = Some(HashMap::from([("label".to_owned(), labels)]));
    docker.list_networks(Some(ListNetworksOptions { filters })).await
}
