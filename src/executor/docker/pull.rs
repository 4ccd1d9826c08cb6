//! Images that the daemon has, or gets.
//!
//! Invariant: a password is read when it is needed, goes to the daemon alone, and is in no message.

use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;

use super::daemon::{self, Error, infrastructure};
use super::settings::{DockerSettings, Pull, Registry};
use crate::executor::ExecutorError;

/// Registries' words for "never with this request".
const REFUSALS: &[&str] = &[
    "not found",
    "does not exist",
    "manifest unknown",
    "denied",
    "unauthorized",
    "invalid reference",
    "no match for platform",
];

/// Sees that the daemon has an image, as the policy says.
pub(super) async fn ensure(
    docker: &bollard::Docker,
    patient: &bollard::Docker,
    settings: &DockerSettings,
    reference: &str,
) -> Result<(), ExecutorError> {
    if settings.pull != Pull::Always {
        let known = daemon::there(docker.inspect_image(reference).await);
        if known.map_err(infrastructure(format!("looking for the image {reference}")))?.is_some() {
            return Ok(());
        }
    }
    if settings.pull == Pull::Never {
        return Err(ExecutorError::Client(format!(
            "the image {reference} is not on the Docker daemon, and this server pulls none (docker.pull = \"never\")"
        )));
    }
    let pulled = tokio::time::timeout(settings.pull_timeout, pull(patient, settings, reference)).await;
    match pulled {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(classified(reference, error)),
        Err(_) => Err(infrastructure(format!("pulling the image {reference}"))(Error::RequestTimeoutError)),
    }
}

async fn pull(docker: &bollard::Docker, settings: &DockerSettings, reference: &str) -> Result<(), Error> {
    let registry = registry_of(reference);
    let known = settings.registries.iter().find(|known| known.host == registry);
    let credentials = known.map(credentials).transpose()?;
    let options = CreateImageOptions { from_image: Some(with_tag(reference)), ..CreateImageOptions::default() };
    let mut steps = docker.create_image(Some(options), None, credentials).boxed();
    while let Some(step) = steps.next().await {
        step?;
    }
    Ok(())
}

fn classified(reference: &str, error: Error) -> ExecutorError {
    let message = daemon::message(&error);
    let says = message.to_lowercase();
    if matches!(daemon::status(&error), Some(400..=499)) || REFUSALS.iter().any(|refusal| says.contains(refusal)) {
        return ExecutorError::Client(format!("the image {reference} could not be pulled: {message}"));
    }
    infrastructure(format!("pulling the image {reference}"))(error)
}

fn credentials(registry: &Registry) -> Result<DockerCredentials, Error> {
    let password = std::fs::read_to_string(&registry.password_file)?;
    Ok(DockerCredentials {
        username: Some(registry.username.clone()),
        password: Some(password.trim_end_matches(['\r', '\n']).to_owned()),
        serveraddress: Some(registry.host.clone()),
        ..DockerCredentials::default()
    })
}

/// Where a reference leads, as Docker reads it.
fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// Without a tag the daemon would pull all that there are.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit_once('/').map_or(reference, |(_, name)| name);
    if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        for (reference, registry, whole) in [
            ("busybox", "docker.io", "busybox:latest"),
            ("team/xgb:1", "docker.io", "team/xgb:1"),
            ("localhost:5000/xgb", "localhost:5000", "localhost:5000/xgb:latest"),
            ("r.example.com/a/b@sha256:00", "r.example.com", "r.example.com/a/b@sha256:00"),
            ("localhost/x", "localhost", "localhost/x:latest"),
        ] {
            assert_eq!((registry_of(reference), with_tag(reference).as_str()), (registry, whole));
        }
    }

    #[test]
    fn what_a_registry_refuses_is_the_requests_fault() {
        let failed = |error: &str| classified("r/x:1", Error::DockerStreamError { error: error.into() });
        assert!(matches!(failed("manifest for r/x:1 not found"), ExecutorError::Client(_)));
        assert!(matches!(failed("net/http: TLS handshake timeout"), ExecutorError::Infrastructure { .. }));
    }
}
