//! The Docker daemon: reaching it, and what its answers mean.
//!
//! Invariant: no path is shared with the daemon, and no secret is in an address.

use std::io;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

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
    let seconds = match patience {
        Patience::Ordinary => 120,
        Patience::Transfer => 24 * 3600,
    };
    let client = if address.starts_with("unix://") {
        Docker::connect_with_unix(address, seconds, API_DEFAULT_VERSION)?
    } else {
        Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION)?
    };
    let asked = tokio::time::timeout(Duration::from_secs(30), client.negotiate_version()).await;
    asked.unwrap_or(Err(Error::RequestTimeoutError))
}

/// The HTTP status of a daemon that answered with an error.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
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
