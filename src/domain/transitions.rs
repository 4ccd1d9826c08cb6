//! `SecondaryStatusTransitions` as the service shows them.
//!
//! Invariant: each entry but the last has an end, which is the next one's start; a status is not entered twice in a row.

use crate::domain::status::{SecondaryStatus, Transition};
use crate::domain::time::Timestamp;

/// Enters a secondary status, with the service's message and what there is to add.
pub fn enter(transitions: &mut Vec<Transition>, status: SecondaryStatus, at: Timestamp, remark: Option<&str>) {
    if transitions.last().is_some_and(|last| last.status == status) {
        return;
    }
    let at = transitions.last().map_or(at, |last| last.start.max(at));
    if let Some(last) = transitions.last_mut() {
        last.end = Some(at);
    }
    let message = match remark {
        Some(remark) => format!("{}. {remark}", message(status)),
        None => message(status).to_owned(),
    };
    transitions.push(Transition { status, start: at, end: None, message });
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
        SecondaryStatus::MaxWaitTimeExceeded => "Training job exceeded MaxWaitTimeInSeconds",
        SecondaryStatus::Interrupted => "Training job interrupted; it goes on from its checkpoints",
        SecondaryStatus::Restarting => "Restarting after an infrastructure fault",
        other => other.as_str(),
    }
}
