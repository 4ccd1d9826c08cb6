//! Attempts as processes of this machine, each under a supervisor that outlives the server.
//!
//! Invariant: all state is in the attempts' folders (see `folder`); this struct can be dropped and made again at any
//! moment. Nothing here decides what should run.

mod disk;
mod fork;
mod launch;
mod nursery;
mod plan;
mod processes;
mod program;
mod sandbox;
mod settings;
mod strays;
mod streams;
pub mod supervisor;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::launch::{Common, Launch};
use self::nursery::Nursery;
pub use self::plan::RunAs;
use self::processes::Circumstances;
pub use self::processes::ProcessLimit;
pub use self::settings::{Isolation, OpenError, ProcessSettings};
use super::contract::Machine;
use super::folder::{Attempts, Folder, KILL, blocking, failed, found, own_id};
use super::images::{Images, Program, resolve_command};
use super::{AttemptSpec, Executor, ExecutorError, LogChunk, LogFile, Observed, Outputs};
use crate::domain::names::AttemptId;

/// How long a supervisor may take to end its attempt without grace, before it is ended itself.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Runs attempts as processes.
#[derive(Debug)]
pub struct ProcessExecutor {
    id: String,
    attempts: Attempts,
    images: Images,
    commands: HashMap<String, Vec<String>>,
    common: Arc<Common>,
    isolation: Isolation,
}

impl ProcessExecutor {
    /// Opens the executor of a data directory, which is made where it is missing. To be called within a tokio runtime;
    /// blocks for some milliseconds.
    pub fn open(mut settings: ProcessSettings) -> Result<Self, OpenError> {
        let doing = |doing: &str, path: &Path| {
            let doing = format!("{doing} {}", path.display());
            move |source| OpenError::Io { doing, source }
        };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.data_dir);
        made.map_err(doing("making", &settings.data_dir))?;
        settings.data_dir = settings.data_dir.canonicalize().map_err(doing("finding", &settings.data_dir))?;
        settings.working_dir = settings.working_dir.canonicalize().map_err(doing("finding", &settings.working_dir))?;
        for masked in &mut settings.masked {
            // A link would be followed in mounting; what is not there needs no mask.
            *masked = masked.canonicalize().unwrap_or_else(|_| masked.clone());
        }
        let own_uid = nix::unistd::Uid::effective().as_raw();
        settings.check(own_uid)?;
        if let Some(RunAs { uid, .. }) = settings.run_as.filter(|user| user.uid != own_uid)
            && !sandbox::may_end_others()
        {
            return Err(OpenError::CannotEnd(uid));
        }
        let commands = resolve_commands(&settings)?;
        let mapped = maskable(&settings, &commands);
        settings.masked.extend(mapped);

        let attempts = Attempts::open(&settings.data_dir).map_err(doing("making folders in", &settings.data_dir))?;
        let (isolation, sandbox) = probe(&settings);
        // A user of its own finds its folder along a path that others may pass, where it has no view of its own.
        let stranger = settings.run_as.filter(|user| sandbox.is_none() && user.uid != 0);
        if let Some(RunAs { uid, .. }) = stranger {
            settings::check_passage(&settings.data_dir, uid)?;
        }
        let access = std::fs::Permissions::from_mode(if stranger.is_some() { 0o711 } else { 0o700 });
        std::fs::set_permissions(attempts.path(), access).map_err(doing("closing", attempts.path()))?;
        let id = own_id(&settings.data_dir).map_err(doing("reading executor-id in", &settings.data_dir))?;

        let process_limit = ProcessLimit::of(Circumstances {
            wanted: settings.max_processes,
            max_running: settings.max_running as u64,
            sandbox,
            run_as: settings.run_as,
            root: nix::unistd::Uid::effective().is_root(),
            kernel: &std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default(),
        });
        let masked = std::iter::once(settings.data_dir).chain(settings.masked).collect();
        let common = Common {
            nursery: Nursery::new(settings.binary, sandbox),
            working_dir: settings.working_dir,
            search_path: settings.search_path,
            masked,
            run_as: settings.run_as,
            sandbox: sandbox.is_some(),
            max_log_bytes: settings.max_log_bytes,
            max_disk_bytes: settings.max_disk_bytes,
            process_limit,
            segment_bytes: settings.segment_bytes,
            machine: machine(),
        };
        Ok(Self {
            id: format!("process:{id}"),
            attempts,
            images: settings.images,
            commands,
            common: Arc::new(common),
            isolation,
        })
    }

    /// Whether attempts are kept apart; what to say at start where they are not.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// How many processes attempts may have; what to say at start where none is.
    #[must_use]
    pub fn process_limit(&self) -> &ProcessLimit {
        &self.common.process_limit
    }

    fn folder(&self, id: AttemptId) -> Folder {
        self.attempts.folder(id)
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn id(&self) -> &str {
        &self.id
    }

    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        let folder = self.folder(spec.id);
        let image = self.images.find(&spec.image);
        let command = image.and_then(|image| self.commands.get(&image.name)).ok_or_else(|| {
            let registered: Vec<&str> = self.images.names().collect();
            let image = &spec.image;
            ExecutorError::Client(format!("the image {image} is not registered here; these are: {registered:?}"))
        })?;
        let launch = Launch::new(&self.common, spec, command, &folder)?;
        let common = self.common.clone();
        blocking(format!("starting attempt {}", spec.id), move || launch.start(&folder, &common.nursery)).await
    }

    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        self.attempts.list().await
    }

    async fn observe(&self, id: AttemptId) -> Result<Observed, ExecutorError> {
        let folder = self.folder(id);
        let observed = folder.observe().map_err(failed(format!("looking at attempt {id}")))?;
        if observed == Observed::Lost {
            let ended = move || strays::end_attempt(id, folder.path());
            blocking(format!("ending what is left of attempt {id}"), ended).await?;
        }
        Ok(observed)
    }

    async fn changed(&self, id: AttemptId, at_most: Duration) {
        self.attempts.changed(id, at_most).await;
    }

    async fn logs(&self, id: AttemptId, from_offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        self.attempts.logs(id, from_offset, max_bytes).await
    }

    async fn stop(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.attempts.stop(id)
    }

    async fn log_files(&self, id: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        self.attempts.log_files(id)
    }

    async fn outputs(&self, id: AttemptId) -> Result<Outputs, ExecutorError> {
        let ml = self.folder(id).ml();
        blocking(format!("finding what attempt {id} wrote"), move || {
            // The job owned these and may have put links in their place, to files that are not its own.
            for name in ["", "output", "model", "output/data"] {
                plain_folder(&ml.join(name))?;
            }
            Ok(Outputs { model: ml.join("model"), data: ml.join("output/data") })
        })
        .await
    }

    async fn remove(&self, id: AttemptId) -> Result<(), ExecutorError> {
        let folder = self.folder(id);
        let doing = || format!("ending attempt {id}");
        if folder.exit().map_err(failed(doing()))?.is_none() {
            blocking(doing(), move || end(id, &folder)).await?;
        }
        self.attempts.discard(id).await
    }
}

