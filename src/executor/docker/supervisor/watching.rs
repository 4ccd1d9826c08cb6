//! Looking on while an attempt's containers run: their logs, the clock, the disk, requests.
//!
//! Invariant: saving checkpoints and looking at the disk go on beside the rest, and no host's flood keeps the others'
//! lines waiting. That a container is over, or that the daemon broke off, is only a reason to look: what it means is
//! left to `looking`.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::ContainerWaitResponse;
use bollard::query_parameters::WaitContainerOptions;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::{Attempt, LOOK_EVERY};
use crate::executor::docker::archive::Known;
use crate::executor::docker::daemon::{self, Error};
use crate::executor::docker::ending;
use crate::executor::docker::follow::{Frames, Next};
use crate::executor::docker::plan::Plan;

/// A look at what is costly is followed by this many times as long without one.
const REST: u32 = 19;

/// How often the daemon is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Between tries to get on with a log.
const REOPEN: Duration = Duration::from_millis(250);

/// How long the log of an ended container may say nothing before what is left of it is asked for anew.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Why watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// A container is over.
    Ended,
    /// The daemon broke off.
    Broken,
}

/// A container that runs.
struct Running {
    host: usize,
    container: String,
    ended: BoxStream<'static, Result<ContainerWaitResponse, Error>>,
    frames: Option<Frames>,
    /// When its log is asked for again.
    reopen: Option<Instant>,
}

/// What is new of a container, by its place among those that run.
enum News {
    Frame(usize, Option<Result<LogOutput, Error>>),
    Ended(usize, Option<Result<ContainerWaitResponse, Error>>),
}

