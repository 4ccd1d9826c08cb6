//! An attempt as a container: what it may do, what it sees, what it may take.
//!
//! Invariant: a container gets nothing of the machine beyond its limits and the network: no path, no capability, no
//! further privilege, no namespace of the host. What it is made of is a function of the attempt, the settings and the
//! daemon's machine.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, RestartPolicy, RestartPolicyNameEnum,
};
use tar::Builder;

use super::archive;
use super::instances::Limits;
use super::network::Network;
use super::settings::DockerSettings;
use crate::executor::contract::{self, Code, Machine};
use crate::executor::images::Container;
use crate::executor::{AttemptSpec, ExecutorError};

/// Folders of `/opt/ml` that the program may write to.
const WRITABLE: [&str; 4] = ["model", "output", "output/data", "checkpoints"];

/// Shared memory where there is no memory limit to take half of, bytes.
const SHARED_MEMORY: i64 = 1 << 30;

/// Where the machine itself runs out of memory, training programs go before anything else of it, the server first of all:
/// limits of several containers may add up to more than there is.
const FIRST_TO_GO: i64 = 1000;

/// Of the time of processors that are all wanted: an eighth of what other things of the machine get by default.
const CPU_SHARES: i64 = 128;

/// What the daemon keeps of a log at least, bytes: under a flood it would throw away what is being read.
const LEAST_LOG: u64 = 256 << 20;

/// What a container goes by at its daemon.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The data directory, in full.
    pub(super) executor: String,
    /// The network between the attempt's hosts; none of a single one.
    pub(super) network: Option<Network>,
    /// Where the daemon keeps its output.
    pub(super) log_driver: String,
}