/// Ends an attempt that runs, without grace.
fn end(id: AttemptId, folder: &Folder) -> io::Result<()> {
    folder.request(KILL)?;
    let until = Instant::now() + END_PATIENCE;
    while folder.is_locked()? && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    if folder.exit()?.is_none() && folder.was_started()? {
        strays::end_attempt(id, folder.path())?;
    }
    Ok(())
}

/// Makes sure that a path is a folder, no link to one, and open to its owner.
fn plain_folder(path: &Path) -> io::Result<()> {
    if let Some(meta) = found(path.symlink_metadata())?.filter(std::fs::Metadata::is_dir) {
        let mode = meta.permissions().mode();
        let open = std::fs::Permissions::from_mode(mode & 0o7777 | 0o700);
        return if mode & 0o700 == 0o700 { Ok(()) } else { std::fs::set_permissions(path, open) };
    }
    found(std::fs::remove_file(path))?;
    std::fs::create_dir(path)
}

/// Absolute commands by image name; none of them where jobs cannot reach it.
fn resolve_commands(settings: &ProcessSettings) -> Result<HashMap<String, Vec<String>>, OpenError> {
    let mut commands = HashMap::new();
    for image in settings.images.iter() {
        let Program::Command(words) = &image.program else { continue };
        let command = resolve_command(&image.name, words, &settings.working_dir, &settings.search_path)?;
        let program = PathBuf::from(&command[0]);
        let hidden = settings.masked.iter().chain([&settings.data_dir]).find(|masked| program.starts_with(masked));
        if let (Some(by), true) = (hidden, settings.isolate) {
            return Err(OpenError::Masked { what: program, by: by.clone() });
        }
        commands.insert(image.name.clone(), command);
    }
    Ok(commands)
}

/// The mapped folders that can be hidden. Others stay in sight, and the log says so: programs would not start without.
fn maskable(settings: &ProcessSettings, commands: &HashMap<String, Vec<String>>) -> Vec<PathBuf> {
    let words = commands.values().flatten().map(|word| settings.working_dir.join(word));
    let real = |path: PathBuf| [path.canonicalize().ok(), Some(path)];
    let mut needed: Vec<PathBuf> = words.flat_map(real).flatten().collect();
    needed.extend([settings.working_dir.clone(), super::contract::ROOT.into()]);
    let mapped = settings.mapped.iter().filter_map(|folder| folder.canonicalize().ok());
    mapped
        .filter(|folder| match needed.iter().find(|path| path.starts_with(folder)) {
            None => !folder.starts_with(super::contract::ROOT),
            Some(path) => {
                let (folder, path) = (folder.display(), path.display());
                tracing::warn!("jobs see all of {folder}, which the configuration maps, as they need {path}");
                false
            }
        })
        .collect()
}

/// What the kernel lets us do: tried by the supervisor's binary, as this process has many threads.
fn probe(settings: &ProcessSettings) -> (Isolation, Option<bool>) {
    if !settings.isolate {
        return (Isolation::None { why: "the settings ask for it".into() }, None);
    }
    let user_namespace = !nix::unistd::Uid::effective().is_root();
    let mode = if user_namespace { "--probe=user" } else { "--probe=root" };
    let tried = Command::new(&settings.binary).args(["supervise", mode]).env_clear().stdin(Stdio::null()).output();
    let why = match tried {
        Ok(output) if output.status.success() => return (Isolation::Private, Some(user_namespace)),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("{} could not be run: {error}", settings.binary.display()),
    };
    (Isolation::None { why }, None)
}

fn machine() -> Machine {
    let gpus = (0..64).take_while(|n| Path::new(&format!("/dev/nvidia{n}")).exists()).count();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine { host: 0, cpus, gpus, network_interface: "lo" }
}
