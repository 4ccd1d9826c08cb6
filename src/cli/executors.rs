//! What runs training jobs, from settings: the registered images and the executors over them.
//!
//! Invariant: what a request may start is what the settings name. Opening the executors asks no daemon to be there: one
//! that is away is a warning, since it may come back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "docker")]
use std::time::Duration;

use anyhow::Context;

use crate::config::{Environment, Settings};
use crate::domain::request::MetricDefinition;
use crate::executor::Executor;
#[cfg(feature = "docker")]
use crate::executor::docker::{DockerExecutor, DockerSettings};
use crate::executor::images::{Container, Image, Images, Program};
use crate::executor::process::{Isolation, ProcessExecutor, ProcessLimit, ProcessSettings, RunAs};
#[cfg(feature = "docker")]
use crate::executor::side_by_side::SideBySide;
#[cfg(feature = "docker")]
use crate::telemetry;

/// The images that requests may name.
pub(super) fn images(settings: &Settings) -> anyhow::Result<Images> {
    let image = |image: &crate::config::Image| Image {
        name: image.name.clone(),
        program: program(image),
        metric_definitions: image
            .metric_definitions
            .iter()
            .map(|metric| MetricDefinition { name: metric.name.clone(), regex: metric.regex.clone() })
            .collect(),
        script_mode: image.script_mode,
    };
    let registered = Images::new(settings.images.iter().map(image).collect())?;
    registered.allow(&settings.docker.images).context("docker.images can't be used")
}

fn program(image: &crate::config::Image) -> Program {
    if image.docker_image.is_empty() {
        return Program::Command(image.command.clone());
    }
    let (reference, read_only_root) = (image.docker_image.clone(), image.read_only_root);
    Program::Container(Container { reference, read_only_root })
}

/// The executor, and what the user should know of it.
pub(super) async fn open_executor(
    settings: &Settings,
    config_file: Option<&Path>,
    images: &Images,
) -> anyhow::Result<(Arc<dyn Executor>, Vec<String>)> {
    let executor = ProcessExecutor::open(process_settings(settings, config_file, images)?)?;
    let mut warnings = Vec::new();
    if let Isolation::None { why } = executor.isolation() {
        warnings.push(format!(
            "training jobs are not isolated from each other or from this machine ({why}); they find their folders by \
             the SM_* variables instead of /opt/ml"
        ));
    }
    match executor.process_limit() {
        ProcessLimit::Each(limit) => tracing::info!("a training job may have {limit} processes and threads"),
        ProcessLimit::Together(limit) => {
            tracing::info!(
                "training jobs may have {limit} processes and threads together, as user {:?}",
                settings.process.run_as
            );
        }
        ProcessLimit::Unlimited { why: Some(why) } => {
            warnings.push(format!("the processes of training jobs are not limited: {why}"));
        }
        ProcessLimit::Unlimited { why: None } => {}
    }
    beside_containers(settings, images, executor, warnings).await
}

/// The executor with that of containers beside it, where there are or may be any.
#[cfg(feature = "docker")]
async fn beside_containers(
    settings: &Settings,
    images: &Images,
    process: ProcessExecutor,
    mut warnings: Vec<String>,
) -> anyhow::Result<(Arc<dyn Executor>, Vec<String>)> {
    if !images.has_containers() && !DockerExecutor::has_attempts(&settings.data_dir) {
        return Ok((Arc::new(process), warnings));
    }
    let docker = DockerExecutor::open(docker_settings(settings, images)?).context("can't set containers up")?;
    match docker.describe().await {
        Ok(text) => tracing::info!("containers run on {text}"),
        Err(error) => warnings.push(format!(
            "training jobs that are containers fail for now: {} (docker.address is {})",
            telemetry::chain(&error),
            settings.docker.address
        )),
    }
    Ok((Arc::new(SideBySide::new(process, docker, images.clone())), warnings))
}

#[cfg(not(feature = "docker"))]
#[expect(clippy::unused_async, reason = "with containers it asks their daemon")]
async fn beside_containers(
    _settings: &Settings,
    images: &Images,
    process: ProcessExecutor,
    warnings: Vec<String>,
) -> anyhow::Result<(Arc<dyn Executor>, Vec<String>)> {
    if images.has_containers() {
        anyhow::bail!(
            "the configuration names container images, and this binary was built without its feature `docker`"
        );
    }
    Ok((Arc::new(process), warnings))
}

