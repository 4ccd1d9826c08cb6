//! `tunesmith serve`: a server until a signal.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::say::say;
use super::server::Server;
use crate::config::{Loaded, Settings};

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once.
pub(super) async fn run(loaded: &Loaded) -> anyhow::Result<()> {
    let settings = &loaded.settings;
    // Before anything is opened, so that no signal finds the default behaviour.
    let mut signals = Signals::new()?;
    let server = tokio::select! {
        started = Server::start(settings, loaded.file.as_deref()) => started?,
        () = signals.next() => return Ok(()),
    };
    announce(server.address(), settings);
    for warning in server.warnings() {
        tracing::warn!("{warning}");
    }
    signals.next().await;
    tracing::info!(
        "draining: not ready any more; training goes on and the next server takes it up. Again to end at once"
    );
    tokio::select! {
        drained = server.drain() => drained,
        () = signals.next() => Err(anyhow::anyhow!("ended before the drain was over")),
    }
}

/// SIGTERM and SIGINT as one stream, and SIGHUP where a terminal that goes away is to end the command in order.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("can't listen for signals");
        Ok(Self { terminate: take(SignalKind::terminate())?, interrupt: take(SignalKind::interrupt())?, hangup: None })
    }

    pub(super) fn with_hangup() -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("can't listen for signals")?;
        Ok(Self { hangup: Some(hangup), ..Self::new()? })
    }

    /// Returns at the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            Some(()) = async { self.hangup.as_mut()?.recv().await } => {}
        }
    }
}

fn announce(address: SocketAddr, settings: &Settings) {
    let (url, region) = (format!("http://{address}"), &settings.region);
    say(format_args!("tunesmith listens on {url}"));
    say(format_args!("  data     {}", settings.data_dir.display()));
    say(format_args!("  database {}", settings.database_url));
    say(format_args!(
        "  aws CLI  aws sagemaker list-hyper-parameter-tuning-jobs --endpoint-url {url} --region {region}"
    ));
    say(format_args!("  boto3    boto3.client(\"sagemaker\", endpoint_url=\"{url}\", region_name=\"{region}\")"));
    say(format_args!("  or       export AWS_ENDPOINT_URL_SAGEMAKER={url}"));
    say(format_args!("Clients sign with any credentials, such as AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any."));
}
