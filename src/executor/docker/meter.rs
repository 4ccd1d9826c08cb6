//! The volume behind `/opt/ml`, where a container's root is read-only, seen by itself: how much stands in it.
//!
//! Invariant: a meter is a container that is never started, bears its attempt's labels, and has that volume alone,
//! read-only. Seen through the training container there would be the channels beneath it, too. Reading it, and making
//! it again where it was removed, is left to the attempt's supervisor.

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::CreateContainerOptions;
use serde::{Deserialize, Serialize};

use super::daemon::{self, Error};
use super::{launch, volumes};
use crate::executor::AttemptSpec;

/// Where a meter has the volume.
pub(super) const PATH: &str = "/tunesmith-ml";

/// A meter, and how it is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Meter {
    pub(super) name: String,
    pub(super) body: ContainerCreateBody,
}

impl Meter {
    /// The meter of a container; `image` is one that the daemon has, whichever: nothing of it runs.
    pub(super) fn new(executor: &str, spec: &AttemptSpec, image: &str, container: &str) -> Self {
        Self { name: format!("{container}-meter"), body: body(executor, spec, image, container) }
    }

    /// Makes it again: it is never started, and whoever prunes a daemon's containers removes it. `image` is the one
    /// that its training container runs, whatever that is called by now.
    pub(super) async fn make_again(&self, docker: &bollard::Docker, image: Option<String>) -> Result<(), Error> {
        let options = CreateContainerOptions { name: Some(self.name.clone()), ..CreateContainerOptions::default() };
        let body = self.body.clone();
        let body = ContainerCreateBody { image: image.or(body.image), ..body };
        match docker.create_container(Some(options), body).await {
            Err(error) if daemon::status(&error) == Some(409) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn body(executor: &str, spec: &AttemptSpec, image: &str, container: &str) -> ContainerCreateBody {
    let labels = launch::labels(executor, spec);
    let mount = volumes::bare_mount(&volumes::own_name(container), PATH, labels.clone(), true);
    ContainerCreateBody {
        image: Some(image.to_owned()),
        // There has to be something.
        entrypoint: Some(vec!["none".to_owned()]),
        labels: Some(labels),
        network_disabled: Some(true),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}
