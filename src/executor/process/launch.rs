//! Starting an attempt: its plan, its folder, its supervisor.
//!
//! Invariant: whoever starts a supervisor holds the folder's lock until the supervisor has it too, so there is no moment
//! at which an attempt that was started looks as if it were not, nor one at which two are. A server that dies on the way
//! leaves a folder that can be started again.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat, mkfifo};

use super::disk::DiskLimit;
use super::nursery::Nursery;
use super::plan::{Bind, Plan, RunAs, Sandbox};
use super::processes::ProcessLimit;
use super::strays;
use crate::domain::pipe::Share;
use crate::executor::contract::{self, Code, Machine};
use crate::executor::disk_bound::DiskBound;
use crate::executor::folder::Folder;
use crate::executor::paths::open_without_links;
use crate::executor::pipe::Stream;
use crate::executor::{AttemptSpec, ChannelSpec, ExecutorError};

/// Folders of `/opt/ml` that the program may write to; `""` is `/opt/ml` itself.
const WRITABLE: [&str; 6] = ["", "model", "output", "output/data", "checkpoints", "tmp"];

/// What is the same for every attempt.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) nursery: Nursery,
    pub(super) working_dir: PathBuf,
    pub(super) search_path: String,
    pub(super) masked: Vec<PathBuf>,
    pub(super) run_as: Option<RunAs>,
    /// Whether they have a private view of the file system.
    pub(super) sandbox: bool,
    pub(super) max_log_bytes: u64,
    pub(super) max_disk_bytes: Option<u64>,
    pub(super) process_limit: ProcessLimit,
    pub(super) segment_bytes: u64,
    pub(super) machine: Machine,
}

