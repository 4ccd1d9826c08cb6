//! What a supervisor has to know, written by the server into the attempt's folder before the supervisor starts.
//!
//! Invariant: a plan is complete: the supervisor reads no setting and no environment of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::DiskLimit;
use crate::domain::names::AttemptId;
use crate::executor::pipe::Stream;

/// How to run one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) attempt: AttemptId,
    /// The program, absolute, and all its arguments.
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
    pub(super) run_as: Option<RunAs>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) max_runtime_ms: i64,
    pub(super) stop_grace_ms: i64,
    pub(super) max_log_bytes: u64,
    pub(super) segment_bytes: u64,
    pub(super) disk: Option<DiskLimit>,
    /// `RLIMIT_NPROC` of the program.
    pub(super) max_processes: Option<u64>,
    /// The channels that are streamed.
    #[serde(default)]
    pub(super) streams: Vec<Stream>,
}

/// A user of the host that training programs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id; no further groups are kept.
    pub gid: u32,
}

/// The private view of the file system, where the kernel allows one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sandbox {
    /// Folders and files shown within `/opt/ml`, in this order.
    pub(super) binds: Vec<Bind>,
    /// Folders and files that the program must not see.
    pub(super) masked: Vec<PathBuf>,
}

/// One bind mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bind {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}
