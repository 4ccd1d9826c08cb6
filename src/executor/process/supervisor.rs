//! The supervisor of one attempt: a fork of the server's nursery, shown as `tunesmith supervise <attempt folder>`.
//!
//! Invariant: it is given the folder's lock and holds it until nothing of the attempt runs any more; the exit record is
//! written last. It needs no server: logs, deadline and stop sequence are its own, kept by one thread and the monotonic
//! clock. Where the kernel allows it is the first process of the attempt's namespace, so that nothing of the attempt
//! outlives it; elsewhere it takes in what lost its parent. It starts with the bare process, before any argument parser or
//! runtime.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2, setsid};
use rustix::buffer::spare_capacity;
use rustix::io::retry_on_intr;
use rustix::process::{WaitOptions, wait};

use super::disk::Meter;
use super::plan::{Plan, Sandbox};
use super::sandbox::{self, Namespaces};
use super::streams::{self, Streams};
use super::{fork, nursery, program, strays};
use crate::clock::Clock;
use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::time::Timestamp;
use crate::executor::Stream;
use crate::executor::folder::log_writer::LogWriter;
use crate::executor::folder::{Folder, KILL};

/// How much of `/opt/ml/output/failure` is kept.
const FAILURE_CHARACTERS: usize = 1024;
/// What is still read from pipes that somebody else holds open once all is over.
const MAX_DRAIN: usize = 64 << 20;

/// The entry of `tunesmith supervise …`, which only the server starts: none where the arguments ask for something else.
/// To be called first of all.
#[must_use]
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.skip(1);
    if arguments.next()? != "supervise" {
        return None;
    }
    match (arguments.next(), arguments.next()) {
        (Some(mode), None) if mode == "--probe=root" => Some(probe(false)),
        (Some(mode), None) if mode == "--probe=user" => Some(probe(true)),
        (Some(mode), _) => Some(nursery::named(&mode).map_or_else(by_hand, nursery::run)),
        _ => Some(by_hand()),
    }
}

fn by_hand() -> ExitCode {
    eprintln!("tunesmith supervise is started by the server, for one attempt");
    ExitCode::from(2)
}

/// Supervises the attempt of a folder until it is over, in a process that was born into `namespaces`. The lock is held
/// until that is gone.
pub(super) fn run(folder: &Path, lock: File, namespaces: Namespaces) {
    let folder = Folder::new(folder.to_owned());
    if !folder.is_lock(&lock).unwrap_or(false) {
        return;
    }
    // Until the very end of the process: closed earlier, the attempt would look lost while its exit record is on its way.
    std::mem::forget(lock);
    let clock = Clock::System;
    let started_at = clock.now();
    if !folder.claim_start(started_at).unwrap_or(false) {
        return;
    }
    let supervised = namespaces.settle().map_err(|error| io::Error::other(error.text()));
    let exit = supervised.and_then(|()| supervise(&folder, &clock, started_at)).unwrap_or_else(|error| {
        let message = format!("the supervisor could not start the program: {error}");
        never_started(ExitCause::Infrastructure { message }, &clock)
    });
    // Without a record it is lost, as its lock tells.
    let _ = folder.write_exit(&exit);
}

