//! How the process executor is set up, and what it refuses to be set up as.
//!
//! Invariant: training programs run as root only where that was asked for in so many words.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::plan::RunAs;
use crate::executor::contract;
use crate::executor::images::{Images, InvalidCommand};

/// Settings of the process executor.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The server's data directory; attempts live in `attempts` beneath it, and jobs see nothing of it.
    pub data_dir: PathBuf,
    /// The `tunesmith` binary that supervises: `std::env::current_exe()` in the server.
    pub binary: PathBuf,
    /// What programs there are.
    pub images: Images,
    /// Where programs run, and from where relative programs are named: the configuration file's folder.
    pub working_dir: PathBuf,
    /// `PATH` of programs, and where programs without a `/` are looked for.
    pub search_path: String,
    /// Further files and folders that jobs must not see, such as the configuration file.
    pub masked: Vec<PathBuf>,
    /// Folders of the host that stand for S3 prefixes: jobs see what their channels show of them. One that holds what
    /// programs need stays in sight.
    pub mapped: Vec<PathBuf>,
    /// Where the server is root: programs may be, too.
    pub allow_root: bool,
    /// Where the server is root: who programs run as.
    pub run_as: Option<RunAs>,
    /// Give each attempt namespaces of its own, where the kernel lets us.
    pub isolate: bool,
    /// The log of one attempt is cut off here, bytes.
    pub max_log_bytes: u64,
    /// Disk that one attempt may take, bytes; none: what its request asks for, where it asks.
    pub max_disk_bytes: Option<u64>,
    /// Processes and threads of one attempt; none for no limit.
    pub max_processes: Option<u64>,
    /// Attempts that run at once: where the kernel counts them together, they may have so many times as many processes.
    pub max_running: usize,
    /// A log segment is closed once it is this long, bytes.
    pub segment_bytes: u64,
}

impl ProcessSettings {
    /// The defaults, with what has none.
    #[must_use]
    pub fn new(data_dir: PathBuf, binary: PathBuf, images: Images) -> Self {
        Self {
            data_dir,
            binary,
            images,
            working_dir: PathBuf::from("/"),
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            masked: Vec::new(),
            mapped: Vec::new(),
            allow_root: false,
            run_as: None,
            isolate: true,
            max_log_bytes: 1 << 30,
            max_disk_bytes: None,
            max_processes: None,
            max_running: 1,
            segment_bytes: 16 << 20,
        }
    }

    /// What is wrong with who programs would run as, where the server's own user is `uid`.
    pub fn check_user(&self, uid: u32) -> Result<(), OpenError> {
        match self.run_as {
            None if uid == 0 && !self.allow_root => Err(OpenError::RootRefused),
            Some(RunAs { uid: wanted, .. }) if uid != 0 && wanted != uid => Err(OpenError::CannotRunAs(wanted)),
            Some(RunAs { uid: 0, .. }) if !self.allow_root => Err(OpenError::RootRefused),
            _ => Ok(()),
        }
    }

    /// What can be told wrong before anything is done. `uid` is the server's own.
    pub(super) fn check(&self, uid: u32) -> Result<(), OpenError> {
        self.check_user(uid)?;
        for masked in self.masked.iter().chain([&self.data_dir]) {
            if Path::new(contract::ROOT).starts_with(masked) || masked.starts_with(contract::ROOT) {
                return Err(OpenError::MasksContract(masked.clone()));
            }
            if self.isolate && self.working_dir.starts_with(masked) {
                return Err(OpenError::Masked { what: self.working_dir.clone(), by: masked.clone() });
            }
        }
        Ok(())
    }
}

/// Sees that another user can pass through every folder down to `path`.
pub(super) fn check_passage(path: &Path, uid: u32) -> Result<(), OpenError> {
    let others_pass = |folder: &Path| folder.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    match path.ancestors().find(|folder| !others_pass(folder)) {
        Some(folder) => Err(OpenError::NoPassage { uid, folder: folder.to_owned() }),
        None => Ok(()),
    }
}

/// Whether attempts are kept apart from each other and from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// Each has its own `/opt/ml`, processes and mounts, and sees nothing of the server.
    Private,
    /// They run as plain processes that find their folders by the `SM_*` variables; to be said at start.
    None {
        /// What the kernel said, or that the settings asked for it.
        why: String,
    },
}

/// Why the process executor could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Root without consent.
    #[error(
        "training programs would run as root: name a user with `process.run_as`, start the server as an ordinary user, \
         or set `process.allow_root` to true"
    )]
    RootRefused,
    /// Another user, and no right to become it.
    #[error("`process.run_as` names user {0}, and only root can start programs as another user")]
    CannotRunAs(u32),
    /// Another user, and no right to end what it runs.
    #[error(
        "`process.run_as` names user {0}, whose programs this server could not end: it lacks the capability CAP_KILL"
    )]
    CannotEnd(u32),
    /// `/opt/ml` and what is hidden overlap.
    #[error("{} cannot be hidden from jobs: it overlaps with /opt/ml, where they find their data", .0.display())]
    MasksContract(PathBuf),
    /// Without namespaces another user must find its folder by the data directory's own path.
    #[error("user {uid} cannot reach its folders within {}: the kernel forbids namespaces, so let others pass \
             through there (chmod o+x), or do not set `run_as`", .folder.display())]
    NoPassage {
        /// The user of `run_as`.
        uid: u32,
        /// The folder that stops it.
        folder: PathBuf,
    },
    /// Something that programs need lies in what they must not see.
    #[error("jobs cannot reach {}: it is within {}, which is hidden from them", what.display(), by.display())]
    Masked {
        /// The working directory or a program.
        what: PathBuf,
        /// The hidden folder.
        by: PathBuf,
    },
    /// An image's command.
    #[error(transparent)]
    Command(#[from] InvalidCommand),
    /// The file system would not.
    #[error("the process executor could not be set up while {doing}")]
    Io {
        /// What, with the path.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