/// What is put into a container before it starts.
#[derive(Debug)]
pub(super) struct Contents {
    config: [(&'static str, String); 3],
    /// Where beneath `/opt/ml`, and from where here.
    checkpoints: Option<(PathBuf, PathBuf)>,
    /// Whether `/opt/ml` is a volume of its own.
    volume: bool,
    /// Whether `input/data` is the volume of the pipes, which nobody but their helper can write to.
    pipes: bool,
}

impl Contents {
    pub(super) fn new(spec: &AttemptSpec, machine: &Machine, image: &Container) -> Result<Self, ExecutorError> {
        let checkpoints = match &spec.checkpoints {
            None => None,
            Some(checkpoints) => Some((checkpoints.within_root()?, checkpoints.source.clone())),
        };
        let config = contract::config_files(spec, machine);
        Ok(Self { config, checkpoints, volume: image.read_only_root, pipes: spec.has_pipes() })
    }

    /// Where the archive is unpacked. A read-only root lets nothing be put beside its volume; an image that has no
    /// `/opt/ml` gets one.
    pub(super) fn unpacked_at(&self) -> &'static str {
        if self.volume { contract::ROOT } else { "/" }
    }

    pub(super) fn write<W: io::Write>(&self, archive: &mut Builder<W>) -> io::Result<()> {
        let root = if self.volume { String::new() } else { format!("{}/", &contract::ROOT[1..]) };
        if !self.volume {
            archive::append_folder(archive, &contract::ROOT[1..], 0o755)?;
        }
        for name in ["input", "input/config", "input/data"].iter().filter(|name| !self.pipes || **name != "input/data")
        {
            archive::append_folder(archive, &format!("{root}{name}"), 0o755)?;
        }
        // Whichever user the image runs as.
        for name in WRITABLE {
            archive::append_folder(archive, &format!("{root}{name}"), 0o777)?;
        }
        for (name, text) in &self.config {
            archive::append_file(archive, &format!("{root}input/config/{name}"), text)?;
        }
        if let Some((within, source)) = &self.checkpoints {
            let path = format!("{root}{}", within.display());
            archive::append_folder(archive, &path, 0o777)?;
            archive::append_tree(archive, path.as_ref(), source, true)?;
        }
        Ok(())
    }
}

/// What the contract tells of one of an attempt's hosts.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "CPUs of a machine")]
pub(super) fn machine(limits: &Limits, machine_cpus: f64, spec: &AttemptSpec, host: usize) -> Machine {
    let cpus = limits.bounds.map_or(machine_cpus, |bounds| bounds.cpus).ceil().max(1.0) as usize;
    let alone = spec.network_isolation && spec.hosts == 1;
    Machine { host, cpus, gpus: limits.gpus as usize, network_interface: if alone { "lo" } else { "eth0" } }
}

/// The container to be created. `mounts` are its channels, and `/opt/ml` where that is a volume.
pub(super) fn body(
    settings: &DockerSettings,
    spec: &AttemptSpec,
    image: &Container,
    names: &Names,
    limits: &Limits,
    machine: &Machine,
    mounts: Vec<Mount>,
) -> Result<ContainerCreateBody, ExecutorError> {
    let mut environment =
        contract::environment(spec, machine, contract::ROOT, Code::OfTheImage).map_err(ExecutorError::Client)?;
    // Metrics are read from lines as they come.
    environment.entry("PYTHONUNBUFFERED".into()).or_insert_with(|| "1".into());
    let mut labels = labels(&names.executor, spec);
    labels.insert("tunesmith.host".to_owned(), contract::host_name(machine.host));
    let network_mode = network_mode(settings, spec, names);
    Ok(ContainerCreateBody {
        image: Some(image.reference.clone()),
        cmd: Some(vec!["train".to_owned()]),
        hostname: Some(contract::host_name(machine.host)),
        env: Some(environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels),
        host_config: Some(HostConfig {
            network_mode: Some(network_mode.to_owned()),
            // Without a network a host does not know itself by its name.
            extra_hosts: (network_mode == "none")
                .then(|| vec![format!("{}:127.0.0.1", contract::host_name(machine.host))]),
            dns: names.network.as_ref().and_then(Network::dns),
            device_requests: gpus(spec, machine),
            log_config: Some(log_config(settings, &names.log_driver)),
            ..host_config(settings, image, limits, mounts)
        }),
        networking_config: names.network.as_ref().map(|network| network.connection(machine.host)),
        ..ContainerCreateBody::default()
    })
}

/// What all that an attempt has at its daemon is found by.
pub(super) fn labels(executor: &str, spec: &AttemptSpec) -> HashMap<String, String> {
    let labels = [
        ("tunesmith.executor", executor.to_owned()),
        ("tunesmith.attempt", spec.id.to_string()),
        ("tunesmith.training-job", spec.id.training_job.simple().to_string()),
        ("tunesmith.training-job-name", spec.training_job_name.clone()),
        ("tunesmith.max-runtime-ms", spec.max_runtime_ms.to_string()),
        ("tunesmith.stop-grace-ms", spec.stop_grace_ms.to_string()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn network_mode<'a>(settings: &'a DockerSettings, spec: &AttemptSpec, names: &'a Names) -> &'a str {
    match &names.network {
        Some(network) => &network.id,
        None if spec.network_isolation => "none",
        None => &settings.network,
    }
}

/// A host's GPUs: where there are several hosts, each has its own.
fn gpus(spec: &AttemptSpec, machine: &Machine) -> Option<Vec<DeviceRequest>> {
    let mut request = DeviceRequest { capabilities: Some(vec![vec!["gpu".to_owned()]]), ..DeviceRequest::default() };
    if spec.hosts == 1 {
        request.count = i64::try_from(machine.gpus).ok();
    } else {
        let first = machine.host * machine.gpus;
        request.device_ids = Some((first..first + machine.gpus).map(|gpu| gpu.to_string()).collect());
    }
    (machine.gpus > 0).then(|| vec![request])
}

#[expect(clippy::cast_possible_truncation, reason = "CPUs of a machine")]
fn host_config(settings: &DockerSettings, image: &Container, limits: &Limits, mounts: Vec<Mount>) -> HostConfig {
    let memory = limits.bounds.and_then(|bounds| i64::try_from(bounds.memory).ok());
    HostConfig {
        mounts: Some(mounts),
        memory,
        // No swap on top.
        memory_swap: memory,
        shm_size: Some(memory.map_or(SHARED_MEMORY, |memory| memory / 2)),
        nano_cpus: limits.bounds.map(|bounds| (bounds.cpus * 1e9) as i64),
        pids_limit: settings.max_processes.and_then(|processes| i64::try_from(processes).ok()),
        init: settings.init.then_some(true),
        readonly_rootfs: Some(image.read_only_root),
        tmpfs: image
            .read_only_root
            .then(|| HashMap::from([("/tmp".to_owned(), "rw,nosuid,nodev,mode=1777".to_owned())])),
        ..confined()
    }
}

/// What every container of an attempt is held to.
pub(super) fn confined() -> HostConfig {
    HostConfig {
        oom_score_adj: Some(FIRST_TO_GO),
        cpu_shares: Some(CPU_SHARES),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        ipc_mode: Some("private".to_owned()),
        privileged: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

/// As much as this server would keep, twice: less, and the daemon would throw lines away before they are fetched.
fn log_config(settings: &DockerSettings, driver: &str) -> HostConfigLogConfig {
    let kibibytes = settings.max_log_bytes.max(LEAST_LOG) >> 10;
    let mut config = HashMap::from([("max-size".to_owned(), format!("{kibibytes}k"))]);
    if matches!(driver, "local" | "json-file") {
        config.extend([("max-file", "2"), ("compress", "false")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    HostConfigLogConfig { typ: Some(driver.to_owned()), config: Some(config) }
}