/// Tries what [`sandbox`] needs of the kernel.
fn probe(user_namespace: bool) -> ExitCode {
    let namespaces = Namespaces::new(Some(user_namespace));
    let view = Sandbox { binds: Vec::new(), masked: Vec::new() };
    match namespaces.fork() {
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Ok(ForkResult::Child) => {
            let entered = namespaces.settle().and_then(|()| sandbox::enter(&view));
            if let Err(error) = &entered {
                eprintln!("{}", error.text());
            }
            fork::exit(i32::from(entered.is_err()))
        }
        Err(error) => {
            eprintln!("making namespaces failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The record of an attempt whose program never ran.
fn never_started(cause: ExitCause, clock: &Clock) -> Exit {
    let stderr_tail = String::new();
    Exit { started_at: None, ended_at: clock.now(), cause, failure: None, stderr_tail, remark: None }
}

fn supervise(folder: &Folder, clock: &Clock, started_at: Timestamp) -> io::Result<Exit> {
    setsid().or_else(|error| if error == nix::Error::EPERM { Ok(Pid::this()) } else { Err(error) })?;
    umask(Mode::from_bits_truncate(0o022));
    keep_descriptors_from_programs();
    prctl::set_child_subreaper(true)?;
    // The program's process shares this memory for a moment, with fewer rights: nobody who has no more may write to it.
    prctl::set_dumpable(false)?;
    program::kept_signals().thread_block()?;
    let plan: Plan = serde_json::from_slice(&std::fs::read(folder.plan())?)?;
    // Open for writing too, so that it never reads as ended between two writers.
    let control =
        File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(folder.control())?;
    let log = LogWriter::new(folder.clone(), plan.segment_bytes, plan.max_log_bytes);
    // After the pipe is open: a request is seen here or there.
    if folder.stop_marker().exists() {
        return Ok(never_started(ExitCause::Stopped, clock));
    }
    let streams = Streams::start(folder, &plan.streams)?;
    let children =
        SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let (stdout, stdout_in) = output()?;
    let (stderr, stderr_in) = output()?;
    let begun = Instant::now();
    let program = match program::start(&plan, &stdout_in, &stderr_in) {
        Ok(program) => program,
        Err(cause) => return Ok(never_started(cause, clock)),
    };
    // The program alone holds the other ends from here on.
    drop((stdout_in, stderr_in));
    let mut attempt = Attempt {
        folder,
        clock,
        plan: &plan,
        control,
        program,
        children,
        stdout: Some(stdout),
        stderr: Some(stderr),
        streams,
        log,
        disk: plan.disk.as_ref().map(Meter::new),
        stopping: None,
    };
    // Never filled with zeros: most programs write less than its first page.
    let mut buffer = Vec::with_capacity(64 << 10);
    let watched = attempt.watch(begun, &mut buffer);
    attempt.end(&mut buffer);
    let ended = watched.unwrap_or_else(|error| {
        let message = format!("the supervisor could not go on: {error}");
        ExitCause::Infrastructure { message }
    });
    Ok(attempt.exit(started_at, ended))
}

/// Whatever the server was itself started with must not reach a training program.
#[expect(unsafe_code, reason = "there is no safe way to mark descriptors that nobody here owns")]
fn keep_descriptors_from_programs() {
    // SAFETY: this closes nothing; it sets a flag that acts when another program is started. Where the kernel is too old
    // for the flag nothing happens.
    unsafe { nix::libc::close_range(3, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
}

/// A pipe for a stream of output: its reading end, which never waits, and the program's.
fn output() -> io::Result<(File, OwnedFd)> {
    let (out, into) = pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&out, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((out.into(), into))
}

/// The stop sequence, once begun.
#[derive(Debug)]
struct Stopping {
    cause: ExitCause,
    kill_at: Option<Instant>,
}

struct Attempt<'a> {
    folder: &'a Folder,
    clock: &'a Clock,
    plan: &'a Plan,
    control: File,
    program: Pid,
    /// Ready when a child has ended.
    children: SignalFd,
    stdout: Option<File>,
    stderr: Option<File>,
    /// None where nothing is streamed.
    streams: Option<Streams>,
    log: LogWriter,
    /// None once it was over its limit.
    disk: Option<Meter<'a>>,
    stopping: Option<Stopping>,
}

impl Attempt<'_> {
    /// Reads output and keeps times until the program has ended, and how it did.
    fn watch(&mut self, begun: Instant, buffer: &mut Vec<u8>) -> io::Result<ExitCause> {
        let deadline = begun.checked_add(milliseconds(self.plan.max_runtime_ms));
        loop {
            let next = match &self.stopping {
                None => deadline,
                Some(stopping) => stopping.kill_at,
            };
            let look = self.disk.as_ref().map(Meter::due);
            let [ended, requested, stdout, stderr, unstreamed] = self.poll([next, look].into_iter().flatten().min())?;
            // Output first: what the program wrote before its end comes before what ends it.
            for (ready, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
                if ready {
                    self.read_output(stream, buffer);
                }
            }
            if ended && let Some(cause) = self.take_children_in()? {
                return Ok(cause);
            }
            if requested {
                self.take_requests(buffer);
            }
            if unstreamed {
                self.give_up_streams();
            }
            if look.is_some_and(|look| look <= Instant::now()) {
                self.look_at_disk();
            }
            if next.is_some_and(|next| next <= Instant::now()) {
                if self.stopping.is_some() {
                    self.kill();
                } else {
                    self.stop(ExitCause::Deadline);
                }
            }
        }
    }

    /// Takes in every child that has ended, orphans of the program among them; how the program ended, once it has.
    fn take_children_in(&mut self) -> io::Result<Option<ExitCause>> {
        while self.children.read_signal()?.is_some() {}
        loop {
            // Not by a function that knows signals by name: there are some without.
            let Some((child, status)) = retry_on_intr(|| wait(WaitOptions::NOHANG))? else { return Ok(None) };
            let child = Pid::from_raw(child.as_raw_nonzero().get());
            if child == self.program {
                let signaled = || status.terminating_signal().map(|signal| ExitCause::Signaled { signal });
                return Ok(status.exit_status().map(|code| ExitCause::Exited { code }).or_else(signaled));
            }
            if let Some(streams) = &mut self.streams {
                streams.taken_in(child);
            }
        }
    }

    /// Ends what still runs of the attempt, and reads what is left in the pipes.
    fn end(&mut self, buffer: &mut Vec<u8>) {
        if self.stopping.is_none() && self.streams.as_mut().is_some_and(Streams::has_died) {
            self.stopping = Some(Stopping { cause: streams::died(), kill_at: None });
        }
        if strays::is_first() {
            strays::end_namespace();
            self.streams = None;
        } else {
            self.streams = None;
            strays::end_children();
        }
        self.drain(buffer);
    }

    /// Waits for any of: the end of a child, a request, stdout, stderr, news of the streams.
    fn poll(&self, until: Option<Instant>) -> io::Result<[bool; 5]> {
        let streams = self.streams.as_ref().and_then(Streams::report);
        let [control, stdout, stderr, streams] =
            [Some(&self.control), self.stdout.as_ref(), self.stderr.as_ref(), streams]
                .map(|file| file.map(File::as_fd));
        let files = [Some(self.children.as_fd()), control, stdout, stderr, streams];
        let open = files.iter().flatten();
        let mut waiting: Vec<PollFd<'_>> = open.map(|file| PollFd::new(*file, PollFlags::POLLIN)).collect();
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            // Rounded up, so that a wake-up is never early and the loop never spins.
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut waiting, timeout) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => return Ok([false; 5]),
            Err(error) => return Err(error.into()),
        }
        let mut answers = waiting.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        Ok(files.map(|file| file.is_some() && answers.next().unwrap_or(false)))
    }

    /// Reads once from a stream; what is left keeps it ready. The number of bytes, zero where there are none now.
    fn read_output(&mut self, stream: Stream, buffer: &mut Vec<u8>) -> usize {
        let end = if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
        let Some(pipe) = end else { return 0 };
        match read(pipe, buffer) {
            Ok(()) if buffer.is_empty() => *end = None,
            Ok(()) => {
                self.log.take(stream, buffer, self.clock.now());
                return buffer.len();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => *end = None,
        }
        0
    }

    /// Reads what is left once nothing of the attempt runs any more.
    fn drain(&mut self, buffer: &mut Vec<u8>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut total = 0;
            while total < MAX_DRAIN {
                match self.read_output(stream, buffer) {
                    0 => break,
                    length => total += length,
                }
            }
        }
        self.log.finish(self.clock.now());
    }

    fn take_requests(&mut self, buffer: &mut Vec<u8>) {
        if read(&self.control, buffer).is_err() {
            return;
        }
        if !buffer.is_empty() {
            self.stop(ExitCause::Stopped);
        }
        if buffer.contains(&KILL) {
            self.kill();
        }
    }

    /// Begins the stop sequence; the first cause counts.
    fn stop(&mut self, cause: ExitCause) {
        if self.stopping.is_none() {
            let kill_at = Instant::now().checked_add(milliseconds(self.plan.stop_grace_ms));
            let why = if cause == ExitCause::Deadline { "the maximum runtime is over" } else { "a stop was requested" };
            self.log.remark(&format!("{why}: SIGTERM sent"), self.clock.now());
            self.stopping = Some(Stopping { cause, kill_at });
            let _ = killpg(self.program, Signal::SIGTERM);
        }
    }

    /// Looks at the disk for a short while. An attempt over its limit gets no grace: the disk would fill meanwhile.
    fn look_at_disk(&mut self) {
        if !self.disk.as_mut().is_some_and(Meter::turn) {
            return;
        }
        self.disk = None;
        let Some(message) = self.plan.disk.as_ref().map(|disk| disk.bound.message()) else { return };
        self.log.remark(&format!("{message}: SIGKILL sent"), self.clock.now());
        self.stopping.get_or_insert(Stopping { cause: ExitCause::OverLimit { message }, kill_at: None });
        self.kill();
    }

    /// What has failed while streaming ends the attempt, without grace: the program waits for data that will not come.
    fn give_up_streams(&mut self) {
        let Some(cause) = self.streams.as_mut().map(Streams::failure) else { return };
        if let ExitCause::InputRefused { message } | ExitCause::Infrastructure { message } = &cause
            && self.stopping.is_none()
        {
            self.log.remark(&format!("{message}: SIGKILL sent"), self.clock.now());
            self.stopping = Some(Stopping { cause, kill_at: None });
            self.kill();
        }
    }

    fn kill(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.kill_at = None;
        }
        let _ = kill(self.program, Signal::SIGKILL);
    }

    fn exit(&self, started_at: Timestamp, ended: ExitCause) -> Exit {
        let cause = self.stopping.as_ref().map_or(ended, |stopping| stopping.cause.clone());
        let failure = read_failure(self.folder);
        Exit {
            started_at: Some(started_at),
            ended_at: self.clock.now(),
            cause,
            failure,
            stderr_tail: self.log.stderr_tail(),
            remark: None,
        }
    }
}

/// Reads once, in place of what the buffer held.
fn read(file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    rustix::io::read(file, spare_capacity(buffer))?;
    Ok(())
}

fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The beginning of `/opt/ml/output/failure`. The job owns these folders: no link of it is followed, and nothing but a
/// regular file is read.
fn read_failure(folder: &Folder) -> Option<String> {
    let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let ml = open(&folder.ml(), directory, Mode::empty()).ok()?;
    let output = openat(&ml, "output", directory, Mode::empty()).ok()?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(&output, "failure", flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(4 * FAILURE_CHARACTERS as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).chars().take(FAILURE_CHARACTERS).collect())
}
