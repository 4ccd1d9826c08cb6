//! The process that streams an attempt's channels, beside the program and outside its view of the file system.
//!
//! Invariant: it dies with its supervisor, who ends it with the attempt. It tells, over one pipe, what cannot be
//! streamed; the first counts; what follows from that is the supervisor's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, getpid, getppid, pipe2};

use super::fork;
use crate::domain::outcome::ExitCause;
use crate::executor::folder::Folder;
use crate::executor::paths::open_without_links;
use crate::executor::pipe::{self, Stream, Writers, told};

/// The process, as its supervisor holds it.
#[derive(Debug)]
pub(super) struct Streams {
    /// None once it has ended and was taken in.
    process: Option<Pid>,
    /// Where it tells what has failed; none once that was read.
    report: Option<File>,
}

impl Streams {
    /// Starts to stream; none where there is nothing to. For a supervisor, before it starts the program.
    pub(super) fn start(folder: &Folder, streams: &[Stream]) -> io::Result<Option<Self>> {
        if streams.is_empty() {
            return Ok(None);
        }
        let pipes = open_without_links(&folder.ml().join("input/data"))?;
        // Before the program starts.
        streams.iter().try_for_each(|stream| stream.prepare(pipes.as_fd()))?;
        let (report, told) = pipe2(OFlag::O_CLOEXEC)?;
        let supervisor = getpid();
        match fork::fork()? {
            ForkResult::Parent { child } => Ok(Some(Self { process: Some(child), report: Some(report.into()) })),
            ForkResult::Child => {
                drop(report);
                // A supervisor that died before that sends no signal.
                if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != supervisor {
                    fork::exit(1)
                }
                let told = File::from(told);
                // A supervisor that has gone takes this process with it.
                pipe::serve(streams, (pipes.as_fd(), Writers::ProgramToo), |line| {
                    let _ = (&told).write_all(line.as_bytes());
                })
            }
        }
    }

    /// Hears of a child that was taken in, whose id may be another's from now on.
    pub(super) fn taken_in(&mut self, child: Pid) {
        self.process = self.process.filter(|process| *process != child);
    }

    /// What can be read once something has failed.
    pub(super) fn report(&self) -> Option<&File> {
        self.report.as_ref()
    }

    /// Whether the process ended before it was told to: its pipes were closed then, and the program may have taken a part
    /// of the data for the whole.
    pub(super) fn has_died(&mut self) -> bool {
        self.report.as_mut().is_some_and(|report| is_ready(report) && matches!(report.read(&mut [0]), Ok(0)))
    }

    /// Why the attempt cannot go on: what the process has told, or its end. Pipes stay open until this is dropped.
    pub(super) fn failure(&mut self) -> ExitCause {
        let mut said = [0; told::MOST_BYTES];
        let length = self.report.take().and_then(|mut report| report.read(&mut said).ok()).unwrap_or(0);
        // Other channels may have told of theirs, too.
        let first = said[..length].split(|&byte| byte == b'\n').next().unwrap_or_default();
        told::cause(first).unwrap_or_else(died)
    }
}

/// The cause where the process has died.
pub(super) fn died() -> ExitCause {
    ExitCause::Infrastructure {
        message: "the process that streams the channels was ended, by the program or from outside".to_owned(),
    }
}

/// Whether this can be read, if only its end.
fn is_ready(file: &File) -> bool {
    let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::ZERO) == Ok(1)
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            let _ = kill(process, Signal::SIGKILL);
            let _ = waitpid(process, None);
        }
    }
}