/// A plan with what has to be put into the folder for it.
#[derive(Debug)]
pub(super) struct Launch {
    plan: Plan,
    config: [(&'static str, String); 3],
    channels: Vec<(String, PathBuf)>,
    checkpoints: Option<(PathBuf, PathBuf)>,
}

impl Launch {
    /// Decides everything; touches nothing.
    pub(super) fn new(
        common: &Common,
        spec: &AttemptSpec,
        command: &[String],
        folder: &Folder,
    ) -> Result<Self, ExecutorError> {
        spec.check_channels()?;
        if spec.hosts > 1 {
            return Err(ExecutorError::Client("only containers run on several hosts: use InstanceCount 1".to_owned()));
        }
        let checkpoints = match &spec.checkpoints {
            None => None,
            Some(checkpoints) => Some((checkpoints.within_root()?, checkpoints.source.clone())),
        };
        let own_root = folder.ml().to_string_lossy().into_owned();
        let root = if common.sandbox { contract::ROOT } else { &own_root };
        let mut environment = std::collections::BTreeMap::from(
            [("PATH", common.search_path.as_str()), ("HOME", root), ("LANG", "C.UTF-8"), ("PYTHONUNBUFFERED", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        environment.insert("TMPDIR".into(), format!("{root}/tmp"));
        let given = contract::environment(spec, &common.machine, root, Code::OfTheOwner);
        environment.extend(given.map_err(ExecutorError::Client)?);
        environment.insert(strays::MARK.into(), spec.id.to_string());
        let mut command = command.to_vec();
        command.push("train".into());
        let folders = spec.channels.iter().filter(|channel| channel.pipe.is_none());
        let channels: Vec<_> = folders.map(|c| (c.name.clone(), c.source.clone())).collect();
        let sandbox = common
            .sandbox
            .then(|| Sandbox { binds: binds(folder, &channels, checkpoints.as_ref()), masked: common.masked.clone() });
        let streams: Vec<Stream> = spec.channels.iter().filter_map(stream).collect();
        let plan = Plan {
            attempt: spec.id,
            command,
            environment,
            working_dir: common.working_dir.clone(),
            run_as: common.run_as,
            sandbox,
            max_runtime_ms: spec.max_runtime_ms,
            stop_grace_ms: spec.stop_grace_ms,
            max_log_bytes: common.max_log_bytes,
            segment_bytes: common.segment_bytes,
            disk: disk_limit(common, spec, folder),
            max_processes: common.process_limit.counted(streams.len() as u64),
            streams,
        };
        Ok(Self { plan, config: contract::config_files(spec, &common.machine), channels, checkpoints })
    }

    /// Makes the folder and starts the supervisor; nothing where the attempt was started before.
    pub(super) fn start(&self, folder: &Folder, nursery: &Nursery) -> io::Result<()> {
        make_folder(folder.path(), 0o700 | self.passage())?;
        let Some(lock) = folder.try_lock()? else { return Ok(()) };
        if folder.was_started()? {
            return Ok(());
        }
        folder.mark_boot()?;
        self.fill(folder)?;
        nursery.start(folder.path(), &lock)
    }

    /// Without a view of its own, another user finds its folder along the way that others may pass.
    fn passage(&self) -> u32 {
        if self.plan.sandbox.is_none() && self.plan.run_as.is_some() { 0o011 } else { 0 }
    }

    fn fill(&self, folder: &Folder) -> io::Result<()> {
        let ml = folder.ml();
        for name in ["", "input", "input/config", "input/data"].iter().chain(&WRITABLE[1..]) {
            make_folder(&ml.join(name), 0o755)?;
        }
        for (name, text) in &self.config {
            std::fs::write(ml.join("input/config").join(name), text)?;
        }
        for (name, source) in &self.channels {
            self.provide(&ml.join("input/data").join(name), source)?;
        }
        if let Some((within, source)) = &self.checkpoints {
            self.provide(&ml.join(within), source)?;
        }
        if let Some(RunAs { uid, gid }) = self.plan.run_as {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            for name in WRITABLE {
                fchownat(AT_FDCWD, &ml.join(name), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            if let Some((_, source)) = &self.checkpoints {
                // Jobs write beneath such folders: by its handle, it cannot become a link on the way.
                fchownat(open_without_links(source)?, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
            }
        }
        match mkfifo(&folder.control(), Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        std::fs::write(folder.plan(), serde_json::to_vec(&self.plan)?)
    }

    /// Something to mount on; without a view of its own, a link.
    fn provide(&self, target: &Path, source: &Path) -> io::Result<()> {
        let is_file = source.metadata()?.is_file();
        if self.plan.sandbox.is_some() {
            make_folders(target)?;
            return if is_file { File::create(target.join(file_name(source))).map(drop) } else { Ok(()) };
        }
        let link = if is_file {
            make_folders(target)?;
            target.join(file_name(source))
        } else {
            target.parent().map_or(Ok(()), make_folders)?;
            // The folder that stands there where none is asked for.
            let _ = std::fs::remove_dir(target);
            target.to_owned()
        };
        match std::os::unix::fs::symlink(source, link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

/// The smaller of what the request asks for and what the server allows, over the attempt's folder (with its log) and its
/// checkpoints.
fn disk_limit(common: &Common, spec: &AttemptSpec, folder: &Folder) -> Option<DiskLimit> {
    let bound = DiskBound::of(spec.volume_bytes, common.max_disk_bytes, "process.max_disk_gib")?;
    let checkpoints = spec.checkpoints.iter().map(|checkpoints| checkpoints.source.clone());
    let folders = std::iter::once(folder.path().to_owned()).chain(checkpoints).collect();
    Some(DiskLimit { folders, bound })
}

/// A channel as it is streamed to the one host that a process has.
fn stream(channel: &ChannelSpec) -> Option<Stream> {
    let (name, source) = (channel.name.clone(), channel.source.clone());
    Some(Stream { name, source, spec: channel.pipe.clone()?, share: Share { host: 0, hosts: 1 } })
}

fn binds(folder: &Folder, channels: &[(String, PathBuf)], checkpoints: Option<&(PathBuf, PathBuf)>) -> Vec<Bind> {
    let root = Path::new(contract::ROOT);
    let mut binds = vec![Bind { source: folder.ml(), target: root.to_owned(), read_only: false }];
    for (name, source) in channels {
        let mut target = root.join("input/data").join(name);
        if source.is_file() {
            target.push(file_name(source));
        }
        binds.push(Bind { source: source.clone(), target, read_only: true });
    }
    if let Some((within, source)) = checkpoints {
        binds.push(Bind { source: source.clone(), target: root.join(within), read_only: false });
    }
    binds
}

fn file_name(source: &Path) -> &Path {
    source.file_name().map_or(Path::new("data"), Path::new)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn make_folders(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}
