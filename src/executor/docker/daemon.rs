//! The Docker daemon: reaching it, and what its answers mean.
//!
//! Invariant: no path is shared with the daemon, and no secret is in an address.

use std::io;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};

use crate::executor::ExecutorError;

/// What the client says went wrong.
pub(super) type Error = bollard::errors::Error;

/// How long the daemon may take to answer, or to take in an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A question or a small change.
    Ordinary,
    /// Data comes or goes.
    Transfer,
}

/// A client that speaks the daemon's version.
pub(super) async fn connect(address: &str, patience: Patience) -> Result<Docker, Error> {
    let client = client(address, patience, API_DEFAULT_VERSION)?;
    let asked = tokio::time::timeout(Duration::from_secs(30), client.negotiate_version()).await;
    asked.unwrap_or(Err(Error::RequestTimeoutError))
}

/// A client that speaks a version which the daemon is known to speak. Nothing is asked of the daemon: it takes long to tell
/// what it is.
pub(super) fn client(address: &str, patience: Patience, version: &ClientVersion) -> Result<Docker, Error> {
    let seconds = match patience {
        Patience::Ordinary => 120,
        Patience::Transfer => 24 * 3600,
    };
    if address.starts_with("unix://") {
        Docker::connect_with_unix(address, seconds, version)
    } else {
        Docker::connect_with_http(address, seconds, version)
    }
}

/// Where the daemon is to keep output: what the owner chose, or the quickest of what it offers that can be read again.
pub(super) fn log_driver(chosen: &str, offered: &[String]) -> String {
    let known = ["local", "json-file", "k8s-file", "journald"];
    let of_its = known.into_iter().find(|driver| offered.iter().any(|offered| offered == driver));
    if chosen.is_empty() { of_its.unwrap_or("local") } else { chosen }.to_owned()
}

/// The HTTP status of a daemon that answered with an error.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the daemon answered with what the client has no word for: Podman says of a container that has just ended that
/// it is `stopped`, and a little later, as Docker does, that it has `exited`.
pub(super) fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::JsonDataError { .. })
}

/// What the daemon itself said.
pub(super) fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => crate::telemetry::chain(other),
    }
}

/// None where what was asked about is not there.
pub(super) fn there<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(error) if status(&error) == Some(404) => Ok(None),
        other => other.map(Some),
    }
}

/// The daemon would not: worth another attempt.
pub(super) fn infrastructure(doing: impl Into<String>) -> impl FnOnce(Error) -> ExecutorError {
    let doing = doing.into();
    move |error| ExecutorError::Infrastructure { doing, source: io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_where_the_daemon_can() {
        let docker = ["awslogs", "json-file", "local"].map(str::to_owned);
        let podman = ["k8s-file", "none", "passthrough"].map(str::to_owned);
        assert_eq!((log_driver("", &docker).as_str(), log_driver("", &podman).as_str()), ("local", "k8s-file"));
        assert_eq!((log_driver("journald", &docker).as_str(), log_driver("", &[]).as_str()), ("journald", "local"));
    }
}
