//! Attempts as containers of a Docker daemon, or of Podman's, each looked after by a supervisor that outlives the
//! server.
//!
//! Invariant: what an attempt is doing is told by its folder, as for processes (see `folder`), and by its container,
//! whose name is the attempt's (and the host's, of several): creating it twice is once. A supervisor without a server
//! keeps log, deadline and stop sequence; a container without a supervisor gets one as soon as a server looks. No path
//! is shared with the daemon.
//!
//! The server makes an attempt's containers ready (image, channels, configuration; see `prepare`) and removes them;
//! their supervisor starts them. An attempt on several hosts is a container for each, with a network between them and
//! one supervisor for all; it starts as a whole and ends as one.

mod archive;
mod daemon;
mod ending;
mod follow;
mod instances;
mod launch;
mod launching;
mod meter;
mod network;
mod plan;
mod prepare;
mod pull;
mod settings;
mod share;
mod stamp;
pub mod streams;
pub mod supervisor;
mod unfinished;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, RemoveContainerOptions, RemoveVolumeOptions,
};

use self::archive::{Bounds, Known, Source, TransferError};
use self::daemon::{Patience, infrastructure};
use self::instances::Resources;
use self::launching::Launching;
use self::plan::Plan;
pub use self::settings::{DockerSettings, InstanceLimits, Pull, Registry};
use self::volumes::Volumes;
use super::folder::{Attempts, Folder, KILL, blocking, failed, found, own_id};
use super::{AttemptSpec, Executor, ExecutorError, LogChunk, LogFile, Observed, Outputs, contract};
use crate::clock::Clock;
use crate::domain::names::AttemptId;
use crate::domain::outcome::{Exit, ExitCause};

/// How long a supervisor may take to end its container without grace, before the container is removed under it.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How often an attempt gets a new supervisor, at most.
const REVIVE_EVERY: Duration = Duration::from_secs(1);

/// What a container may have however much is kept back, bytes.
const LEAST_MEMORY: u64 = 64 << 20;

/// How long a listing waits for the daemon.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a listing tidies up meanwhile.
const TIDY_PATIENCE: Duration = Duration::from_secs(20);

/// How often a listing that cannot be read is asked for again, and after how long.
const UNREADABLE_TRIES: u32 = 20;
const UNREADABLE_WAIT: Duration = Duration::from_millis(100);

/// How often volumes that nobody uses are looked for.
const TIDY_EVERY: Duration = Duration::from_mins(5);

/// Runs attempts as containers.
#[derive(Debug)]
pub struct DockerExecutor {
    /// `docker:` and the data directory's id.
    id: String,
    /// What the names of its containers and volumes begin with.
    prefix: String,
    settings: DockerSettings,
    attempts: Attempts,
    volumes: Volumes,
    clients: tokio::sync::Mutex<Option<Clients>>,
    launching: Launching,
    /// When an attempt last got a supervisor.
    revived: Mutex<HashMap<AttemptId, Instant>>,
    /// Supervisors that this server started, to be taken in once they end.
    supervisors: Mutex<Vec<Child>>,
    tidied: Mutex<Option<Instant>>,
    /// Attempts with a container and without a folder, as of the last listing: left from a lost data directory.
    strays: Mutex<HashSet<AttemptId>>,
}

/// Connections to the daemon, and its machine.
#[derive(Debug, Clone)]
struct Clients {
    docker: bollard::Docker,
    /// For data.
    patient: bollard::Docker,
    machine: Resources,
    /// Where it is to keep output.
    log_driver: String,
}

