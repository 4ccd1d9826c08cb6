//! Starting attempts and telling what became of them.
//!
//! Invariant: every method is idempotent and keyed by [`AttemptId`]; starting an attempt twice is once. An executor
//! keeps logs, exit record, deadline and stop sequence of an attempt by something that outlives this server. Which
//! attempts should exist is the scheduler's to decide, from rows.

mod code_variables;
pub mod contract;
mod disk_bound;
#[cfg(feature = "docker")]
pub mod docker;
mod folder;
pub mod images;
mod keys;
pub mod log_format;
mod paths;
mod pipe;
pub mod process;
#[cfg(feature = "docker")]
pub mod side_by_side;
pub mod simulated;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::names::AttemptId;
use crate::domain::outcome::Exit;
use crate::domain::time::Timestamp;

/// Everything that an attempt needs to start; a function of rows, so that it can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptSpec {
    /// Names the folder, the container, the pod.
    pub id: AttemptId,
    /// `TRAINING_JOB_NAME`.
    pub training_job_name: String,
    /// `TRAINING_JOB_ARN`.
    pub training_job_arn: String,
    /// `TrainingImage` as requested; the executor resolves it.
    pub image: String,
    /// Static and tuned ones: `hyperparameters.json`.
    pub hyperparameters: BTreeMap<String, String>,
    /// The job's `Environment`.
    pub environment: BTreeMap<String, String>,
    /// Input channels, staged.
    pub channels: Vec<ChannelSpec>,
    /// A folder that stands behind `/opt/ml/checkpoints` and outlives the attempt; none where not asked for.
    pub checkpoints: Option<CheckpointSpec>,
    /// Such as `ml.m5.large`.
    pub instance_type: Option<String>,
    /// On how many hosts it runs at once, at least one.
    pub hosts: usize,
    /// Whether it may have no network but among its own hosts.
    pub network_isolation: bool,
    /// Disk that the request asks for, bytes; none where it leaves that to the executor.
    pub volume_bytes: Option<u64>,
    /// How long it may run before the stop sequence.
    pub max_runtime_ms: i64,
    /// Between SIGTERM and SIGKILL.
    pub stop_grace_ms: i64,
}

/// A channel whose data is on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSpec {
    /// The folder name under `/opt/ml/input/data`.
    pub name: String,
    /// The data: a folder, or a single file; given to the job read-only.
    pub source: PathBuf,
    /// Whether each host gets a part of the data, rather than all of it: of the files in the order of their keys, host i
    /// of n gets those whose number is i modulo n.
    pub sharded: bool,
    /// The channel's entry in `inputdataconfig.json`.
    pub config: BTreeMap<String, String>,
    /// How it is streamed; none where it is a folder.
    pub pipe: Option<PipeSpec>,
}

/// How a channel is streamed, through a pipe for each epoch: `<name>_0` and on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeSpec {
    /// A file that lists what is streamed, an item on each line (see [`crate::domain::pipe::Piece`]); none for each file
    /// of the data in the order of the keys.
    pub list: Option<PathBuf>,
    /// Folders with the files that the list names, by the first part of their paths; none where all are in the data.
    #[serde(default)]
    pub buckets: BTreeMap<String, PathBuf>,
    /// Whether each object, and each text of a list, is a `RecordIO` record.
    pub record_io: bool,
    /// Whether objects are unpacked.
    pub gzip: bool,
    /// The seed by which each epoch is shuffled.
    pub shuffle_seed: Option<i64>,
}

/// Where checkpoints are kept and seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// The host's folder.
    pub source: PathBuf,
    /// The job's path, `/opt/ml/checkpoints` by default.
    pub target: PathBuf,
}

impl AttemptSpec {
    /// Whether any channel is streamed.
    #[cfg(feature = "docker")]
    fn has_pipes(&self) -> bool {
        self.channels.iter().any(|channel| channel.pipe.is_some())
    }

    /// Sees that every channel can be a folder.
    fn check_channels(&self) -> Result<(), ExecutorError> {
        match self.channels.iter().find(|channel| !is_plain_name(&channel.name)) {
            Some(ChannelSpec { name, .. }) => {
                Err(ExecutorError::Client(format!("the channel name {name:?} cannot be a folder")))
            }
            None => Ok(()),
        }
    }
}