/// What the executor of containers is opened with.
#[cfg(feature = "docker")]
fn docker_settings(settings: &Settings, images: &Images) -> anyhow::Result<DockerSettings> {
    use crate::config;
    use crate::executor::docker::{InstanceLimits, Pull, Registry};

    let binary = std::env::current_exe().context("can't find this program's own file")?;
    let docker = &settings.docker;
    let registry = |registry: &config::Registry| Registry {
        host: registry.host.clone(),
        username: registry.username.clone(),
        password_file: registry.password_file.clone(),
    };
    Ok(DockerSettings {
        pull: match docker.pull {
            config::Pull::Never => Pull::Never,
            config::Pull::IfMissing => Pull::IfMissing,
            config::Pull::Always => Pull::Always,
        },
        pull_timeout: Duration::from_secs(docker.pull_timeout_seconds),
        registries: settings.registries.iter().map(registry).collect(),
        helper_image: Some(docker.helper_image.clone()).filter(|image| !image.is_empty()),
        network: docker.network.clone(),
        instance_limits: match docker.instance_limits {
            config::InstanceLimits::Cap => InstanceLimits::Cap,
            config::InstanceLimits::Enforce => InstanceLimits::Enforce,
            config::InstanceLimits::Ignore => InstanceLimits::Ignore,
        },
        reserve_memory: docker.reserve_memory_mib << 20,
        gpus: docker.gpus,
        init: docker.init,
        log_driver: docker.log_driver.clone(),
        max_log_bytes: docker.log_cap_mib << 20,
        max_disk_bytes: Some(docker.max_disk_gib << 30).filter(|bytes| *bytes > 0),
        max_output: (settings.artifacts.max_gib << 30, settings.artifacts.max_files),
        max_processes: Some(docker.max_processes).filter(|processes| *processes > 0),
        patience: Duration::from_secs(docker.patience_seconds),
        ..DockerSettings::new(settings.data_dir.clone(), binary, images.clone(), docker.address.clone())
    })
}

/// What the executor of programs is opened with.
pub(super) fn process_settings(
    settings: &Settings,
    config_file: Option<&Path>,
    images: &Images,
) -> anyhow::Result<ProcessSettings> {
    let binary = std::env::current_exe().context("can't find this program's own file")?;
    let mut process = ProcessSettings::new(settings.data_dir.clone(), binary, images.clone());
    if let Some(file) = config_file.and_then(|file| std::path::absolute(file).ok()) {
        // It may hold the database's password.
        file.parent().unwrap_or(Path::new("/")).clone_into(&mut process.working_dir);
        process.masked.push(file);
    }
    process.masked.extend(database_files(settings.database_url.expose()));
    let file_systems = settings.file_systems.iter().map(|file_system| file_system.path.clone());
    process.mapped = settings.s3.iter().map(|mapping| mapping.path.clone()).chain(file_systems).collect();
    if let Some(path) = Environment::of_process().get("PATH").and_then(|path| path.to_str()) {
        path.clone_into(&mut process.search_path);
    }
    process.allow_root = settings.process.allow_root;
    process.run_as = run_as(&settings.process.run_as)?;
    process.max_log_bytes = settings.process.log_cap_mib << 20;
    process.max_processes = Some(settings.process.max_processes).filter(|processes| *processes > 0);
    process.max_running = settings.max_running;
    process.max_disk_bytes = Some(settings.process.max_disk_gib << 30).filter(|bytes| *bytes > 0);
    Ok(process)
}

/// The user that a setting names; none where it is empty.
fn run_as(name: &str) -> anyhow::Result<Option<RunAs>> {
    if name.is_empty() {
        return Ok(None);
    }
    let user = nix::unistd::User::from_name(name).with_context(|| format!("can't look up the user {name}"))?;
    let user = user.with_context(|| format!("process.run_as is {name}, and this machine has no such user"))?;
    Ok(Some(RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// The files of a SQLite database, which jobs must not see; none for another database.
fn database_files(url: &str) -> Vec<PathBuf> {
    let path = url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
    let Some(path) = path.and_then(|path| path.split('?').next()).filter(|path| !path.starts_with(":memory:")) else {
        return Vec::new();
    };
    let Ok(path) = std::path::absolute(path) else { return Vec::new() };
    // Some of the files come and go: their folder is what a link can be resolved of.
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let (Some(folder), Some(name)) = (folder, path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    ["", "-wal", "-shm", "-journal", ".lock"].map(|end| folder.join(format!("{name}{end}"))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_database_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("t.db");
        let files = database_files(&format!("sqlite://{}?mode=rwc", file.display()));
        assert!(files.contains(&file) && files.contains(&file.with_extension("db-wal")), "{files:?}");
        assert_eq!(database_files("postgres://h/d"), Vec::<PathBuf>::new());
    }
}
