//! The folder of an attempt: what stands in it and what it says.
//!
//! Invariant: the folder alone tells the attempt's state, to whichever server asks. A held lock is a living supervisor;
//! an exit record is the end; `started` without either is a lost attempt, as is a folder made ready before the machine was
//! last started; none of these was never started. No process id decides anything.

mod attempts;
pub(in crate::executor) mod log_writer;
pub(in crate::executor) mod removal;
mod watch;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

pub(in crate::executor) use self::attempts::{Attempts, blocking, failed, own_id};
use crate::domain::outcome::Exit;
use crate::domain::time::Timestamp;
use crate::executor::{LogChunk, LogFile, Observed, log_format};

/// Log segments are `log-<first offset>`.
const LOG_PREFIX: &str = "log-";
/// The exit record's name once it is whole.
pub(in crate::executor) const EXIT: &str = "exit.json";
/// Larger than any record: a line piece of 1 MiB and its header.
const MAX_RECORD: usize = (1 << 20) + log_format::MAX_HEADER + 1;
/// What a stop request writes into the control pipe.
pub(in crate::executor) const STOP: u8 = b's';
/// What a removal writes: no grace.
pub(in crate::executor) const KILL: u8 = b'k';

/// An attempt's folder, which may not exist.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Folder(PathBuf);

impl Folder {
    pub(in crate::executor) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(in crate::executor) fn path(&self) -> &Path {
        &self.0
    }

    /// What the supervisor reads first.
    pub(in crate::executor) fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// What the program sees as `/opt/ml`.
    pub(in crate::executor) fn ml(&self) -> PathBuf {
        self.0.join("ml")
    }

    /// A FIFO that the supervisor reads requests from.
    pub(in crate::executor) fn control(&self) -> PathBuf {
        self.0.join("control")
    }

    /// Exists once a stop was asked for, so that a request made before the supervisor listens is not lost.
    pub(in crate::executor) fn stop_marker(&self) -> PathBuf {
        self.0.join("stop")
    }

    /// Created, exclusively, before the program is: at most one start.
    pub(in crate::executor) fn started(&self) -> PathBuf {
        self.0.join("started")
    }

