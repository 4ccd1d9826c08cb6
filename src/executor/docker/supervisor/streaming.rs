//! The helpers that stream channels into an attempt's containers.
//!
//! Invariant: a container is started once the first pipes of its helper are there, and its helper runs for as long as
//! it does: where the helper has failed or is gone, the program is ended before it can take a part of the data for the
//! whole, and one that was quicker than that has not ended well. Helpers end with their attempt.

use std::time::{Duration, Instant};

use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions, LogsOptions};
use futures_util::future::{BoxFuture, join_all, select_all};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

use super::{Attempt, Stopping};
use crate::domain::outcome::ExitCause;
use crate::executor::docker::daemon::{self, Error};
use crate::executor::docker::stamp::Stamp;
use crate::executor::docker::streams;
use crate::executor::pipe::told;

/// Between tries to hear from a helper that runs.
const AGAIN: Duration = Duration::from_millis(250);

/// What to look at where a helper cannot do its work.
const OF_THIS_VERSION: &str = "is docker.helper_image Tunesmith's own image, of this version?";

/// How long the daemon may take to end the helpers: the server removes them anyway.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How a helper stands.
enum Standing {
    /// Never started.
    New,
    Running,
    /// It is gone, or has ended; in words, and when by the daemon's clock.
    Over(String, Option<Stamp>),
}

impl Attempt<'_> {
    /// Starts the helpers that were never started, and waits until the first pipes of all of them are there, or the
    /// attempt is to stop. An error is the attempt's end; none where the daemon did not answer.
    pub(super) async fn start_streams(&self, docker: &bollard::Docker) -> Result<(), Option<ExitCause>> {
        if self.plan.helpers.is_empty() {
            return Ok(());
        }
        let starting = join_all(self.plan.helpers.iter().map(async |helper| {
            let ready = tokio::time::timeout(self.plan.patience(), start(docker, helper)).await;
            ready.unwrap_or_else(|_| Err(Some(fault(&format!("did not make its pipes in time: {OF_THIS_VERSION}")))))
        }));
        tokio::select! {
            started = starting => started.into_iter().collect(),
            () = self.until_stopped() => Err(Some(ExitCause::Stopped)),
        }
    }

    async fn until_stopped(&self) {
        while !self.folder.stop_marker().exists() {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What comes to an end once a helper has failed whose container runs, with which host's that is and why; none
    /// where nothing is streamed.
    pub(super) fn streaming(&self, docker: &bollard::Docker) -> Option<BoxFuture<'static, (usize, ExitCause)>> {
        let running =
            self.hosts.iter().zip(&self.plan.helpers).enumerate().filter(|(_, (host, _))| host.over.is_none());
        let failures: Vec<_> = running
            .map(|(at, (_, helper))| failure(docker.clone(), helper.clone()).map(move |cause| (at, cause)).boxed())
            .collect();
        (!failures.is_empty()).then(|| select_all(failures).map(|(first, ..)| first).boxed())
    }

    /// What has failed while streaming ends the attempt, without grace: its programs wait for data that will not come.
    pub(super) async fn give_up_streams(&mut self, host: usize, cause: ExitCause) -> std::io::Result<()> {
        if self.stopping.is_some() {
            return Ok(());
        }
        let (ExitCause::InputRefused { message } | ExitCause::Infrastructure { message }) = &cause else {
            return Ok(());
        };
        let remark = format!("{}{message}: SIGKILL sent", self.who(host));
        let stopping = Stopping { cause, begun_at: self.clock.now(), host: Some(host) };
        self.begin_stopping(stopping, &remark, 0)?;
        self.signal("SIGKILL").await;
        Ok(())
    }

    /// Why a container that has ended by itself, and when, may have missed a part of its data; none where its helper
    /// still runs or ended later, or there is none.
    pub(super) async fn unstreamed(
        &self,
        docker: &bollard::Docker,
        host: usize,
        finished: Option<Stamp>,
    ) -> Option<ExitCause> {
        let helper = self.plan.helpers.get(host)?;
        let until = Instant::now() + self.plan.patience();
        loop {
            return match standing(docker, helper).await {
                Ok(Standing::Running) => None,
                Ok(Standing::New) => Some(fault("was never started")),
                Ok(Standing::Over(_, ended)) if ended.is_some() && ended >= finished => None,
                Ok(Standing::Over(how, _)) => Some(fault(&how)),
                Err(_) if Instant::now() < until => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => Some(fault(&format!("could not be looked at: {}", daemon::message(&error)))),
            };
        }
    }

    /// Ends the helpers, once the attempt's end is on record: before that it would look as if they had ended too early.
    /// What the daemon does not do now is the server's, which removes them with the attempt.
    pub(super) async fn end_streams(&mut self) {
        if self.plan.helpers.is_empty() {
            return;
        }
        let ending = async {
            let Ok(docker) = self.docker().await else { return };
            let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
            join_all(self.plan.helpers.iter().map(|helper| docker.kill_container(helper, Some(options.clone())))).await;
        };
        let _ = tokio::time::timeout(END_PATIENCE, ending).await;
    }
}

