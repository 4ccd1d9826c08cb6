//! The supervisor of one attempt's containers: the same binary, run as `tunesmith supervise-container <attempt
//! folder>`.
//!
//! Invariant: it inherits the folder's lock as its standard input and holds it for its life; the exit record is written
//! last. All that it knows is in the folder and with the daemon, so that a server which finds it gone starts another
//! one, which goes on: the containers run, their logs are with the daemon, and the deadline counts from the mark of the
//! start. It starts each container, at most once: the daemon knows whether that has happened. Making them ready and
//! removing them is left to the server (but for a meter that somebody removed: `meter`).
//!
//! The hosts of an attempt have one end. They are all started, or what was started is killed. The first that fails
//! decides how the attempt ended, and the others get the stop sequence; one that is lost takes the others with it at
//! once; a success takes them all.

mod disk;
mod looking;
mod streaming;
mod watching;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bollard::query_parameters::KillContainerOptions;
use futures_util::future::join_all;
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use self::looking::Seen;
use self::watching::Watched;
use super::archive::Known;
use super::daemon;
use super::ending;
use super::follow::Follower;
use super::plan::Plan;
use crate::clock::Clock;
use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::time::Timestamp;
use crate::executor::contract::host_name;
use crate::executor::folder::{Folder, KILL, found};

/// The command.
pub(super) const COMMAND: &str = "supervise-container";

/// How often to look at the disk, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between tries to kill what does not end.
const KILL_AGAIN: Duration = Duration::from_secs(5);

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
    let written = runtime.and_then(|runtime| runtime.block_on(supervise(&folder, &clock))).unwrap_or_else(|error| {
        let message = format!("the supervisor could not look after the container: {error}");
        folder.write_exit(&Exit::bare(clock.now(), ExitCause::Infrastructure { message }))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Looks after the attempt to its end, and says whether that is on record.
async fn supervise(folder: &Folder, clock: &Clock) -> io::Result<io::Result<()>> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(folder.plan())?)?;
    // Open for writing too, so that it never reads as ended between two writers.
    let control = pipe::OpenOptions::new().read_write(true).open_receiver(folder.control())?;
    let hosts: Vec<Host> = plan.containers().map(Host::new).collect();
    let follower = Follower::open(folder, hosts.len(), plan.segment_bytes, plan.max_log_bytes)?;
    let mut attempt = Attempt {
        folder,
        hosts,
        broken: false,
        clock,
        started_at: folder.started_at()?,
        deadline: None,
        stopping: Stopping::read(folder)?,
        next_look: Instant::now() + LOOK_EVERY,
        next_save: Instant::now() + Duration::from_millis(plan.save_every_ms),
        docker: plan.client(),
        control,
        follower,
        plan,
    };
    let exit = attempt.run().await?;
    let written = folder.write_exit(&exit);
    if written.is_ok() {
        attempt.end_streams().await;
    }
    Ok(written)
}

/// The stop sequence, once begun; kept in the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stopping {
    cause: ExitCause,
    begun_at: Timestamp,
    /// The host whose end it is that ends the others.
    #[serde(default)]
    host: Option<usize>,
}

impl Stopping {
    fn read(folder: &Folder) -> io::Result<Option<(Self, Instant)>> {
        let Some(bytes) = found(std::fs::read(folder.path().join("stopping.json")))? else { return Ok(None) };
        // Where it was begun by another supervisor, what it sent may not have arrived: all of it comes again, and at
        // once.
        Ok(serde_json::from_slice(&bytes).ok().map(|stopping| (stopping, Instant::now())))
    }

    fn write(&self, folder: &Folder) -> io::Result<()> {
        let (path, new) = (folder.path().join("stopping.json"), folder.path().join("stopping.tmp"));
        File::create(&new)?.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }
}

/// One of the attempt's containers.
struct Host {
    container: String,
    /// This supervisor has looked on while it ran.
    watched: bool,
    /// How it ended.
    over: Option<Over>,
}

