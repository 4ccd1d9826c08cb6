//! `tunesmith interrupt`: takes a training job's capacity away, as a spot interruption does, to see that it goes on.
//!
//! Invariant: it asks the server and says what that answered; what an interruption is belongs to the server.

use anyhow::{Context, bail};
use clap::Args;

use super::logs::{agent, endpoint, message, region};
use crate::config::Environment;

/// Arguments of `tunesmith interrupt`.
#[derive(Debug, Args)]
pub(super) struct InterruptArgs {
    /// The training job's name; it was created with `EnableManagedSpotTraining`.
    job: String,
    /// The job's region; by default `AWS_REGION`, else `AWS_DEFAULT_REGION`, else the server's.
    #[arg(long)]
    region: Option<String>,
    /// Where the server is; by default `AWS_ENDPOINT_URL_SAGEMAKER`, else the configured address.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// Asks for the interruption.
pub(super) fn run(arguments: &InterruptArgs) -> anyhow::Result<()> {
    let environment = Environment::of_process();
    let region = region(&arguments.job, arguments.region.as_deref(), &environment)?;
    let query = region.map(|region| format!("?region={region}")).unwrap_or_default();
    let endpoint = endpoint(arguments.endpoint_url.as_deref(), &environment)?;
    let agent = agent(&endpoint);
    let url = format!("{endpoint}/v1/training-jobs/{}/interrupt{query}", arguments.job);
    let mut response = agent.post(&url).send_empty().with_context(|| format!("can't reach {endpoint}"))?;
    let body = response.body_mut().read_to_vec().context("the server's answer broke off")?;
    if !response.status().is_success() {
        bail!("the server answered {}: {}", response.status(), message(&body));
    }
    Ok(())
}