fn fault(what: &str) -> ExitCause {
    ExitCause::Infrastructure { message: format!("the helper that streams the channels {what}") }
}

/// Starts a helper that was never started, and returns once its first pipes are there. One that has run before is not
/// started again: it would begin anew, and what reads its pipes has seen them end.
async fn start(docker: &bollard::Docker, helper: &str) -> Result<(), Option<ExitCause>> {
    match standing(docker, helper).await {
        Ok(Standing::Running) => {}
        Ok(Standing::Over(how, _)) => return Err(Some(fault(&how))),
        Err(_) => return Err(None),
        Ok(Standing::New) => match docker.start_container(helper, None).await {
            Err(error) if daemon::status(&error).is_some_and(|status| status != 304) => {
                let why = daemon::message(&error);
                return Err(Some(fault(&format!("could not be started: {why}: {OF_THIS_VERSION}"))));
            }
            Err(error) if daemon::status(&error).is_none() => return Err(None),
            _ => {}
        },
    }
    wait_until_ready(docker, helper).await
}

/// Returns once the first pipes are there; an error where the helper says otherwise, or ends.
async fn wait_until_ready(docker: &bollard::Docker, helper: &str) -> Result<(), Option<ExitCause>> {
    loop {
        let mut last = Vec::new();
        let mut lines = Lines::of(docker, helper, true);
        while let Some(line) = lines.next().await {
            if streams::is_ready(&line) {
                return Ok(());
            }
            last = line;
        }
        match standing(docker, helper).await {
            Ok(Standing::Over(how, _)) => {
                let last = String::from_utf8_lossy(&last).into_owned();
                return Err(Some(fault(&format!("{how}, saying {last:?}: {OF_THIS_VERSION}"))));
            }
            Ok(Standing::Running | Standing::New) => tokio::time::sleep(AGAIN).await,
            Err(_) => return Err(None),
        }
    }
}

/// Returns once a helper has told of what it cannot stream, or runs no more.
async fn failure(docker: bollard::Docker, helper: String) -> ExitCause {
    loop {
        // What it tells is on its standard output alone.
        let mut lines = Lines::of(&docker, &helper, false);
        while let Some(line) = lines.next().await {
            if let Some(cause) = told::cause(&line) {
                return cause;
            }
        }
        // They end with the helper, and with the connection to its daemon: that is for others to see.
        if let Ok(Standing::Over(how, _)) = standing(&docker, &helper).await {
            return fault(&how);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn standing(docker: &bollard::Docker, helper: &str) -> Result<Standing, Error> {
    let inspected = daemon::there(docker.inspect_container(helper, None::<InspectContainerOptions>).await)?;
    let Some(container) = inspected else {
        return Ok(Standing::Over("is gone: something else removed it".to_owned(), None));
    };
    let state = container.state.unwrap_or_default();
    if state.running == Some(true) {
        return Ok(Standing::Running);
    }
    if state.started_at.as_deref().and_then(Stamp::parse).is_none() {
        return Ok(Standing::New);
    }
    let how = match (state.oom_killed, state.exit_code.unwrap_or(-1)) {
        (Some(true), _) => "ran out of memory".to_owned(),
        (_, code) => format!("was ended from outside (exit code {code})"),
    };
    Ok(Standing::Over(how, state.finished_at.as_deref().and_then(Stamp::parse)))
}

/// What a helper says, line by line, from its start on.
struct Lines {
    frames: BoxStream<'static, Result<bollard::container::LogOutput, Error>>,
    said: Vec<u8>,
}

impl Lines {
    fn of(docker: &bollard::Docker, helper: &str, stderr: bool) -> Self {
        let options = LogsOptions { follow: true, stdout: true, stderr, ..LogsOptions::default() };
        Self { frames: docker.logs(helper, Some(options)).boxed(), said: Vec::new() }
    }

    /// None once there are no more, for whatever reason.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.said.iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let rest = self.said.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.said, rest);
                line.pop();
                return Some(line);
            }
            // No line of a helper is longer.
            if self.said.len() > told::MOST_BYTES {
                return Some(std::mem::take(&mut self.said));
            }
            match self.frames.next().await {
                Some(Ok(frame)) => self.said.extend_from_slice(frame.as_ref()),
                _ => return None,
            }
        }
    }
}
