//! The supervisor of one container: the same binary, run as `tunesmith supervise-container <attempt folder>`.
//!
//! Invariant: it inherits the folder's lock as its standard input and holds it for its life; the exit record is written
//! last. All that it knows is in the folder and with the daemon, so that a server which finds it gone starts another one,
//! which goes on: the container runs, its log is with the daemon, and the deadline counts from the mark of the start.
//! It starts the container, at most once: the daemon knows whether that has happened. Making it ready and removing it is
//! left to the server.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions, WaitContainerOptions};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::daemon::{self, Error, Patience};
use super::ending::{self, End};
use super::follow::{Follower, Frames};
use super::plan::Plan;
use super::stamp::Stamp;
use crate::clock::Clock;
use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::time::Timestamp;
use crate::executor::folder::{Folder, KILL, found};

/// The command.
pub(super) const COMMAND: &str = "supervise-container";

/// What is told of a container that is there no more.
const GONE: &str = "the container is gone: something else removed it";

/// How long a container takes to go once it is killed, if that is what is meant.
const REMOVAL: Duration = Duration::from_millis(500);

/// How often to look at the disk, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look is followed by this many times as long without one.
const REST: u32 = 19;

/// Between tries to reach the daemon, or to get on with a log.
const RETRY: Duration = Duration::from_millis(250);

/// Between tries to kill what does not end.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// How long the log of an ended container may say nothing before what is left of it is asked for anew.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// The entry of `tunesmith supervise-container …`: none where the arguments ask for something else.
#[must_use]
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    match (arguments.next(), arguments.next()) {
        (Some(folder), None) => Some(run(Path::new(&folder))),
        _ => Some(ExitCode::from(2)),
    }
}

fn run(folder: &Path) -> ExitCode {
    let folder = Folder::new(folder.to_owned());
    let lock = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    if !lock.and_then(|lock| folder.is_lock(&lock)).unwrap_or(false) {
        eprintln!("tunesmith {COMMAND} is started by the server, with the lock of an attempt's folder");
        return ExitCode::from(2);
    }
    // Whatever ends the server's own group is not meant for this one.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o022));
    let clock = Clock::System;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let exit = runtime.and_then(|runtime| runtime.block_on(supervise(&folder, &clock))).unwrap_or_else(|error| {
        let message = format!("the supervisor could not look after the container: {error}");
        Exit::bare(clock.now(), ExitCause::Infrastructure { message })
    });
    match folder.write_exit(&exit) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn supervise(folder: &Folder, clock: &Clock) -> io::Result<Exit> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(folder.plan())?)?;
    // Open for writing too, so that it never reads as ended between two writers.
    let control = pipe::OpenOptions::new().read_write(true).open_receiver(folder.control())?;
    let follower = Follower::open(folder, plan.segment_bytes, plan.max_log_bytes)?;
    let mut attempt = Attempt {
        folder,
        clock,
        started_at: folder.started_at()?,
        deadline: None,
        stopping: Stopping::read(folder)?,
        next_look: Instant::now() + LOOK_EVERY,
        next_save: Instant::now() + Duration::from_millis(plan.save_every_ms),
        docker: None,
        control,
        follower,
        plan,
    };
    attempt.run().await
}

/// The stop sequence, once begun; kept in the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stopping {
    cause: ExitCause,
    begun_at: Timestamp,
}

impl Stopping {
    fn read(folder: &Folder) -> io::Result<Option<(Self, Instant)>> {
        let Some(bytes) = found(std::fs::read(folder.path().join("stopping.json")))? else { return Ok(None) };
        // Where it was begun by another supervisor, what it sent may not have arrived: all of it comes again, and at once.
        Ok(serde_json::from_slice(&bytes).ok().map(|stopping| (stopping, Instant::now())))
    }

    fn write(&self, folder: &Folder) -> io::Result<()> {
        let (path, new) = (folder.path().join("stopping.json"), folder.path().join("stopping.tmp"));
        File::create(&new)?.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }
}

/// What the daemon says of the container.
enum Seen {
    Missing,
    Created,
    Running,
    Over(End),
}

/// Why watching ended.
enum Watched {
    /// The container is over.
    Ended,
    /// The daemon broke off.
    Broken,
}

struct Attempt<'a> {
    folder: &'a Folder,
    clock: &'a Clock,
    plan: Plan,
    docker: Option<bollard::Docker>,
    control: pipe::Receiver,
    follower: Follower,
    started_at: Option<Timestamp>,
    deadline: Option<Instant>,
    /// With the time for SIGKILL.
    stopping: Option<(Stopping, Instant)>,
    next_look: Instant,
    next_save: Instant,
}

