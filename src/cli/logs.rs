//! `tunesmith logs`: a training job's log, from the server.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::config::{Environment, Flags, Loaded};

/// How long `-f` waits where there is nothing new.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `tunesmith logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The training job's name.
    job: String,
    /// Go on until the job is over.
    #[arg(short, long)]
    follow: bool,
    /// Where the server is; by default `AWS_ENDPOINT_URL_SAGEMAKER`, else the configured address.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// Copies the log to standard output.
pub(super) fn run(arguments: &LogsArgs) -> anyhow::Result<()> {
    // What is not a name can't be a part of the path either.
    if arguments.job.is_empty() || !arguments.job.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        bail!("{} is not a training job's name: letters, digits and `-`", arguments.job);
    }
    let endpoint = endpoint(arguments)?;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut offset = 0_u64;
    loop {
        let url = format!("{endpoint}/v1/training-jobs/{}/log?offset={offset}", arguments.job);
        let mut response = agent.get(&url).call().with_context(|| format!("can't reach {endpoint}"))?;
        let body = response.body_mut().read_to_vec().context("the server's answer broke off")?;
        if !response.status().is_success() {
            bail!("the server answered {}: {}", response.status(), message(&body));
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let next: u64 = header("x-tunesmith-next-offset")
            .and_then(|text| text.parse().ok())
            .context("the answer has no x-tunesmith-next-offset: is this a Tunesmith server?")?;
        let end = header("x-tunesmith-end") == Some("true");
        let mut out = std::io::stdout().lock();
        match out.write_all(&body).and_then(|()| out.flush()) {
            // `tunesmith logs JOB | head` is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("can't write the log")?,
        }
        let caught_up = next == offset;
        if end || (caught_up && !arguments.follow) {
            return Ok(());
        }
        offset = next;
        if caught_up {
            std::thread::sleep(POLL_EVERY);
        }
    }
}

fn endpoint(arguments: &LogsArgs) -> anyhow::Result<String> {
    let environment = Environment::of_process();
    let given = arguments.endpoint_url.clone();
    let variable = || environment.get("AWS_ENDPOINT_URL_SAGEMAKER").and_then(|value| value.to_str().map(str::to_owned));
    let url = match given.or_else(variable) {
        Some(url) => url,
        None => format!("http://{}", Loaded::load(&Flags::default(), &environment)?.settings.listen),
    };
    Ok(url.trim_end_matches('/').to_owned())
}

/// The text of an error answer, or its beginning.
fn message(body: &[u8]) -> String {
    let member = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("message").or_else(|| value.get("Message"))?.as_str().map(str::to_owned));
    member.unwrap_or_else(|| String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned())
}
