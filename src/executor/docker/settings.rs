//! How the Docker executor is set up.
//!
//! Invariant: values alone, and no password among them: a registry's stands in a file, which is read at each pull.
//! Reading and checking the configuration is left to `config`, and making these of it to `cli`.

use std::path::PathBuf;
use std::time::Duration;

use crate::executor::images::Images;

/// Settings of the Docker executor.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// The server's data directory; attempts live in `docker` beneath it.
    pub data_dir: PathBuf,
    /// The `tunesmith` binary that supervises.
    pub binary: PathBuf,
    /// What images there are.
    pub images: Images,
    /// The daemon: `unix://…` or `tcp://…`.
    pub address: String,
    /// When images are pulled.
    pub pull: Pull,
    /// How long a pull may take.
    pub pull_timeout: Duration,
    /// Who to be to which registry.
    pub registries: Vec<Registry>,
    /// Tunesmith's own image, of which helpers are made that stream channels; none where nothing is streamed.
    pub helper_image: Option<String>,
    /// The network of containers without network isolation.
    pub network: String,
    /// What an instance type means.
    pub instance_limits: InstanceLimits,
    /// Memory of the daemon's machine that containers do not get, bytes.
    pub reserve_memory: u64,
    /// GPUs of the daemon's machine.
    pub gpus: u32,
    /// Whether the first process is the daemon's `init`, which passes signals on and takes in what ends.
    pub init: bool,
    /// Where the daemon keeps output until it is fetched; empty for what it has.
    pub log_driver: String,
    /// The log of one attempt is cut off here, bytes.
    pub max_log_bytes: u64,
    /// A log segment is closed once it is this long, bytes.
    pub segment_bytes: u64,
    /// Disk that one attempt may take, bytes; none: what its request asks for, where it asks.
    pub max_disk_bytes: Option<u64>,
    /// What an attempt may leave: bytes, and files.
    pub max_output: (u64, u64),
    /// Processes and threads of one attempt; none for no limit.
    pub max_processes: Option<u64>,
    /// How long the daemon may be out of reach before what it runs counts as lost.
    pub patience: Duration,
    /// How often the checkpoints of a running attempt are saved, at most.
    pub save_checkpoints_every: Duration,
    /// How long a channel's volume is kept after its last use.
    pub keep_channels: Duration,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Never.
    Never,
    /// Where the daemon does not have it.
    IfMissing,
    /// Before each attempt.
    Always,
}

/// What becomes of an instance type that the machine is too small for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceLimits {
    /// The container gets what there is.
    Cap,
    /// The training job fails.
    Enforce,
    /// Containers have no such limits at all.
    Ignore,
}

/// Who to be to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// As references begin; `docker.io` for references without a host.
    pub host: String,
    /// Who.
    pub username: String,
    /// A file that holds the password; read at each pull.
    pub password_file: PathBuf,
}

impl DockerSettings {
    /// The defaults, with what has none.
    #[must_use]
    pub fn new(data_dir: PathBuf, binary: PathBuf, images: Images, address: String) -> Self {
        Self {
            data_dir,
            binary,
            images,
            address,
            pull: Pull::IfMissing,
            pull_timeout: Duration::from_mins(30),
            registries: Vec::new(),
            helper_image: None,
            network: "bridge".into(),
            instance_limits: InstanceLimits::Cap,
            reserve_memory: 512 << 20,
            gpus: 0,
            init: true,
            log_driver: String::new(),
            max_log_bytes: 1 << 30,
            segment_bytes: 16 << 20,
            max_disk_bytes: None,
            max_output: (50 << 30, 1_000_000),
            max_processes: None,
            patience: Duration::from_mins(1),
            save_checkpoints_every: Duration::from_mins(1),
            keep_channels: Duration::from_hours(1),
        }
    }
}
