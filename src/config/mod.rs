//! Settings: built-in defaults, then a TOML file, then `TUNESMITH_*` variables, then flags.
//!
//! Invariant: `tunesmith.default.toml` names every setting with its default (a test compares), a key that nothing reads
//! is refused wherever it stands, and a password never leaves this module in readable form except to the database
//! driver. What a setting does belongs to the module that it is handed to.

mod buckets;
mod file_systems;
mod layers;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use buckets::{Bucket, Channels, Secret};
pub use file_systems::{FileSystem, FileSystemType};
pub use layers::{ConfigError, Environment, Flags, Loaded, Source};

/// Every setting; `tunesmith.default.toml` explains them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The server's own folder; never empty once loaded.
    pub data_dir: PathBuf,
    /// `sqlite://…` or `postgres://…`; never empty once loaded.
    pub database_url: DatabaseUrl,
    /// Twelve digits; in every ARN.
    pub account: String,
    /// The region of requests without a credential scope.
    pub region: String,
    /// Training jobs that run at once on this server; never zero once loaded.
    pub max_running: usize,
    /// How long a draining server still takes requests while it is not ready.
    pub drain_grace_seconds: u64,
    /// How long a draining server waits for requests in flight.
    pub drain_timeout_seconds: u64,
    /// Limits of one account.
    pub quotas: Quotas,
    /// What training jobs may leave.
    pub artifacts: Artifacts,
    /// Training programs as processes of this machine.
    pub process: Process,
    /// Training programs as containers.
    pub docker: Docker,
    /// Who to be to which registry.
    pub registries: Vec<Registry>,
    /// The server's own log.
    pub log: Log,
    /// What a request may name as its `TrainingImage`.
    pub images: Vec<Image>,
    /// `s3://` prefixes that stand for other folders than those in the data directory.
    pub s3: Vec<S3Mapping>,
    /// Buckets that are in S3.
    pub buckets: Vec<Bucket>,
    /// Local copies of what comes from them.
    pub channels: Channels,
    /// Folders that stand for network file systems.
    pub file_systems: Vec<FileSystem>,
}

/// `[quotas]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Training jobs of one tuning job.
    pub training_jobs_per_tuning_job: u32,
    /// Parallel training jobs of one tuning job.
    pub parallel_training_jobs: u32,
    /// Tuning jobs that are not over.
    pub concurrent_tuning_jobs: u32,
    /// Hosts of one training job.
    pub hosts_per_training_job: u32,
}

/// `[artifacts]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Artifacts {
    /// The size of one, before it is packed, GiB.
    pub max_gib: u64,
    /// Files, folders and links of one.
    pub max_files: u64,
}

/// `[process]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// The user that training programs run as when the server is root; empty for the server's own.
    pub run_as: String,
    /// Whether training programs may run as root.
    pub allow_root: bool,
    /// Log kept of one attempt, MiB.
    pub log_cap_mib: u64,
    /// Disk that one attempt may take, GiB; 0 for what its request asks for.
    pub max_disk_gib: u64,
    /// Processes and threads of one attempt; 0 for no limit.
    pub max_processes: u64,
}

/// `[docker]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Docker {
    /// `unix://…` or `tcp://…`; never empty once loaded.
    pub address: String,
    /// Glob patterns of image references that need no `[[images]]` entry.
    pub images: Vec<String>,
    /// When images are pulled.
    pub pull: Pull,
    /// How long a pull may take.
    pub pull_timeout_seconds: u64,
    /// Tunesmith's own image, for the helpers that stream channels; empty where nothing is streamed into containers.
    pub helper_image: String,
    /// The network of containers without network isolation.
    pub network: String,
    /// What an instance type means.
    pub instance_limits: InstanceLimits,
    /// Memory of the machine that containers do not get, MiB.
    pub reserve_memory_mib: u64,
    /// GPUs of the daemon's machine.
    pub gpus: u32,
    /// Whether the first process of a container is the daemon's `init`.
    pub init: bool,
    /// Where the daemon keeps output until it is fetched.
    pub log_driver: String,
    /// Log kept of one attempt, MiB.
    pub log_cap_mib: u64,
    /// Disk that one attempt may take, GiB; 0 for what its request asks for.
    pub max_disk_gib: u64,
    /// Processes and threads of one attempt; 0 for no limit.
    pub max_processes: u64,
    /// How long a daemon may be out of reach before what it runs counts as lost.
    pub patience_seconds: u64,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// Never: what is not there is the request's fault.
    Never,
    /// Where it is not there.
    IfMissing,
    /// Before each attempt.
    Always,
}

/// What becomes of an instance type that the machine is too small for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceLimits {
    /// The container gets what there is.
    Cap,
    /// The training job fails.
    Enforce,
    /// Containers have no such limits at all.
    Ignore,
}

/// `[[registries]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// As references begin, such as `registry.example.com:5000`; `docker.io` for references without a host.
    pub host: String,
    /// Who.
    pub username: String,
    /// A file that holds the password; read at each pull.
    pub password_file: PathBuf,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or directives per module such as `info,tunesmith::scheduler=debug`.
    pub level: String,
    /// Lines for people or for machines.
    pub format: LogFormat,
}

