//! The private view that a training program has of the machine: namespaces, mounts, user, capabilities.
//!
//! Invariant: nothing here changes the host beyond, as root, an empty `/opt/ml`; every mount ends with its namespace. The
//! process namespace makes the end certain: when its first process dies, the kernel kills all that it ever started.
//! Processes of the host, and with them the folders they have open, cannot be seen or signalled from inside. The supervisor,
//! which is that first process, and what streams are seen: a program has none of their capabilities, so their memory and
//! what they have open are closed to it; the kernel keeps signals from the first process, not from what streams.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{ForkResult, Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::fork;
use super::plan::{Bind, RunAs, Sandbox};
use crate::executor::contract;
use crate::executor::paths::open_without_links;

const NONE: Option<&str> = None;

/// A step of building the view that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing} failed")]
pub(super) struct SandboxError {
    doing: String,
    #[source]
    source: io::Error,
}

impl SandboxError {
    /// The step and its cause in one text, for the exit record.
    pub(super) fn text(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// Makes an error of a step, lazily named.
fn step<E: Into<io::Error>>(doing: impl FnOnce() -> String) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError { doing: doing(), source: source.into() }
}

/// The namespaces that a supervisor is born into: it is their first process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespaces {
    flags: CloneFlags,
    /// Who this is outside of the user namespace, where there is one.
    user: Option<(Uid, Gid)>,
}

impl Namespaces {
    /// None: plain processes. Else whether it takes a user namespace. For the process that is going to fork.
    pub(super) fn new(user_namespace: Option<bool>) -> Self {
        match user_namespace {
            None => Self { flags: CloneFlags::empty(), user: None },
            Some(false) => Self { flags: CloneFlags::CLONE_NEWPID, user: None },
            Some(true) => Self {
                flags: CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUSER,
                user: Some((Uid::effective(), Gid::effective())),
            },
        }
    }

    /// A copy of this process in them.
    pub(super) fn fork(&self) -> nix::Result<ForkResult> {
        fork::fork_into(self.flags)
    }

    /// Makes the copy who its original is. For the copy, before it does more than make files of its own.
    pub(super) fn settle(&self) -> Result<(), SandboxError> {
        let Some((uid, gid)) = self.user else { return Ok(()) };
        let map = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(step(|| format!("writing {file}")))
        };
        map("setgroups", "deny".into())?;
        map("uid_map", format!("{uid} {uid} 1"))?;
        map("gid_map", format!("{gid} {gid} 1"))
    }
}

/// Whether this process may end those of other users.
pub(super) fn may_end_others() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::KILL))
}

/// Builds the private view of the file system. For the process that becomes the program.
pub(super) fn enter(sandbox: &Sandbox) -> Result<(), SandboxError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(step(|| "making a mount namespace".into()))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).map_err(step(|| "making mounts private".into()))?;
    provide_root()?;
    for each in &sandbox.binds {
        bind(each)?;
    }
    // Where a container runtime hides parts of /proc the kernel refuses a fresh one; the old one shows processes that
    // cannot be touched all the same.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, NONE);
    // Last, as what is shown inside may come from beneath what is masked.
    sandbox.masked.iter().try_for_each(|path| mask(path))
}

/// Makes sure that `/opt/ml` can be mounted on.
fn provide_root() -> Result<(), SandboxError> {
    let root = Path::new(contract::ROOT);
    if root.is_dir() || std::fs::create_dir(root).is_ok() {
        return Ok(());
    }
    let parent = Path::new("/opt");
    let failed = |source| SandboxError { doing: "making /opt/ml in a private /opt".into(), source };
    let original = File::open(parent).map_err(failed)?;
    let entries = std::fs::read_dir(parent).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), parent, Some("tmpfs"), flags, Some("mode=755,size=64k")).map_err(|e| failed(e.into()))?;
    for entry in entries {
        let source = PathBuf::from(format!("/proc/self/fd/{}", original.as_raw_fd())).join(entry.file_name());
        let target = parent.join(entry.file_name());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_symlink() {
            std::fs::read_link(&source).and_then(|to| std::os::unix::fs::symlink(to, &target)).map_err(failed)?;
            continue;
        }
        if kind.is_dir() { std::fs::create_dir(&target) } else { File::create(&target).map(drop) }.map_err(failed)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&source), &target, NONE, flags, NONE).map_err(|e| failed(e.into()))?;
    }
    std::fs::create_dir(root).map_err(failed)
}

fn bind(bind: &Bind) -> Result<(), SandboxError> {
    let (source, target) = (bind.source.as_path(), bind.target.as_path());
    let showing = || format!("showing {} as {}", source.display(), target.display());
    let failed = || step::<nix::Error>(showing);
    let handle = open_without_links(source).map_err(step(showing))?;
    let opened = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let mount_source = |flags| mount(Some(&opened), target, NONE, flags, NONE);
    match mount_source(MsFlags::MS_BIND) {
        // In a user namespace a folder with mounts beneath it can only be shown with them.
        Err(nix::Error::EINVAL) => mount_source(MsFlags::MS_BIND | MsFlags::MS_REC),
        other => other,
    }
    .map_err(failed())?;
    if bind.read_only {
        // Flags of the source's own mount must be repeated: in a user namespace they are locked.
        let kept = statvfs(target).map_err(failed())?.flags();
        let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        flags |= MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for (was, flag) in [
            (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
            (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
            (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
            (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        ] {
            flags.set(flag, kept.contains(was));
        }
        mount(NONE, target, NONE, flags, NONE).map_err(failed())?;
    }
    Ok(())
}

fn mask(path: &Path) -> Result<(), SandboxError> {
    let Ok(kind) = std::fs::metadata(path) else { return Ok(()) };
    let masked = if kind.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=000,size=4k,nr_inodes=2"))
    } else {
        mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE)
    };
    masked.map_err(step(|| format!("masking {}", path.display())))
}

/// Gives up everything that a training program must not have. For the process that becomes the program.
pub(super) fn drop_privileges(run_as: Option<RunAs>, max_processes: Option<u64>) -> Result<(), SandboxError> {
    let core = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    core.map_err(step(|| "forbidding core dumps".into()))?;
    // Which capabilities may be dropped needs one itself; as an ordinary user there are none to drop.
    for capability in (0..63).filter_map(|bit| CapabilitySet::from_bits(1 << bit)) {
        if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    if let Some(RunAs { uid, gid }) = run_as {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let become_user = || {
            setgroups(&[])?;
            setresgid(group, group, group)?;
            setresuid(user, user, user)
        };
        become_user().map_err(step(|| format!("becoming user {uid}, group {gid}")))?;
    }
    if let Some(wanted) = max_processes {
        // As the user: set before, a user that is at its limit could not even become this program.
        let limit = getrlimit(Resource::RLIMIT_NPROC).map(|(_, most)| wanted.min(most));
        let limited = limit.and_then(|limit| setrlimit(Resource::RLIMIT_NPROC, limit, limit));
        limited.map_err(step(|| format!("limiting processes to {wanted}")))?;
    }
    let none = CapabilitySet::empty();
    let no_sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let drop_sets = || {
        rustix::thread::clear_ambient_capability_set()?;
        rustix::thread::set_capabilities(None, no_sets)?;
        rustix::thread::set_no_new_privs(true)
    };
    drop_sets().map_err(step(|| "dropping capabilities".into()))
}