impl DockerExecutor {
    /// Opens the executor of a data directory. The daemon need not be there yet. To be called within a tokio runtime.
    pub fn open(mut settings: DockerSettings) -> io::Result<Self> {
        let directory = settings.data_dir.join("docker");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        // What is fetched is written along a path without links.
        settings.data_dir = settings.data_dir.canonicalize()?;
        let directory = settings.data_dir.join("docker");
        let id = own_id(&settings.data_dir)?;
        let prefix = format!("tunesmith-{}", &id.simple().to_string()[..12]);
        Ok(Self {
            id: format!("docker:{id}"),
            attempts: Attempts::open(&directory)?,
            volumes: Volumes::open(directory.join("volumes"), prefix.clone(), settings.patience)?,
            prefix,
            settings,
            clients: tokio::sync::Mutex::default(),
            launching: Launching::default(),
            revived: Mutex::default(),
            supervisors: Mutex::default(),
            tidied: Mutex::default(),
            strays: Mutex::default(),
        })
    }

    /// Whether a data directory holds containers' attempts.
    #[must_use]
    pub fn has_attempts(data_dir: &std::path::Path) -> bool {
        std::fs::read_dir(data_dir.join("docker/attempts")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Whether it holds anything of an attempt, as far as is known without asking the daemon.
    pub fn holds(&self, id: AttemptId) -> bool {
        self.launching.has(id) || self.attempts.folder(id).path().exists() || self.strays().contains(&id)
    }

    fn strays(&self) -> MutexGuard<'_, HashSet<AttemptId>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the daemon is, in words; an error where it does not answer.
    pub async fn describe(&self) -> Result<String, ExecutorError> {
        let Clients { docker, machine, .. } = self.clients().await?;
        let version = docker.version().await.map_err(infrastructure("asking the Docker daemon for its version"))?;
        let (cpus, mib) = (machine.cpus, machine.memory >> 20);
        Ok(format!("Docker {} with {cpus} CPUs and {mib} MiB for containers", version.version.unwrap_or_default()))
    }

    async fn clients(&self) -> Result<Clients, ExecutorError> {
        let mut known = self.clients.lock().await;
        if let Some(clients) = &*known {
            return Ok(clients.clone());
        }
        let doing = || infrastructure(format!("reaching the Docker daemon at {}", self.settings.address));
        let docker = daemon::connect(&self.settings.address, Patience::Ordinary).await.map_err(doing())?;
        let version = docker.client_version();
        let patient = daemon::client(&self.settings.address, Patience::Transfer, &version).map_err(doing())?;
        let info = docker.info().await.map_err(doing())?;
        let memory = u64::try_from(info.mem_total.unwrap_or(0)).unwrap_or(0);
        let machine = Resources {
            cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).map_or(1.0, f64::from),
            memory: memory.saturating_sub(self.settings.reserve_memory).max(LEAST_MEMORY),
            gpus: self.settings.gpus,
        };
        let offered = info.plugins.and_then(|plugins| plugins.log).unwrap_or_default();
        let log_driver = daemon::log_driver(&self.settings.log_driver, &offered);
        let clients = Clients { docker, patient, machine, log_driver };
        *known = Some(clients.clone());
        Ok(clients)
    }

    /// The name of the container of an attempt's only host, or of one of several.
    fn container_name(&self, id: AttemptId, host: Option<usize>) -> String {
        let host = host.map_or_else(String::new, |host| format!("-{}", contract::host_name(host)));
        format!("{}-{id}{host}", self.prefix)
    }

    /// Takes in supervisors that have ended.
    fn reap(&self) {
        let mut supervisors = self.supervisors.lock().unwrap_or_else(PoisonError::into_inner);
        supervisors.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn start_supervisor(&self, folder: &Folder, lock: File) -> io::Result<()> {
        use std::os::unix::process::CommandExt;
        let mut supervisor = Command::new(&self.settings.binary);
        supervisor.arg(supervisor::COMMAND).arg(folder.path()).env_clear();
        supervisor.stdin(Stdio::from(lock)).stdout(Stdio::null()).stderr(Stdio::null());
        supervisor.process_group(0);
        let child = supervisor.spawn()?;
        self.supervisors.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        Ok(())
    }

    /// This executor's containers that have all of some labels.
    async fn containers(
        &self,
        docker: &bollard::Docker,
        labels: &[String],
    ) -> Result<Vec<(AttemptId, String)>, daemon::Error> {
        let mut labels = labels.to_vec();
        labels.push(format!("tunesmith.executor={}", self.id));
        let filters = Some(HashMap::from([("label".to_owned(), labels)]));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        let mut tries = 0..UNREADABLE_TRIES;
        let found = loop {
            match docker.list_containers(Some(options.clone())).await {
                Err(error) if daemon::is_unreadable(&error) && tries.next().is_some() => {
                    tokio::time::sleep(UNREADABLE_WAIT).await;
                }
                listed => break listed?,
            }
        };
        let attempt = |container: bollard::models::ContainerSummary| {
            let id = container.labels?.get("tunesmith.attempt")?.parse().ok()?;
            Some((id, container.id?))
        };
        Ok(found.into_iter().filter_map(attempt).collect())
    }

    /// The attempts of which the daemon holds a container, a network or a volume.
    async fn at_the_daemon(&self) -> Result<HashSet<AttemptId>, ExecutorError> {
        let clients = self.clients().await?;
        let containers = self.containers(&clients.docker, &[]).await.map_err(infrastructure("listing containers"))?;
        let networks =
            network::attempts(&clients.docker, &self.id).await.map_err(infrastructure("listing networks"))?;
        // A request to make a container that was given up may make its volumes later.
        let volumes = volumes::attempts(&clients.docker, &self.prefix).await.unwrap_or_else(|error| {
            tracing::warn!(error = crate::telemetry::chain(&error), "the daemon's volumes could not be listed");
            Vec::new()
        });
        Ok(containers.into_iter().map(|(id, _)| id).chain(networks).chain(volumes).collect())
    }

    /// Gives an attempt whose supervisor is gone another one.
    fn revive(&self, id: AttemptId, folder: &Folder) -> Result<(), ExecutorError> {
        self.reap();
        {
            let mut revived = self.revived.lock().unwrap_or_else(PoisonError::into_inner);
            if revived.get(&id).is_some_and(|at| at.elapsed() < REVIVE_EVERY) {
                return Ok(());
            }
            revived.insert(id, Instant::now());
        }
        let doing = format!("looking after attempt {id} again");
        let lock = folder.try_lock().map_err(failed(doing.clone()))?;
        match lock {
            Some(lock) => self.start_supervisor(folder, lock).map_err(failed(doing)),
            None => Ok(()),
        }
    }

    /// Waits for a supervisor that was asked to end; what remains is removed under it.
    async fn wait_for_end(&self, folder: &Folder) -> Result<(), ExecutorError> {
        let ended = || folder.is_locked().map(|locked| !locked);
        let until = Instant::now() + END_PATIENCE;
        while !ended().map_err(failed("waiting for a supervisor".into()))? && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn tidy(&self) {
        {
            let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
            if tidied.is_some_and(|at| at.elapsed() < TIDY_EVERY) {
                return;
            }
            *tidied = Some(Instant::now());
        }
        let Ok(clients) = self.clients().await else { return };
        if let Err(error) = self.volumes.remove_unused(&clients.docker, self.settings.keep_channels).await {
            tracing::warn!(error = crate::telemetry::chain(&error), "volumes of channels were not removed");
        }
    }

    /// For tests: removes volumes of channels that no container mounts, however lately one did.
    pub async fn remove_channels(&self) -> Result<(), ExecutorError> {
        let clients = self.clients().await?;
        self.volumes.remove_unused(&clients.docker, Duration::ZERO).await
    }

    /// Removes what was left half written among an attempt's checkpoints, unless another attempt may be writing there.
    async fn sweep_checkpoints(&self, id: AttemptId, folder: &Folder) -> Result<(), ExecutorError> {
        let attempts = self.attempts.list().await?;
        if attempts.iter().any(|other| *other != id && other.training_job == id.training_job) {
            return Ok(());
        }
        let plan = folder.plan();
        blocking(format!("tidying the checkpoints of attempt {id}"), move || {
            let Some(plan) = found(std::fs::read(plan))? else { return Ok(()) };
            let plan: Plan = serde_json::from_slice(&plan)?;
            plan.checkpoints.map_or(Ok(()), |(_, to)| unfinished::remove_from(&to, archive::MAX_DEPTH))
        })
        .await
    }

    /// Brings a folder of every host into one.
    async fn download(&self, id: AttemptId, from: &str, into: PathBuf) -> Result<(), ExecutorError> {
        let clients = self.clients().await?;
        let (bytes, entries) = self.settings.max_output;
        let doing = || format!("fetching {from} of attempt {id}");
        let folder = self.attempts.folder(id);
        let plan: Plan = std::fs::read(folder.plan())
            .and_then(|text| Ok(serde_json::from_slice(&text)?))
            .map_err(failed(format!("reading the plan of attempt {id}")))?;
        let containers: Vec<&str> = plan.containers().collect();
        // What comes later takes the place of what is there: the first host's files count.
        for container in containers.into_iter().rev() {
            // Files of two hosts may have one size and one time.
            let bounds = Bounds { bytes, entries, known: Known::Nothing };
            let source = Source { docker: &clients.patient, container, path: from, patience: self.settings.patience };
            match archive::download(source, into.clone(), bounds).await {
                // The program may have removed it.
                Ok(()) | Err(TransferError::Missing) => {}
                Err(TransferError::Refused(why)) => {
                    return Err(ExecutorError::Client(format!("failed while {}: {why}", doing())));
                }
                Err(TransferError::Daemon(error)) => return Err(infrastructure(doing())(error)),
                Err(TransferError::Io(source)) => return Err(ExecutorError::Infrastructure { doing: doing(), source }),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    fn id(&self) -> &str {
        &self.id
    }

    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        self.reap();
        let image = self.settings.images.find(&spec.image);
        let Some(image) = image.as_ref().and_then(|image| image.as_container()) else {
            let known: Vec<&str> = self.settings.images.names().collect();
            let image = &spec.image;
            return Err(ExecutorError::Client(format!(
                "the image {image} is not registered here; these are: {known:?}"
            )));
        };
        spec.check_channels()?;
        if let Some(why) = streams::refusal(&self.settings, spec) {
            return Err(ExecutorError::Client(why));
        }
        let launch = self.launching.begin(spec.id);
        let folder = self.attempts.folder(spec.id);
        let doing = format!("starting attempt {}", spec.id);
        let made = folder.clone();
        let lock = blocking(doing.clone(), move || {
            match std::fs::DirBuilder::new().mode(0o700).create(made.path()) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let lock = made.try_lock()?;
            if lock.is_none() || made.exit()?.is_some() || made.was_started()? {
                return Ok(None);
            }
            made.mark_boot()?;
            Ok(lock)
        });
        let Some(lock) = lock.await? else { return Ok(()) };
        tokio::select! {
            biased;
            // What it has made so far goes when the attempt is removed, or with what nobody uses.
            () = launch.given_up() => {
                let stopped = Exit::bare(Clock::System.now(), ExitCause::Stopped);
                return folder.write_exit(&stopped).map_err(failed(doing));
            }
            prepared = self.prepare(spec, image, &folder) => prepared?,
        }
        self.start_supervisor(&folder, lock).map_err(failed(doing))
    }

    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        let mut ids: HashSet<AttemptId> = self.attempts.list().await?.into_iter().collect();
        // Whoever lists does not wait for a daemon that is not there.
        if let Ok(Ok(held)) = tokio::time::timeout(LIST_PATIENCE, self.at_the_daemon()).await {
            let strays: HashSet<AttemptId> = held.into_iter().filter(|id| !ids.contains(id)).collect();
            self.strays().clone_from(&strays);
            ids.extend(strays);
            // What it could not do by then it goes on with the next time.
            let _ = tokio::time::timeout(TIDY_PATIENCE, self.tidy()).await;
        }
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn observe(&self, id: AttemptId) -> Result<Observed, ExecutorError> {
        let folder = self.attempts.folder(id);
        let observed = folder.observe().map_err(failed(format!("looking at attempt {id}")))?;
        if observed != Observed::Lost {
            return Ok(observed);
        }
        self.revive(id, &folder)?;
        let started_at = folder.started_at().map_err(failed(format!("looking at attempt {id}")))?;
        Ok(Observed::Running { started_at })
    }

    async fn changed(&self, id: AttemptId, at_most: Duration) {
        self.attempts.changed(id, at_most).await;
    }

    async fn logs(&self, id: AttemptId, from_offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        self.attempts.logs(id, from_offset, max_bytes).await
    }

    async fn stop(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.launching.give_up(id);
        self.attempts.stop(id)
    }

    async fn log_files(&self, id: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        self.attempts.log_files(id)
    }

    async fn outputs(&self, id: AttemptId) -> Result<Outputs, ExecutorError> {
        let ml = self.attempts.folder(id).ml();
        let outputs = Outputs { model: ml.join("model"), data: ml.join("output/data") };
        let (ready, fetched) = (outputs.clone(), ml.join("fetched"));
        let done = blocking(format!("making room for what attempt {id} wrote"), move || {
            if fetched.exists() {
                return Ok(true);
            }
            for folder in [&ready.model, &ready.data] {
                match std::fs::remove_dir_all(folder) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => std::fs::create_dir_all(folder)?,
                }
            }
            Ok(false)
        });
        if done.await? {
            return Ok(outputs);
        }
        self.download(id, &format!("{}/model", contract::ROOT), outputs.model.clone()).await?;
        self.download(id, &format!("{}/output/data", contract::ROOT), outputs.data.clone()).await?;
        std::fs::write(ml.join("fetched"), "").map_err(failed(format!("noting what attempt {id} wrote")))?;
        Ok(outputs)
    }

    async fn remove(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.reap();
        if !self.holds(id) {
            return Ok(());
        }
        self.launching.give_up(id);
        let folder = self.attempts.folder(id);
        if folder.exit().is_ok_and(|exit| exit.is_none()) {
            folder.request(KILL).map_err(failed(format!("ending attempt {id}")))?;
            self.wait_for_end(&folder).await?;
        }
        let docker = self.clients().await?.docker;
        let label = format!("tunesmith.attempt={id}");
        let doing = || infrastructure(format!("looking for what the daemon has of attempt {id}"));
        for (_, container) in self.containers(&docker, std::slice::from_ref(&label)).await.map_err(doing())? {
            remove_container(&docker, &container).await?;
        }
        // One host's has the name that its container had.
        let own = volumes::of_attempt(&docker, &self.container_name(id, None)).await.map_err(doing())?;
        for volume in own {
            let removed = daemon::there(docker.remove_volume(&volume, None::<RemoveVolumeOptions>).await);
            removed.map_err(infrastructure(format!("removing the volume {volume}")))?;
        }
        network::remove(&docker, &self.id, id).await?;
        self.wait_for_end(&folder).await?;
        if let Err(error) = self.sweep_checkpoints(id, &folder).await {
            tracing::warn!(attempt = %id, error = crate::telemetry::chain(&error), "its checkpoints were not tidied");
        }
        self.revived.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.strays().remove(&id);
        self.attempts.discard(id).await
    }
}

/// Removes a container, and waits until it is gone.
async fn remove_container(docker: &bollard::Docker, name: &str) -> Result<(), ExecutorError> {
    let doing = || infrastructure(format!("removing the container {name}"));
    let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    match daemon::there(docker.remove_container(name, Some(options)).await) {
        // Somebody else is at it.
        Err(error) if daemon::status(&error) == Some(409) => {}
        other => return other.map(drop).map_err(doing()),
    }
    for _ in 0..100 {
        let inspected = docker.inspect_container(name, None::<InspectContainerOptions>).await;
        if daemon::there(inspected).map_err(doing())?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(ExecutorError::Infrastructure {
        doing: format!("removing the container {name}"),
        source: ErrorKind::TimedOut.into(),
    })
}
