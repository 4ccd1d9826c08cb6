//! Channels as named pipes: one for each epoch, `<channel>_0` and on.
//!
//! Invariant: a pipe is there before anybody may look for it: the first before the program starts, each further one as
//! soon as the one before has a reader. Data that cannot be streamed is told and never looks like an end: its pipe
//! stays open for as long as the process lives. All of it ends with that process, whatever its readers do, and who
//! started it ends it. What is streamed was staged before.
//!
//! The program may be at the pipes' folder too (what it breaks there is its fault): a pipe is made and opened by a
//! handle on that folder, no link there is followed, and nothing but a pipe is written to.

mod epoch;
mod record_io;
mod source;
pub(super) mod told;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};
use serde::{Deserialize, Serialize};

use self::source::Source;
use crate::domain::pipe::{Share, epoch_order};
use crate::executor::PipeSpec;

/// How much a pipe holds, where the kernel allows it, bytes.
const PIPE_BYTES: i32 = 1 << 20;

/// One channel to stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stream {
    /// The channel.
    pub(super) name: String,
    /// Its data.
    pub(super) source: PathBuf,
    /// How.
    pub(super) spec: PipeSpec,
    /// For which host.
    pub(super) share: Share,
}

/// Who can write to the folder of the pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    /// Who makes the pipes, alone.
    #[cfg(feature = "docker")]
    Alone,
    /// The program, too.
    ProgramToo,
}

/// Why a channel cannot be streamed; the texts are for the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The data is not what the request says: the job's fault.
    #[error("the channel {channel} cannot be streamed: {why}")]
    Data {
        /// Which.
        channel: String,
        /// What is wrong with which object.
        why: String,
    },
    /// The program has made a pipe impossible: the job's fault.
    #[error(
        "the channel {channel} cannot be streamed: the training program leaves no place for the pipe {pipe} ({source}): it \
         is to leave input/data as it is"
    )]
    Displaced {
        /// Which.
        channel: String,
        /// Which of its pipes.
        pipe: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine failed.
    #[error("the channel {channel} cannot be streamed: {source}")]
    Machine {
        /// Which.
        channel: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Stream {
    /// Makes the first pipe in a folder.
    pub(super) fn prepare(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        make(folder, &self.pipe(0))
    }

    /// Streams epoch after epoch, for as long as there are readers; returns only what made that impossible, once
    /// `report` was told of it.
    fn run(&self, folder: BorrowedFd<'_>, writers: Writers, report: impl Fn(&StreamError)) {
        let machine = |source| StreamError::Machine { channel: self.name.clone(), source };
        let mut source = match Source::open(&self.source, self.spec.list.as_deref(), &self.spec.buckets) {
            Ok(source) => source,
            Err(error) => return report(&machine(error)),
        };
        for epoch in 0.. {
            let pipe = match self.open(folder, epoch) {
                Ok(pipe) => pipe,
                // The program has removed the whole folder.
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => return report(&self.unmade(epoch, writers, error)),
            };
            let next = match make(folder, &self.pipe(epoch + 1)) {
                // The same: this is the last epoch.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                made => made.map_err(|error| self.unmade(epoch + 1, writers, error)),
            };
            let order = epoch_order(source.len(), self.spec.shuffle_seed, epoch, self.share);
            let written = next.and_then(|()| epoch::write(self, &mut source, &order, &pipe));
            // Whoever comes to it now would wait for ever.
            let _ = unlinkat(folder, self.pipe(epoch).as_str(), UnlinkatFlags::NoRemoveDir);
            match written {
                Ok(()) => {}
                // The reader has had enough.
                Err(StreamError::Machine { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => {
                    report(&error);
                    // To be ended from outside: an end of the data is not what the reader must see.
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
    }

    /// What it means that a pipe could not be made or opened.
    fn unmade(&self, epoch: u64, writers: Writers, source: io::Error) -> StreamError {
        let channel = self.name.clone();
        let of_program = [libc::EISDIR, libc::ENOTDIR, libc::EACCES, libc::EPERM];
        if writers == Writers::ProgramToo && source.raw_os_error().is_some_and(|error| of_program.contains(&error)) {
            return StreamError::Displaced { channel, pipe: self.pipe(epoch), source };
        }
        StreamError::Machine { channel, source }
    }

    fn pipe(&self, epoch: u64) -> String {
        format!("{}_{epoch}", self.name)
    }

    /// Waits for a reader of an epoch's pipe.
    fn open(&self, folder: BorrowedFd<'_>, epoch: u64) -> io::Result<File> {
        let name = self.pipe(epoch);
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        loop {
            match openat(folder, name.as_str(), flags, Mode::empty()) {
                Ok(pipe) if fstat(&pipe)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits() => {
                    // Less is slower, and that is all.
                    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
                    return Ok(pipe.into());
                }
                Err(nix::Error::EINTR) => {}
                // The program has put something else there, or nothing.
                Ok(_) | Err(nix::Error::ENOENT | nix::Error::ELOOP | nix::Error::EISDIR | nix::Error::ENXIO) => {
                    make(folder, &name)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Streams all of them into a folder, each in a thread, until this process is ended. What cannot be streamed is told, a
/// line for each (see [`told`]).
pub(super) fn serve(streams: &[Stream], (folder, writers): (BorrowedFd<'_>, Writers), tell: impl Fn(&str) + Sync) -> ! {
    // Before anything is unwound: a pipe that is closed looks like the end of its data.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    std::thread::scope(|scope| {
        for stream in streams {
            scope.spawn(|| stream.run(folder, writers, |error| tell(&told::line(error))));
        }
        // Threads end where their channel does; what follows from what they told is for others to decide.
        loop {
            std::thread::park();
        }
    })
}

/// Makes a pipe; whatever file stands there goes.
fn make(folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
    match mkfifoat(folder, name, mode) {
        Err(nix::Error::EEXIST) => {
            unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?;
            Ok(mkfifoat(folder, name, mode)?)
        }
        other => Ok(other?),
    }
}