impl Attempt<'_> {
    async fn run(&mut self) -> io::Result<Exit> {
        if let Some((stopping, kill_at)) = &mut self.stopping {
            *kill_at = in_future(self.clock, stopping.begun_at, self.plan.stop_grace_ms);
        }
        let mut resumed = self.stopping.is_some();
        let (mut watched, mut broken) = (false, false);
        loop {
            let (seen, was_away) = match self.look_for_it().await {
                Ok(seen) => seen,
                Err(error) => {
                    let why = daemon::message(&error);
                    let patience = self.plan.patience_ms / 1000;
                    return Ok(self.lost(format!("the Docker daemon was out of reach for {patience} s: {why}")));
                }
            };
            broken |= was_away;
            match seen {
                Seen::Missing => {
                    return Ok(self.lost(GONE.to_owned()));
                }
                Seen::Created => {
                    if self.folder.stop_marker().exists() {
                        return Ok(Exit::bare(self.clock.now(), ExitCause::Stopped));
                    }
                    if let Err(exit) = self.start().await? {
                        return Ok(exit);
                    }
                }
                Seen::Running => {}
                Seen::Over(end) => {
                    let end = End { unwatched: !watched, broken, ..end };
                    return self.end(end).await;
                }
            }
            if self.deadline.is_none() {
                let begun = self.started_at.unwrap_or_else(|| self.clock.now());
                self.deadline = Some(in_future(self.clock, begun, self.plan.max_runtime_ms));
            }
            if self.folder.stop_marker().exists() {
                self.stop(ExitCause::Stopped).await?;
            }
            if std::mem::take(&mut resumed) {
                self.signal("SIGTERM").await;
            }
            watched = true;
            broken |= matches!(self.watch().await?, Watched::Broken);
        }
    }

    /// Looks, and again until the daemon answers, for as long as patience lasts. Whether the daemon was out of reach.
    async fn look_for_it(&mut self) -> Result<(Seen, bool), Error> {
        let until = Instant::now() + Duration::from_millis(self.plan.patience_ms);
        let mut was_away = false;
        loop {
            match self.look().await {
                Ok(seen) => return Ok((seen, was_away)),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => {
                    was_away = true;
                    self.docker = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<Seen, Error> {
        let docker = self.docker().await?;
        let inspected = docker.inspect_container(&self.plan.container, None::<InspectContainerOptions>).await;
        let Some(container) = daemon::there(inspected)? else { return Ok(Seen::Missing) };
        let state = container.state.unwrap_or_default();
        if state.status == Some(ContainerStateStatusEnum::REMOVING) || state.dead == Some(true) {
            return Ok(Seen::Missing);
        }
        if state.running == Some(true) {
            return Ok(Seen::Running);
        }
        let Some(started) = state.started_at.as_deref().and_then(Stamp::parse) else { return Ok(Seen::Created) };
        let finished = state.finished_at.as_deref().and_then(Stamp::parse).filter(|finished| *finished >= started);
        Ok(Seen::Over(End {
            code: state.exit_code.unwrap_or(0),
            out_of_memory: state.oom_killed == Some(true),
            ran_ms: finished.map(|finished| finished.since_ms(started)),
            unwatched: false,
            broken: false,
        }))
    }

    async fn docker(&mut self) -> Result<bollard::Docker, Error> {
        if let Some(docker) = &self.docker {
            return Ok(docker.clone());
        }
        let docker = daemon::connect(&self.plan.address, Patience::Ordinary).await?;
        self.docker = Some(docker.clone());
        Ok(docker)
    }

    /// Starts the container. An error is the attempt's end.
    async fn start(&mut self) -> io::Result<Result<(), Exit>> {
        if self.started_at.is_none() {
            let now = self.clock.now();
            self.folder.claim_start(now)?;
            self.started_at = Some(now);
        }
        let Ok(docker) = self.docker().await else { return Ok(Ok(())) };
        match docker.start_container(&self.plan.container, None).await {
            Ok(()) => {
                // From when it really runs: making it ready takes a moment.
                self.deadline = Some(in_future(self.clock, self.clock.now(), self.plan.max_runtime_ms));
                Ok(Ok(()))
            }
            Err(error) if daemon::status(&error).is_some() => {
                let message = daemon::message(&error);
                let cause = if ending::is_of_the_image(&message) {
                    ExitCause::StartFailed { message: format!("the container could not be started: {message}") }
                } else {
                    ExitCause::Infrastructure { message: format!("the daemon did not start the container: {message}") }
                };
                Ok(Err(Exit::bare(self.clock.now(), cause)))
            }
            // It may have been started or not: the daemon knows.
            Err(_) => Ok(Ok(())),
        }
    }

    /// Takes the log and keeps times until the container is over or the daemon breaks off.
    async fn watch(&mut self) -> io::Result<Watched> {
        let Ok(docker) = self.docker().await else { return Ok(Watched::Broken) };
        let container = self.plan.container.clone();
        let not_running = WaitContainerOptions { condition: "not-running".to_owned() };
        let mut ended = docker.wait_container(&container, Some(not_running)).boxed();
        let mut frames = Some(self.follower.frames(&docker, &container, true));
        let mut reopen = None;
        let mut saving = None;
        loop {
            let save = (saving.is_none() && self.plan.checkpoints.is_some()).then_some(self.next_save);
            let wake = self.next_wake().into_iter().chain(reopen).chain(save).min();
            tokio::select! {
                frame = next_of(&mut frames) => {
                    let more = match (frame, &mut frames) {
                        (Some(Ok(frame)), Some(frames)) => self.follower.take(frame, frames, self.clock.now())?,
                        _ => false,
                    };
                    if !more {
                        frames = None;
                        // It ends with the container; where that goes on, there is more to come.
                        reopen = Some(Instant::now() + RETRY);
                    }
                }
                over = ended.next() => match over {
                    Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {
                        self.drain(frames).await?;
                        return Ok(Watched::Ended);
                    }
                    _ => return Ok(Watched::Broken),
                },
                requested = self.control.readable() => {
                    requested?;
                    self.take_requests().await?;
                }
                () = done_of(&mut saving) => {
                    let took = self.next_save.elapsed();
                    saving = None;
                    self.next_save = Instant::now() + (took * REST).max(Duration::from_millis(self.plan.save_every_ms));
                }
                () = sleep_until(wake) => {
                    if save.is_some_and(|save| save <= Instant::now()) {
                        saving = Some(save_checkpoints(docker.clone(), self.plan.clone()).boxed());
                    }
                    if reopen.is_some_and(|reopen| reopen <= Instant::now()) {
                        reopen = None;
                        frames = Some(self.follower.frames(&docker, &container, true));
                    }
                    self.keep_times().await?;
                }
            }
        }
    }

    /// Takes what is left of the log of a container that is over.
    async fn drain(&mut self, frames: Option<Frames>) -> io::Result<()> {
        let Some(mut frames) = frames else { return Ok(()) };
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(DRAIN_PATIENCE, frames.next()).await {
            if !self.follower.take(frame, &mut frames, self.clock.now())? {
                break;
            }
        }
        Ok(())
    }

    fn next_wake(&self) -> Option<Instant> {
        let next = match &self.stopping {
            Some((_, kill_at)) => Some(*kill_at),
            None => self.deadline,
        };
        let look = (self.plan.disk.is_some() && self.stopping.is_none()).then_some(self.next_look);
        next.into_iter().chain(look).min()
    }

    async fn keep_times(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if let Some((_, kill_at)) = &mut self.stopping {
            if *kill_at <= now {
                *kill_at = now + KILL_AGAIN;
                self.signal("SIGKILL").await;
            }
            return Ok(());
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.stop(ExitCause::Deadline).await?;
        } else if self.plan.disk.is_some() && self.next_look <= now {
            self.look_at_disk().await?;
        }
        Ok(())
    }

    async fn take_requests(&mut self) -> io::Result<()> {
        let mut requests = [0; 64];
        let length = match self.control.try_read(&mut requests) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        if length > 0 {
            self.stop(ExitCause::Stopped).await?;
        }
        if requests[..length].contains(&KILL)
            && let Some((_, kill_at)) = &mut self.stopping
        {
            *kill_at = Instant::now();
        }
        Ok(())
    }

    /// Begins the stop sequence; the first cause counts.
    async fn stop(&mut self, cause: ExitCause) -> io::Result<()> {
        if self.stopping.is_some() {
            return Ok(());
        }
        let why = if cause == ExitCause::Deadline { "the maximum runtime is over" } else { "a stop was requested" };
        let begun_at = self.clock.now();
        self.begin_stopping(cause, &format!("{why}: SIGTERM sent"), self.plan.stop_grace_ms, begun_at)?;
        self.signal("SIGTERM").await;
        Ok(())
    }

    fn begin_stopping(&mut self, cause: ExitCause, remark: &str, grace_ms: i64, now: Timestamp) -> io::Result<()> {
        let stopping = Stopping { cause, begun_at: now };
        stopping.write(self.folder)?;
        self.stopping = Some((stopping, in_future(self.clock, now, grace_ms)));
        self.follower.remark(remark, now)
    }

    /// What cannot be sent comes again with the next look.
    async fn signal(&mut self, signal: &str) {
        if let Ok(docker) = self.docker().await {
            let options = KillContainerOptions { signal: signal.to_owned() };
            let _ = docker.kill_container(&self.plan.container, Some(options)).await;
        }
    }

    /// An attempt over its limit gets no grace: the disk would fill meanwhile.
    async fn look_at_disk(&mut self) -> io::Result<()> {
        let Some(bound) = self.plan.disk.clone() else { return Ok(()) };
        let begun = Instant::now();
        if let Ok(docker) = self.docker().await {
            let sized = InspectContainerOptions { size: true };
            let size = docker.inspect_container(&self.plan.container, Some(sized)).await.ok().and_then(|c| c.size_rw);
            if size.and_then(|size| u64::try_from(size).ok()).is_some_and(|size| size > bound.bytes) {
                let message = bound.message();
                let (remark, now) = (format!("{message}: SIGKILL sent"), self.clock.now());
                self.begin_stopping(ExitCause::OverLimit { message }, &remark, 0, now)?;
                self.signal("SIGKILL").await;
            }
        }
        let ended = Instant::now();
        self.next_look = (ended + (ended - begun) * REST).max(begun + LOOK_EVERY);
        Ok(())
    }

    fn lost(&mut self, message: String) -> Exit {
        let now = self.clock.now();
        // It is in the exit record as well.
        let _ = self.follower.finish(now);
        Exit { started_at: self.started_at, ..Exit::bare(now, ExitCause::Infrastructure { message }) }
    }

    /// The exit record of a container that is over, with what is fetched for it.
    async fn end(&mut self, mut end: End) -> io::Result<Exit> {
        let Ok(docker) = self.docker().await else {
            return Ok(self.lost("the Docker daemon was out of reach when the container was over".to_owned()));
        };
        // What the daemon had not handed over when it said that the container is over.
        let frames = self.follower.frames(&docker, &self.plan.container, false);
        self.drain(Some(frames)).await?;
        let remark = ending::save_checkpoints(&docker, &self.plan).await;
        if let Some(remark) = &remark {
            self.follower.remark(remark, self.clock.now())?;
        }
        self.follower.finish(self.clock.now())?;
        let now = self.clock.now();
        let ended_at = match (self.started_at, end.ran_ms) {
            (Some(started_at), Some(ran_ms)) if end.unwatched => started_at.plus_ms(ran_ms).min(now),
            _ => now,
        };
        let mut stderr_tail = self.follower.stderr_tail();
        if stderr_tail.is_empty() {
            // An earlier supervisor may have taken it.
            stderr_tail = ending::stderr_tail(&docker, &self.plan.container).await;
        }
        let live_restore = docker.info().await.is_ok_and(|info| info.live_restore_enabled == Some(true));
        let stopping = self.stopping.as_ref().map(|(stopping, _)| stopping.cause.clone());
        let mut cause = stopping.unwrap_or_else(|| end.cause(self.plan.memory, live_restore));
        let failure = ending::failure(&docker, &self.plan.container).await;
        if cause == (ExitCause::Signaled { signal: 9 }) {
            // Whoever removes a container kills it first.
            tokio::time::sleep(REMOVAL).await;
            if matches!(self.look().await, Ok(Seen::Missing)) {
                return Ok(self.lost(GONE.to_owned()));
            }
            end.out_of_memory = ending::ran_out_of_memory(&docker, &self.plan.container, self.clock.now()).await;
            cause = end.cause(self.plan.memory, live_restore);
        }
        Ok(Exit { started_at: self.started_at, ended_at, cause, failure, stderr_tail, remark: None })
    }
}

/// Some time after a time that this clock showed, on the clock that only goes forward.
fn in_future(clock: &Clock, from: Timestamp, after_ms: i64) -> Instant {
    let left = after_ms.saturating_sub(clock.now().since_ms(from));
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    // Nobody waits for longer than a year.
    Instant::now() + left.min(Duration::from_hours(24 * 365))
}

async fn next_of(frames: &mut Option<Frames>) -> Option<Result<bollard::container::LogOutput, Error>> {
    match frames {
        Some(frames) => frames.next().await,
        None => std::future::pending().await,
    }
}

/// Saves what there is while the program goes on: its machine may be lost.
async fn save_checkpoints(docker: bollard::Docker, plan: Plan) {
    // The end saves them again, and tells.
    let _ = ending::save_checkpoints(&docker, &plan).await;
}

async fn done_of(saving: &mut Option<BoxFuture<'static, ()>>) {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
