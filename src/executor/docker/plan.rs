//! What a supervisor has to know, written by the server into the attempt's folder before it starts.
//!
//! Invariant: a plan is complete, and holds no secret: the supervisor reads no setting and no environment of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::daemon::{self, Patience};
use super::meter::Meter;
use crate::domain::names::AttemptId;
use crate::executor::disk_bound::DiskBound;

/// How to look after an attempt's containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) attempt: AttemptId,
    /// The daemon.
    pub(super) address: String,
    /// The version of its API that it speaks.
    #[serde(default)]
    pub(super) api: Option<(usize, usize)>,
    /// The name of the first host's container.
    pub(super) container: String,
    /// Of the other hosts'.
    #[serde(default)]
    pub(super) others: Vec<String>,
    /// Of the helpers that stream channels, in the order of the hosts; none where nothing is streamed.
    #[serde(default)]
    pub(super) helpers: Vec<String>,
    /// The meters, likewise; none where `/opt/ml` is no volume.
    #[serde(default)]
    pub(super) meters: Vec<Meter>,
    pub(super) max_runtime_ms: i64,
    pub(super) stop_grace_ms: i64,
    pub(super) max_log_bytes: u64,
    pub(super) segment_bytes: u64,
    /// None where it is not watched.
    pub(super) disk: Option<DiskBound>,
    /// What each container may use, bytes.
    pub(super) memory: Option<u64>,
    /// From where in the first container, to where here.
    pub(super) checkpoints: Option<(String, PathBuf)>,
    /// How often they are saved while it runs, at most.
    pub(super) save_every_ms: u64,
    /// Bytes and files of the checkpoints.
    pub(super) max_output: (u64, u64),
    /// How long the daemon may be out of reach.
    pub(super) patience_ms: u64,
}

impl Plan {
    /// A client of the daemon, as it was when the plan was made.
    pub(super) fn client(&self) -> Option<bollard::Docker> {
        let (major_version, minor_version) = self.api?;
        let version = bollard::ClientVersion { major_version, minor_version };
        daemon::client(&self.address, Patience::Ordinary, &version).ok()
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    /// The containers, in the order of the hosts.
    pub(super) fn containers(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.container).chain(&self.others).map(String::as_str)
    }
}