impl Attempt<'_> {
    /// Takes logs and keeps times until a container is over or the daemon breaks off.
    pub(super) async fn watch(&mut self) -> io::Result<Watched> {
        let Ok(docker) = self.docker().await else { return Ok(Watched::Broken) };
        let mut running = self.running(&docker);
        let mut first = 0;
        let mut saving = None;
        let mut looking: Option<BoxFuture<'static, Vec<(usize, u64)>>> = None;
        let mut looked_at = Instant::now();
        let mut streaming = self.streaming(&docker);
        let mut silent = has_fallen_silent(docker.clone(), self.plan.patience()).boxed();
        loop {
            let reopen = running.iter().filter_map(|of| of.reopen).min();
            let save = (saving.is_none() && self.plan.checkpoints.is_some()).then_some(self.next_save);
            let may_look = looking.is_none() && self.plan.disk.is_some() && self.stopping.is_none();
            let look = may_look.then_some(self.next_look);
            let wake = self.next_wake().into_iter().chain(reopen).chain(save).chain(look).min();
            tokio::select! {
                news = std::future::poll_fn(|context| poll_news(&mut running, first, context)) => match news {
                    News::Frame(at, frame) => {
                        // Nobody's flood keeps the others' lines waiting.
                        first = (at + 1) % running.len();
                        self.take_frame(&mut running[at], frame)?;
                    }
                    News::Ended(at, Some(Ok(_) | Err(Error::DockerContainerWaitError { .. }))) => {
                        let over = running.swap_remove(at);
                        if let Some(frames) = over.frames {
                            self.drain(over.host, frames, DRAIN_PATIENCE).await?;
                        }
                        return Ok(Watched::Ended);
                    }
                    News::Ended(..) => return Ok(Watched::Broken),
                },
                () = &mut silent => return Ok(Watched::Broken),
                (host, cause) = done_of(&mut streaming) => {
                    streaming = None;
                    self.give_up_streams(host, cause).await?;
                }
                requested = self.control.readable() => {
                    requested?;
                    self.take_requests().await?;
                }
                () = done_of(&mut saving) => {
                    let took = self.next_save.elapsed();
                    saving = None;
                    self.next_save = Instant::now() + (took * REST).max(Duration::from_millis(self.plan.save_every_ms));
                }
                sizes = done_of(&mut looking) => {
                    looking = None;
                    let now = Instant::now();
                    self.next_look = (now + (now - looked_at) * REST).max(looked_at + LOOK_EVERY);
                    self.judge_disk(&sizes).await?;
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if look.is_some_and(|look| look <= now) {
                        looked_at = now;
                        looking = Some(self.disk_look(docker.clone()));
                    }
                    if save.is_some_and(|save| save <= now) {
                        saving = Some(save_checkpoints(docker.clone(), self.plan.clone()).boxed());
                    }
                    for of in running.iter_mut().filter(|of| of.reopen.is_some_and(|reopen| reopen <= now)) {
                        of.reopen = None;
                        of.frames = Some(self.follower.frames(of.host, &docker, &of.container, true));
                    }
                    self.keep_times().await?;
                }
            }
        }
    }

    fn running(&mut self, docker: &bollard::Docker) -> Vec<Running> {
        let mut running = Vec::new();
        for (host, of) in self.hosts.iter().enumerate().filter(|(_, of)| of.over.is_none()) {
            let not_running = WaitContainerOptions { condition: "not-running".to_owned() };
            running.push(Running {
                host,
                container: of.container.clone(),
                ended: docker.wait_container(&of.container, Some(not_running)).boxed(),
                frames: Some(self.follower.frames(host, docker, &of.container, true)),
                reopen: None,
            });
        }
        running
    }

    fn take_frame(&mut self, of: &mut Running, frame: Option<Result<LogOutput, Error>>) -> io::Result<()> {
        let more = match (frame, &mut of.frames) {
            (Some(Ok(frame)), Some(frames)) => self.follower.take(of.host, frame, frames, self.clock.now())?,
            _ => Next::TheRest,
        };
        if more != Next::More {
            of.frames = None;
            // It ends with the container; where that goes on, there is more to come.
            of.reopen = Some(Instant::now() + REOPEN);
        }
        Ok(())
    }

    /// Takes what is left of the log of a container that is over; none where nothing comes for so long.
    async fn drain(&mut self, host: usize, mut frames: Frames, patience: Duration) -> io::Result<Option<Next>> {
        loop {
            let next = match tokio::time::timeout(patience, frames.next()).await {
                Ok(Some(Ok(frame))) => self.follower.take(host, frame, &mut frames, self.clock.now())?,
                Ok(None) => Next::Nothing,
                // An answer that there is no such log is one.
                Ok(Some(Err(error))) if daemon::status(&error).is_some() => Next::Nothing,
                Ok(Some(Err(_))) => Next::TheRest,
                Err(_) => return Ok(None),
            };
            if next != Next::More {
                return Ok(Some(next));
            }
        }
    }

    /// Takes all that the daemon keeps of the log of a container that is over, however often it breaks off. False where it
    /// was out of reach for as long as patience lasts.
    pub(super) async fn take_the_rest(&mut self, host: usize) -> io::Result<bool> {
        let (container, patience) = (self.hosts[host].container.clone(), self.plan.patience());
        let mut until = Instant::now() + patience;
        loop {
            let before = self.follower.taken();
            if let Ok(docker) = self.docker().await {
                let frames = self.follower.frames(host, &docker, &container, false);
                match self.drain(host, frames, patience).await? {
                    Some(Next::Nothing) => return Ok(true),
                    Some(Next::Others) => continue,
                    Some(Next::More | Next::TheRest) => {}
                    None => {
                        let remark = format!("{}the end of the log was not to be had from the daemon", self.who(host));
                        self.follower.remark(&remark, self.clock.now())?;
                        return Ok(true);
                    }
                }
            }
            let now = Instant::now();
            if self.follower.taken() > before {
                until = now + patience;
            } else if now >= until {
                return Ok(false);
            }
            self.docker = None;
            tokio::time::sleep(REOPEN).await;
        }
    }
}

/// The next news of any of them, looked for from one of them on.
fn poll_news(running: &mut [Running], first: usize, context: &mut Context<'_>) -> Poll<News> {
    for nth in 0..running.len() {
        let at = (first + nth) % running.len();
        let of = &mut running[at];
        if let Some(frames) = &mut of.frames
            && let Poll::Ready(frame) = frames.poll_next_unpin(context)
        {
            return Poll::Ready(News::Frame(at, frame));
        }
        if let Poll::Ready(ended) = of.ended.poll_next_unpin(context) {
            return Poll::Ready(News::Ended(at, ended));
        }
    }
    Poll::Pending
}

/// Saves what there is while the program goes on: its machine may be lost.
async fn save_checkpoints(docker: bollard::Docker, plan: Plan) {
    // The end saves them again, and tells.
    let _ = ending::save_checkpoints(&docker, &plan, Known::ByTime).await;
}

async fn done_of<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// Returns once the daemon has not answered for so long: one that breaks off is seen by its connections, one that stands
/// still or whose machine is gone is not.
async fn has_fallen_silent(docker: bollard::Docker, patience: Duration) {
    while tokio::time::timeout(patience, docker.ping()).await.is_ok() {
        tokio::time::sleep(PING_EVERY.min(patience)).await;
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