/// A name that is one folder, here, and visible.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one_normal = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    one_normal && components.next().is_none() && name.len() <= 255 && !name.contains(['\\', '\0'])
}

impl CheckpointSpec {
    /// The path relative to `/opt/ml`, where it may be there.
    fn within_root(&self) -> Result<PathBuf, ExecutorError> {
        let refused = |why: &str| {
            let target = self.target.display();
            Err(ExecutorError::Client(format!("checkpoints cannot be at {target}: {why}")))
        };
        let Ok(within) = self.target.strip_prefix(contract::ROOT) else {
            return refused("choose a folder within /opt/ml, such as /opt/ml/checkpoints");
        };
        let mut components = within.components();
        if !components.clone().all(|component| matches!(component, Component::Normal(_))) {
            return refused("the path holds `..`");
        }
        match components.next().and_then(|first| first.as_os_str().to_str()) {
            None | Some("input" | "model" | "output" | "tmp") => refused("the service uses that folder itself"),
            Some(_) => Ok(within.to_owned()),
        }
    }
}

/// What an executor knows of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// It was never started here, or has been removed.
    Absent,
    /// It is running, or about to.
    Running {
        /// When the training program was started; none while being prepared.
        started_at: Option<Timestamp>,
    },
    /// It is over.
    Exited(Exit),
    /// It was started and its supervisor is gone without an exit record: an infrastructure fault. Nothing of it runs
    /// any more.
    Lost,
}

/// A part of an attempt's log: whole records, see [`LogRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogChunk {
    /// The records, oldest first.
    pub records: Vec<LogRecord>,
    /// Where to go on reading: a byte offset in the stored log.
    pub next_offset: u64,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Byte offset of the record in the stored log: its identity.
    pub offset: u64,
    /// When the supervisor read the end of it.
    pub time: Timestamp,
    /// Which stream.
    pub stream: Stream,
    /// The line without its terminator; a line over 1 MiB comes in pieces.
    pub line: Vec<u8>,
}

/// The stream of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The executor's own remarks, such as a truncation mark.
    Service,
}

/// One file of a finished log, in the form that [`log_format`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// Byte offset of its first record.
    pub first_offset: u64,
    /// Time of its first record.
    pub first_time: Timestamp,
    /// Its length.
    pub bytes: u64,
}

/// The folders that an attempt left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// What becomes `model.tar.gz`.
    pub model: PathBuf,
    /// What becomes `output.tar.gz`.
    pub data: PathBuf,
}

/// Why an executor could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The request can never succeed: the job's fault.
    #[error("{0}")]
    Client(String),
    /// The machine would not: worth another attempt.
    #[error("{doing}")]
    Infrastructure {
        /// What was being done, to which attempt or path.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// A way of running attempts: local processes, Docker, Kubernetes, or a simulation.
#[async_trait]
pub trait Executor: Send + Sync + std::fmt::Debug {
    /// What attempts are bound to: a data directory on a host, a Docker daemon, a cluster.
    fn id(&self) -> &str;

    /// Starts an attempt, unless it was already started. One that is asked to stop before it has begun may be given up: it
    /// is over then, as stopped.
    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError>;

    /// Every attempt that it holds anything of.
    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError>;

    /// What became of one attempt.
    async fn observe(&self, id: AttemptId) -> Result<Observed, ExecutorError>;

    /// Returns when something of the attempt may have changed (log, exit), or after `at_most`.
    async fn changed(&self, id: AttemptId, at_most: Duration);

    /// Log records from a byte offset on, about `max_bytes` of them; none where there is nothing new.
    async fn logs(&self, id: AttemptId, from_offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError>;

    /// Begins the stop sequence: SIGTERM, the spec's grace, SIGKILL.
    async fn stop(&self, id: AttemptId) -> Result<(), ExecutorError>;

    /// The files of an ended attempt's log, in order. They stay until `remove`; keeping them elsewhere is by link or copy.
    async fn log_files(&self, id: AttemptId) -> Result<Vec<LogFile>, ExecutorError>;

    /// What an ended attempt wrote.
    async fn outputs(&self, id: AttemptId) -> Result<Outputs, ExecutorError>;

    /// Ends the attempt if it runs and forgets all of it, including its log.
    async fn remove(&self, id: AttemptId) -> Result<(), ExecutorError>;
}
