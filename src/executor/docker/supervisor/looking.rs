//! What the daemon says of an attempt's containers, and what an end of one means for the others.
//!
//! Invariant: why a container ended is told once its log is taken. The first that failed decides, by the daemon's clock
//! where several ended, and what it decides is kept before the others are told. The exit record is left to the loop of
//! `supervisor`.

use std::io;
use std::time::Duration;

use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::InspectContainerOptions;
use tokio::time::Instant;

use super::{Attempt, Over, Stopping};
use crate::domain::outcome::{Exit, ExitCause};
use crate::executor::docker::daemon::{self, Error, Patience};
use crate::executor::docker::ending::{self, End};
use crate::executor::docker::stamp::Stamp;

/// What is told of a container that is there no more.
pub(super) const GONE: &str = "the container is gone: something else removed it";

/// How long a container takes to go once it is killed, if that is what is meant.
const REMOVAL: Duration = Duration::from_millis(500);

/// Between tries to reach the daemon.
const RETRY: Duration = Duration::from_millis(250);

/// What the daemon says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Missing,
    Created,
    Running,
    Over(End),
}

impl Attempt<'_> {
    /// Looks at all of them, and again until the daemon answers, for as long as patience lasts.
    pub(super) async fn look_for_them(&mut self) -> Result<Vec<Seen>, Error> {
        let until = Instant::now() + Duration::from_millis(self.plan.patience_ms);
        loop {
            match self.look_at_all().await {
                Err(error) if Instant::now() >= until => return Err(error),
                Err(error) => {
                    if !daemon::is_unreadable(&error) {
                        self.broken = true;
                        self.docker = None;
                    }
                    tokio::time::sleep(RETRY).await;
                }
                seen => return seen,
            }
        }
    }

    /// Whether none of them has ended that is not known to have.
    pub(super) fn go_on(&self, seen: &[Seen]) -> bool {
        let mut unknown = self.hosts.iter().zip(seen).filter(|(host, _)| host.over.is_none());
        unknown.all(|(_, seen)| matches!(seen, Seen::Running | Seen::Created))
    }

    async fn look_at_all(&mut self) -> Result<Vec<Seen>, Error> {
        let mut all = Vec::with_capacity(self.hosts.len());
        for host in 0..self.hosts.len() {
            all.push(self.look(host).await?);
        }
        Ok(all)
    }

    async fn look(&mut self, host: usize) -> Result<Seen, Error> {
        let docker = self.docker().await?;
        let inspecting = docker.inspect_container(&self.hosts[host].container, None::<InspectContainerOptions>);
        let inspected = tokio::time::timeout(self.plan.patience(), inspecting).await;
        let Some(container) = daemon::there(inspected.unwrap_or(Err(Error::RequestTimeoutError)))? else {
            return Ok(Seen::Missing);
        };
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
            finished,
            ran_ms: finished.map(|finished| finished.since_ms(started)),
            unwatched: false,
            broken: false,
        }))
    }

    pub(super) async fn docker(&mut self) -> Result<bollard::Docker, Error> {
        if let Some(docker) = &self.docker {
            return Ok(docker.clone());
        }
        let docker = daemon::connect(&self.plan.address, Patience::Ordinary).await?;
        self.docker = Some(docker.clone());
        Ok(docker)
    }

    /// Takes note of the hosts that have ended, the first one first. One that has failed begins the end of the others,
    /// where nothing else has. An error is the attempt's end.
    pub(super) async fn judge(&mut self, seen: &[Seen]) -> io::Result<Result<(), Exit>> {
        let ended = |(host, seen): (usize, &Seen)| match seen {
            Seen::Over(end) if self.hosts[host].over.is_none() => Some((host, *end)),
            _ => None,
        };
        let mut ended: Vec<(usize, End)> = seen.iter().enumerate().filter_map(ended).collect();
        ended.sort_by_key(|(_, end)| end.finished);
        for (host, end) in ended {
            let end = End { unwatched: !self.hosts[host].watched, broken: self.broken, ..end };
            let Some(cause) = self.cause_of(host, end).await? else {
                return self.lost_with_all(host).await.map(Err);
            };
            self.hosts[host].over = Some(Over { ran_ms: end.ran_ms, unwatched: end.unwatched });
            if self.stopping.is_none() && cause != (ExitCause::Exited { code: 0 }) {
                self.end_others(host, cause).await?;
            }
        }
        Ok(Ok(()))
    }

    /// Why a host ended, once its log is taken; none where it is gone.
    async fn cause_of(&mut self, host: usize, mut end: End) -> io::Result<Option<ExitCause>> {
        let container = self.hosts[host].container.clone();
        // What the daemon had not handed over when it said that the container is over.
        let taken = self.take_the_rest(host).await?;
        let (true, Ok(docker)) = (taken, self.docker().await) else {
            let message = "the Docker daemon was out of reach when the container was over".to_owned();
            return Ok(Some(ExitCause::Infrastructure { message }));
        };
        let live_restore = docker.info().await.is_ok_and(|info| info.live_restore_enabled == Some(true));
        let cause = end.cause(self.plan.memory, live_restore);
        if self.stopping.is_none()
            && !matches!(cause, ExitCause::Infrastructure { .. })
            && let Some(unstreamed) = self.unstreamed(&docker, host, end.finished).await
        {
            return Ok(Some(unstreamed));
        }
        if self.stopping.is_some() || cause != (ExitCause::Signaled { signal: 9 }) {
            return Ok(Some(cause));
        }
        // Whoever removes a container kills it first.
        tokio::time::sleep(REMOVAL).await;
        if matches!(self.look(host).await, Ok(Seen::Missing)) {
            return Ok(None);
        }
        end.out_of_memory = ending::ran_out_of_memory(&docker, &container, self.clock.now()).await;
        Ok(Some(end.cause(self.plan.memory, live_restore)))
    }

    /// What a host's failure decides is kept before the others are told.
    async fn end_others(&mut self, host: usize, cause: ExitCause) -> io::Result<()> {
        let begun_at = self.clock.now();
        let stopping = Stopping { cause, begun_at, host: Some(host) };
        if self.hosts.len() == 1 {
            self.stopping = Some((stopping, Instant::now()));
            return Ok(());
        }
        let remark = format!("{}it has failed: SIGTERM sent to the others", self.who(host));
        self.begin_stopping(stopping, &remark, self.plan.stop_grace_ms)?;
        self.signal("SIGTERM").await;
        Ok(())
    }
}