/// How a line of the server's log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[images]]`: a name for a program of this machine or for a container image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// An image name, or a glob pattern over image names.
    pub name: String,
    /// The program and its first arguments; empty for a container image.
    #[serde(default)]
    pub command: Vec<String>,
    /// The reference of a container image; empty for a program.
    #[serde(default)]
    pub docker_image: String,
    /// Whether a container can write to `/opt/ml` and `/tmp` alone.
    #[serde(default)]
    pub read_only_root: bool,
    /// Whether what the hyperparameter `sagemaker_submit_directory` names in S3 becomes the channel `code`.
    #[serde(default)]
    pub script_mode: bool,
    /// What requests without metric definitions of their own get.
    #[serde(default)]
    pub metric_definitions: Vec<Metric>,
}

/// A metric definition of an image; the API's spelling of the keys is taken too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The metric.
    #[serde(alias = "Name")]
    pub name: String,
    /// Its first group is the value.
    #[serde(alias = "Regex")]
    pub regex: String,
}

/// `[[s3]]`: a prefix and the folder that stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Mapping {
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub uri: String,
    /// A folder of this machine.
    pub path: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8686)),
            data_dir: PathBuf::new(),
            database_url: DatabaseUrl::default(),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            max_running: 0,
            drain_grace_seconds: 0,
            drain_timeout_seconds: 30,
            quotas: Quotas::default(),
            artifacts: Artifacts::default(),
            process: Process::default(),
            docker: Docker::default(),
            registries: Vec::new(),
            log: Log::default(),
            images: Vec::new(),
            s3: Vec::new(),
            buckets: Vec::new(),
            channels: Channels::default(),
            file_systems: Vec::new(),
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            training_jobs_per_tuning_job: 10_000,
            parallel_training_jobs: 100,
            concurrent_tuning_jobs: 100,
            hosts_per_training_job: 8,
        }
    }
}

impl Default for Artifacts {
    fn default() -> Self {
        Self { max_gib: 50, max_files: 1_000_000 }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self { run_as: String::new(), allow_root: false, log_cap_mib: 1024, max_disk_gib: 100, max_processes: 4096 }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            address: String::new(),
            images: Vec::new(),
            pull: Pull::IfMissing,
            pull_timeout_seconds: 1800,
            helper_image: String::new(),
            network: "bridge".to_owned(),
            instance_limits: InstanceLimits::Cap,
            reserve_memory_mib: 512,
            gpus: 0,
            init: true,
            log_driver: String::new(),
            log_cap_mib: 1024,
            max_disk_gib: 100,
            max_processes: 4096,
            patience_seconds: 60,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// A database's URL. Shown only without its password.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// A URL as the user wrote it.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for the driver alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL with `***` where a password stands, in the user part or in the query.
    #[must_use]
    pub fn redacted(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            // No URL at all; it may be a password pasted into the wrong place.
            return if self.0.is_empty() { String::new() } else { "***".to_owned() };
        };
        // The last `@`, so that a password with an unescaped `@` or `/` is hidden whole.
        let rest = match rest.rsplit_once('@') {
            Some((login, host)) => match login.split_once(':') {
                Some((user, _)) => format!("{user}:***@{host}"),
                None => rest.to_owned(),
            },
            None => rest.to_owned(),
        };
        let rest = match rest.split_once('?') {
            Some((base, query)) => format!("{base}?{}", redacted_query(query)),
            None => rest,
        };
        format!("{scheme}://{rest}")
    }
}

fn redacted_query(query: &str) -> String {
    let redacted = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if key.to_ascii_lowercase().contains("password") => format!("{key}=***"),
        _ => pair.to_owned(),
    });
    redacted.collect::<Vec<_>>().join("&")
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("postgres://tune:s3cret@db:5432/t", "postgres://tune:***@db:5432/t"),
            ("postgres://tune:p@ss/w:rd@db/t", "postgres://tune:***@db/t"),
            ("postgres://tune@db/t?sslmode=off&password=s3cret", "postgres://tune@db/t?sslmode=off&password=***"),
            ("sqlite:///var/lib/tunesmith/tunesmith.db", "sqlite:///var/lib/tunesmith/tunesmith.db"),
            ("s3cret", "***"),
        ] {
            let url = DatabaseUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
        }
    }

    #[test]
    fn the_default_file_is_the_documentation() {
        let text = include_str!("../../tunesmith.default.toml");
        let documented: toml::Table = toml::from_str(text).unwrap();
        let built_in = toml::Table::try_from(Settings::default()).unwrap();
        for (key, value) in &built_in {
            match documented.get(key) {
                Some(default) => assert_eq!(default, value, "tunesmith.default.toml disagrees about {key}"),
                // A list that is empty by default is shown as a comment, or a copy could not add to it.
                None => assert!(text.contains(&format!("#   [[{key}]]")), "tunesmith.default.toml lacks {key}"),
            }
        }
        let known = documented.keys().all(|key| built_in.contains_key(key));
        assert!(known, "tunesmith.default.toml names a key that does not exist");
    }
}