    /// Says under which boot of the machine the attempt is started. To be called under the lock, before it is.
    pub(in crate::executor) fn mark_boot(&self) -> io::Result<()> {
        // A link's text is there with its name, or neither is.
        match std::os::unix::fs::symlink(boot_id(), self.boot()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the attempt was started, as far as anybody can know: a power failure may take the marks of a start and
    /// leave the folder, so one that was made ready under another boot counts as started.
    pub(in crate::executor) fn was_started(&self) -> io::Result<bool> {
        if self.started().exists() {
            return Ok(true);
        }
        Ok(found(std::fs::read_link(self.boot()))?.is_some_and(|boot| boot != Path::new(boot_id())))
    }

    fn boot(&self) -> PathBuf {
        self.0.join("boot")
    }

    pub(in crate::executor) fn log(&self, first_offset: u64) -> PathBuf {
        self.0.join(format!("{LOG_PREFIX}{first_offset:020}"))
    }

    /// Whether a name in this folder is one whose change a reader waits for.
    pub(in crate::executor) fn is_of_interest(name: &std::ffi::OsStr) -> bool {
        name == EXIT || name.to_str().is_some_and(|name| name.starts_with(LOG_PREFIX))
    }

    /// Opens the lock file and takes the lock for as long as the file, or a process that inherits it, is open. None
    /// where somebody holds it.
    pub(in crate::executor) fn try_lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.0.join("lock"))?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => Ok(Some(file)),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `file` is this folder's lock file: what a supervisor inherits.
    pub(in crate::executor) fn is_lock(&self, file: &File) -> io::Result<bool> {
        let (ours, given) = (std::fs::metadata(self.0.join("lock"))?, file.metadata()?);
        Ok((ours.dev(), ours.ino()) == (given.dev(), given.ino()))
    }

    /// Whether anybody holds the lock; asking takes nothing.
    pub(in crate::executor) fn is_locked(&self) -> io::Result<bool> {
        // A lock asked about as a writer's needs no write access to the file.
        let Some(file) = found(File::open(self.0.join("lock")))? else { return Ok(false) };
        let mut lock = whole_file();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
    }

    /// What the folder says of the attempt. `Lost` leaves it to the caller to end what still runs.
    pub(in crate::executor) fn observe(&self) -> io::Result<Observed> {
        if let Some(exit) = self.exit()? {
            return Ok(Observed::Exited(exit));
        }
        if self.is_locked()? {
            return Ok(Observed::Running { started_at: self.started_at()? });
        }
        // The supervisor may have ended between the two looks.
        if let Some(exit) = self.exit()? {
            return Ok(Observed::Exited(exit));
        }
        Ok(if self.was_started()? { Observed::Lost } else { Observed::Absent })
    }

    /// The exit record, where it is written.
    pub(in crate::executor) fn exit(&self) -> io::Result<Option<Exit>> {
        let Some(bytes) = found(std::fs::read(self.0.join(EXIT)))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
    }

    /// Writes the exit record: whole or not at all. A power failure right after it may take its name, and the attempt is
    /// lost then.
    pub(in crate::executor) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let temporary = self.0.join("exit.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(exit)?)?;
        file.sync_data()?;
        std::fs::rename(temporary, self.0.join(EXIT))
    }

    /// Claims the one start of this attempt. False where it was started before.
    pub(in crate::executor) fn claim_start(&self, at: Timestamp) -> io::Result<bool> {
        match OpenOptions::new().write(true).create_new(true).open(self.started()) {
            Ok(mut file) => file.write_all(at.0.to_string().as_bytes()).map(|()| true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// When it was started; none before that, and for the moment between the claim and its time.
    pub(in crate::executor) fn started_at(&self) -> io::Result<Option<Timestamp>> {
        let text = found(std::fs::read_to_string(self.started()))?;
        Ok(text.and_then(|text| text.parse().ok()).map(Timestamp))
    }

    /// Leaves the stop marker and tells the supervisor, where one listens.
    pub(in crate::executor) fn request(&self, what: u8) -> io::Result<()> {
        if found(std::fs::metadata(&self.0))?.is_none() {
            return Ok(());
        }
        found(File::create(self.stop_marker()))?;
        let no_wait = OFlag::O_NONBLOCK.bits();
        match OpenOptions::new().write(true).custom_flags(no_wait).open(self.control()) {
            Ok(mut pipe) => match pipe.write_all(&[what]) {
                // A full pipe is full of requests; a closed one has no supervisor left.
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe) => Err(error),
                _ => Ok(()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the log goes on after an offset, with half a record or more.
    pub(in crate::executor) fn has_log_after(&self, offset: u64) -> io::Result<bool> {
        let mut segment = 0;
        while let Some(meta) = found(std::fs::metadata(self.log(segment)))? {
            let end = segment + meta.len();
            if offset < end {
                return Ok(true);
            }
            if end == segment {
                break;
            }
            segment = end;
        }
        Ok(false)
    }

    /// Whole records from `from_offset` on, about `max_bytes` of them.
    pub(in crate::executor) fn read_log(&self, from_offset: u64, max_bytes: usize) -> io::Result<LogChunk> {
        let mut chunk = LogChunk { records: Vec::new(), next_offset: from_offset };
        let (mut segment, mut wanted) = (0, max_bytes.max(1));
        while let Some(file) = found(File::open(self.log(segment)))? {
            // A segment ends where the next begins, so their names need no listing.
            let end = segment + file.metadata()?.len();
            if chunk.next_offset < end {
                let read = read_records(&file, segment, chunk.next_offset, wanted)?;
                wanted = wanted.saturating_sub(usize::try_from(read.1 - chunk.next_offset).unwrap_or(usize::MAX));
                chunk.records.extend(read.0);
                chunk.next_offset = read.1;
            }
            if wanted == 0 || end == segment || chunk.next_offset < end {
                break;
            }
            segment = end;
        }
        Ok(chunk)
    }

    /// The log's segments, in order.
    pub(in crate::executor) fn log_files(&self) -> io::Result<Vec<LogFile>> {
        let Some(entries) = found(std::fs::read_dir(&self.0))? else { return Ok(Vec::new()) };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let offset =
                name.to_str().and_then(|name| name.strip_prefix(LOG_PREFIX)).and_then(|text| text.parse().ok());
            let Some(first_offset) = offset else { continue };
            let path = entry.path();
            let mut head = [0; log_format::MAX_HEADER];
            let mut file = File::open(&path)?;
            let length = file.read(&mut head)?;
            // An empty segment was begun just before its supervisor was lost.
            let Some(first_time) = log_format::first_time(&head[..length]) else { continue };
            files.push(LogFile { path, first_offset, first_time, bytes: file.metadata()?.len() });
        }
        files.sort_by_key(|file| file.first_offset);
        Ok(files)
    }
}

/// Records of one segment from `from` on, and the offset after them.
fn read_records(
    file: &File,
    segment: u64,
    from: u64,
    wanted: usize,
) -> io::Result<(Vec<crate::executor::LogRecord>, u64)> {
    let mut size = wanted;
    loop {
        let mut bytes = vec![0; size];
        let mut length = 0;
        while length < size {
            match file.read_at(&mut bytes[length..], from - segment + length as u64)? {
                0 => break,
                more => length += more,
            }
        }
        let (records, next) = log_format::read(&bytes[..length], from);
        // A record longer than was asked for must not hold the reader up for ever.
        if next > from || length < size || size >= MAX_RECORD {
            return Ok((records, next));
        }
        size = MAX_RECORD;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the C library declares these constants wider than their fields")]
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// What tells this boot of the machine from every other.
fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if id.trim().is_empty() { "unknown".to_owned() } else { id.trim().to_owned() }
    })
}

/// `None` instead of a "not found".
pub(in crate::executor) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
