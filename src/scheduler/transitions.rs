//! `SecondaryStatusTransitions` as the service shows them.
//!
//! Invariant: each entry but the last has an end, which is the next one's start; a status is not entered twice in a row.

use crate::domain::status::{SecondaryStatus, Transition};
use crate::domain::time::Timestamp;
use crate::store::rows::TrainingJob;

/// Enters a secondary status, with the service's message and what there is to add.
pub fn enter(job: &mut TrainingJob, status: SecondaryStatus, at: Timestamp, remark: Option<&str>) {
    if job.transitions.last().is_some_and(|last| last.status == status) {
        return;
    }
    let at = job.transitions.last().map_or(at, |last| last.start.max(at));
    if let Some(last) = job.transitions.last_mut() {
        last.end = Some(at);
    }
    let message = match remark {
        Some(remark) => format!("{}. {remark}", message(status)),
        None => message(status).to_owned(),
    };
    job.transitions.push(Transition { status, start: at, end: None, message });
    job.secondary = status;
}

/// Notes that an attempt was prepared and began to train.
pub fn began(job: &mut TrainingJob, prepared_at: Option<Timestamp>, started_at: Option<Timestamp>) {
    let stopping = job.secondary == SecondaryStatus::Stopping;
    if let Some(at) = prepared_at
        && !stopping
        && job.secondary != SecondaryStatus::Training
    {
        enter(job, SecondaryStatus::Starting, at, None);
        enter(job, SecondaryStatus::Downloading, at, None);
    }
    if let Some(at) = started_at {
        job.started_at = job.started_at.or(Some(at));
        if !stopping {
            enter(job, SecondaryStatus::Training, at, None);
        }
    }
}

fn message(status: SecondaryStatus) -> &'static str {
    match status {
        SecondaryStatus::Pending => "Waiting for a free slot",
        SecondaryStatus::Starting => "Preparing the training job",
        SecondaryStatus::Downloading => "Downloading input data",
        SecondaryStatus::Training => "Training in progress",
        SecondaryStatus::Uploading => "Uploading generated training model",
        SecondaryStatus::Stopping => "Stopping the training job",
        SecondaryStatus::Stopped => "Training job stopped",
        SecondaryStatus::MaxRuntimeExceeded => "Training job runtime exceeded MaxRuntimeInSeconds",
        SecondaryStatus::Completed => "Training job completed",
        SecondaryStatus::Failed => "Training job failed",
        SecondaryStatus::Restarting => "Restarting after an infrastructure fault",
        other => other.as_str(),
    }
}