impl Host {
    fn new(container: &str) -> Self {
        Self { container: container.to_owned(), watched: false, over: None }
    }
}

/// A host's own end.
struct Over {
    /// By the daemon's clock.
    ran_ms: Option<i64>,
    /// No supervisor looked on.
    unwatched: bool,
}

struct Attempt<'a> {
    folder: &'a Folder,
    hosts: Vec<Host>,
    /// The daemon was out of reach since they were last seen to run.
    broken: bool,
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
        loop {
            let seen = match self.look_for_them().await {
                Ok(seen) => seen,
                Err(error) => {
                    let why = daemon::message(&error);
                    let patience = self.plan.patience_ms / 1000;
                    return Ok(self.lost(format!("the Docker daemon was out of reach for {patience} s: {why}")));
                }
            };
            if self.go_on(&seen) {
                // A daemon that takes its containers down with it does not show them running afterwards.
                self.broken = false;
            }
            if let Some(host) = seen.iter().position(|seen| *seen == Seen::Missing) {
                return self.lost_with_all(host).await;
            }
            if let Err(exit) = self.judge(&seen).await? {
                return Ok(exit);
            }
            if self.hosts.iter().all(|host| host.over.is_some()) {
                return self.end().await;
            }
            if let Err(exit) = self.start(&seen).await? {
                return Ok(exit);
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
            for host in &mut self.hosts {
                host.watched = true;
            }
            self.broken |= self.watch().await? == Watched::Broken;
        }
    }

    /// Starts the containers that were never started, all of them. An error is the attempt's end: what runs is killed.
    async fn start(&mut self, seen: &[Seen]) -> io::Result<Result<(), Exit>> {
        let waiting = self.hosts.iter().zip(seen).filter(|(_, seen)| **seen == Seen::Created);
        let waiting: Vec<String> = waiting.map(|(host, _)| host.container.clone()).collect();
        if waiting.is_empty() {
            return Ok(Ok(()));
        }
        // Begun together, stopped together: what the others were about to do needs them all.
        if let Some((stopping, _)) = &self.stopping {
            let cause = stopping.cause.clone();
            return Ok(Err(self.end_all(cause).await));
        }
        if self.folder.stop_marker().exists() {
            return Ok(Err(self.end_all(ExitCause::Stopped).await));
        }
        if self.started_at.is_none() {
            let now = self.clock.now();
            self.folder.claim_start(now)?;
            self.started_at = Some(now);
            self.follower.begin(now);
        }
        let Ok(docker) = self.docker().await else { return Ok(Ok(())) };
        if let Err(failed) = self.start_streams(&docker).await {
            return match failed {
                Some(cause) => Ok(Err(self.end_all(cause).await)),
                // Looked for again, as the daemon is.
                None => Ok(Ok(())),
            };
        }
        let started = join_all(waiting.iter().map(|container| docker.start_container(container, None))).await;
        for error in started.into_iter().filter_map(Result::err) {
            // Without an answer it may have been started or not: the daemon knows.
            if daemon::status(&error).is_some() {
                let message = daemon::message(&error);
                let cause = if ending::is_of_the_image(&message) {
                    ExitCause::StartFailed { message: format!("the container could not be started: {message}") }
                } else {
                    ExitCause::Infrastructure { message: format!("the daemon did not start the container: {message}") }
                };
                return Ok(Err(self.end_all(cause).await));
            }
        }
        // From when they really run: making them ready takes a moment.
        self.deadline = Some(in_future(self.clock, self.clock.now(), self.plan.max_runtime_ms));
        Ok(Ok(()))
    }

    /// The end of an attempt that has not come to run as a whole.
    async fn end_all(&mut self, cause: ExitCause) -> Exit {
        if self.hosts.len() > 1 {
            self.signal("SIGKILL").await;
        }
        Exit::bare(self.clock.now(), cause)
    }

    fn next_wake(&self) -> Option<Instant> {
        match &self.stopping {
            Some((_, kill_at)) => Some(*kill_at),
            None => self.deadline,
        }
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
        let stopping = Stopping { cause, begun_at, host: None };
        self.begin_stopping(stopping, &format!("{why}: SIGTERM sent"), self.plan.stop_grace_ms)?;
        self.signal("SIGTERM").await;
        Ok(())
    }

    fn begin_stopping(&mut self, stopping: Stopping, remark: &str, grace_ms: i64) -> io::Result<()> {
        stopping.write(self.folder)?;
        let begun_at = stopping.begun_at;
        self.stopping = Some((stopping, in_future(self.clock, begun_at, grace_ms)));
        self.follower.remark(remark, begun_at)
    }

    /// To all that run. What cannot be sent comes again with the next look.
    async fn signal(&mut self, signal: &str) {
        if let Ok(docker) = self.docker().await {
            let options = KillContainerOptions { signal: signal.to_owned() };
            let running = self.hosts.iter().filter(|host| host.over.is_none());
            let sent = join_all(running.map(|host| docker.kill_container(&host.container, Some(options.clone()))));
            let _ = tokio::time::timeout(self.plan.patience(), sent).await;
        }
    }

    fn lost(&mut self, message: String) -> Exit {
        let now = self.clock.now();
        // It is in the exit record as well.
        let _ = self.follower.finish(now);
        Exit { started_at: self.started_at, ..Exit::bare(now, ExitCause::Infrastructure { message }) }
    }

    /// What begins a remark on one of several hosts.
    fn who(&self, host: usize) -> String {
        if self.hosts.len() == 1 { String::new() } else { format!("{}: ", host_name(host)) }
    }

    /// One host is gone, and the others with it.
    async fn lost_with_all(&mut self, host: usize) -> io::Result<Exit> {
        let message = format!("{}{}", self.who(host), looking::GONE);
        if self.hosts.len() > 1 {
            self.follower.remark(&format!("{message}: SIGKILL sent to the others"), self.clock.now())?;
            self.signal("SIGKILL").await;
        }
        Ok(self.lost(message))
    }

    /// The exit record of an attempt whose hosts are all over, with what is fetched for it: from the host that decided,
    /// or from the first.
    async fn end(&mut self) -> io::Result<Exit> {
        let Ok(docker) = self.docker().await else {
            return Ok(self.lost("the Docker daemon was out of reach when the container was over".to_owned()));
        };
        // Nothing saves them after that: a change that no time tells of is seen, too.
        if let Some(remark) = ending::save_checkpoints(&docker, &self.plan, Known::ByContent).await {
            self.follower.remark(&remark, self.clock.now())?;
        }
        self.follower.finish(self.clock.now())?;
        let now = self.clock.now();
        let unwatched = self.hosts.iter().all(|host| host.over.as_ref().is_some_and(|over| over.unwatched));
        let ran_ms = self.hosts.iter().filter_map(|host| host.over.as_ref()?.ran_ms).max();
        let ended_at = match (self.started_at, ran_ms) {
            (Some(started_at), Some(ran_ms)) if unwatched => started_at.plus_ms(ran_ms).min(now),
            _ => now,
        };
        let (cause, host) = match &self.stopping {
            Some((stopping, _)) => (stopping.cause.clone(), stopping.host.unwrap_or(0)),
            None => (ExitCause::Exited { code: 0 }, 0),
        };
        let container = &self.hosts[host.min(self.hosts.len() - 1)].container;
        let mut stderr_tail = self.follower.stderr_tail(host);
        if stderr_tail.is_empty() {
            // An earlier supervisor may have taken it.
            stderr_tail = ending::stderr_tail(&docker, container, self.plan.patience()).await;
        }
        let failure = ending::failure(&docker, container, self.plan.patience()).await;
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
