//! How a container ended, and what is fetched from it then.
//!
//! Invariant: a program's own end and a signal that somebody sent are the job's; what the daemon did to it while it was
//! itself restarted is the machine's, and so is an end by a signal that nobody watched.

use std::time::Duration;

use bollard::query_parameters::{EventsOptions, LogsOptions};
use futures_util::StreamExt;

use super::archive::{self, Bounds, Known, Source, TransferError};
use super::plan::Plan;
use super::stamp::Stamp;
use crate::domain::outcome::ExitCause;
use crate::domain::time::Timestamp;
use crate::executor::contract;
use crate::executor::folder::log_writer::Tail;

/// How much of `/opt/ml/output/failure` is kept.
const FAILURE_CHARACTERS: usize = 1024;

/// Lines of both streams among which the last of stderr are looked for: what the pipe of the other holds may come after.
const TAIL_LINES: &str = "20000";

/// How long the daemon may take to look through its events.
const EVENTS_PATIENCE: Duration = Duration::from_secs(3);

/// What the daemon says of a container that is over, and what was seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: i64,
    pub(super) out_of_memory: bool,
    /// When, by the daemon's clock.
    pub(super) finished: Option<Stamp>,
    /// By the daemon's clock.
    pub(super) ran_ms: Option<i64>,
    /// No supervisor looked on when it ended.
    pub(super) unwatched: bool,
    /// The daemon was out of reach since the container was last seen to run.
    pub(super) broken: bool,
}

impl End {
    /// Why it is over, where nobody here stopped it.
    pub(super) fn cause(&self, memory: Option<u64>, live_restore: bool) -> ExitCause {
        let signal = self.code.checked_sub(128).filter(|signal| (1..=64).contains(signal));
        if self.broken && !live_restore {
            let message = "the Docker daemon was restarted, and ended the container".to_owned();
            return ExitCause::Infrastructure { message };
        }
        if self.code != 0 && self.out_of_memory {
            let most = memory.map_or(String::new(), |bytes| format!("the {} MiB of ", bytes >> 20));
            let message = format!(
                "the training job used more memory than {most}its instance: choose an InstanceType with more memory, or \
                 use less"
            );
            return ExitCause::OverLimit { message };
        }
        if self.unwatched && (signal.is_some() || self.code == 255) {
            let message = format!("the container was ended from outside (exit code {})", self.code);
            return ExitCause::Infrastructure { message };
        }
        match signal.and_then(|signal| i32::try_from(signal).ok()) {
            Some(signal) => ExitCause::Signaled { signal },
            None => ExitCause::Exited { code: i32::try_from(self.code).unwrap_or(-1) },
        }
    }
}

/// Whether a container could not be started because of what its image holds.
pub(super) fn is_of_the_image(message: &str) -> bool {
    let signs = ["executable file not found", "exec format error", "permission denied", "no such file or directory"];
    let of_the_runtime = ["OCI runtime", "runc create failed", "failed to create", "crun:"];
    message.contains("No command specified")
        || message.contains("unable to find user")
        || signs.iter().any(|sign| message.contains(sign)) && of_the_runtime.iter().any(|sign| message.contains(sign))
}

/// The beginning of `/opt/ml/output/failure`, where it is a file.
pub(super) async fn failure(docker: &bollard::Docker, container: &str, patience: Duration) -> Option<String> {
    let path = format!("{}/output/failure", contract::ROOT);
    let source = Source { docker, container, path: &path, patience };
    let head = archive::file_head(source, 4 * FAILURE_CHARACTERS as u64).await.ok()??;
    Some(String::from_utf8_lossy(&head).chars().take(FAILURE_CHARACTERS).collect())
}

/// The last whole lines of stderr, at most 2 KiB.
pub(super) async fn stderr_tail(docker: &bollard::Docker, container: &str, patience: Duration) -> String {
    let options = LogsOptions { stderr: true, tail: TAIL_LINES.to_owned(), ..LogsOptions::default() };
    let mut frames = docker.logs(container, Some(options)).boxed();
    let mut tail = Tail::default();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(patience, frames.next()).await {
        tail.take(frame.as_ref());
    }
    tail.text()
}

/// Whether the daemon was told that a container ran out of memory: its own mark of that may miss what comes after the end.
pub(super) async fn ran_out_of_memory(docker: &bollard::Docker, container: &str, now: Timestamp) -> bool {
    let filters = [("container", container), ("event", "oom")];
    let options = EventsOptions {
        since: Some("1".to_owned()),
        until: Some((now.0 / 1000 + 1).to_string()),
        filters: Some(filters.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into()),
    };
    let mut events = docker.events(Some(options)).boxed();
    let first = tokio::time::timeout(EVENTS_PATIENCE, events.next()).await;
    matches!(first, Ok(Some(Ok(_))))
}

/// Brings checkpoints to where they are kept; what to tell where that failed.
pub(super) async fn save_checkpoints(docker: &bollard::Docker, plan: &Plan, known: Known) -> Option<String> {
    let (from, to) = plan.checkpoints.as_ref()?;
    let bounds = Bounds { bytes: plan.max_output.0, entries: plan.max_output.1, known };
    let source = Source { docker, container: &plan.container, path: from, patience: plan.patience() };
    match archive::download(source, to.clone(), bounds).await {
        Ok(()) | Err(TransferError::Missing) => None,
        Err(error) => Some(format!("the checkpoints were not saved: {}", crate::telemetry::chain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let watched =
            End { code: 0, out_of_memory: false, finished: None, ran_ms: None, unwatched: false, broken: false };
        let cause = |end: End| end.cause(Some(1 << 30), false);
        assert_eq!(cause(watched), ExitCause::Exited { code: 0 });
        assert_eq!(cause(End { code: 37, ..watched }), ExitCause::Exited { code: 37 });
        assert_eq!(cause(End { code: 137, ..watched }), ExitCause::Signaled { signal: 9 });
        assert_eq!(cause(End { code: 255, ..watched }), ExitCause::Exited { code: 255 });
        let oom = cause(End { code: 137, out_of_memory: true, ..watched });
        assert!(matches!(&oom, ExitCause::OverLimit { message } if message.contains("the 1024 MiB of its")), "{oom:?}");
        assert_eq!(cause(End { out_of_memory: true, ..watched }), ExitCause::Exited { code: 0 }, "a child of it");
        let infrastructure = |end: End, live| matches!(end.cause(None, live), ExitCause::Infrastructure { .. });
        assert!(infrastructure(End { unwatched: true, code: 137, ..watched }, false));
        assert!(!infrastructure(End { unwatched: true, code: 1, ..watched }, false));
        assert!(infrastructure(End { broken: true, ..watched }, false));
        assert!(!infrastructure(End { broken: true, ..watched }, true));
    }

    #[test]
    fn images_that_cannot_run_are_told_from_daemons_that_will_not() {
        let of_the_image = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                            container process: exec: \"train\": executable file not found in $PATH: unknown";
        assert!(is_of_the_image(of_the_image));
        assert!(!is_of_the_image("failed to create endpoint: no space left on device"));
        assert!(!is_of_the_image("could not select device driver \"\" with capabilities: [[gpu]]"));
    }
}
