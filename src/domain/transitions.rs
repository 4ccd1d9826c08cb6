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

/// Enters that a job was prepared and began to train, as far as that is not shown yet, and gives the status that is shown
/// last then. A job that was asked to stop before it could be shown goes on showing that, after what was.
pub fn began(
    transitions: &mut Vec<Transition>,
    prepared_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
) -> Option<SecondaryStatus> {
    use SecondaryStatus::{Downloading, Starting, Stopping, Training, Uploading};
    if transitions.last().is_some_and(|last| last.status == Uploading) {
        return Some(Uploading);
    }
    let stopping = transitions.pop_if(|last| last.status == Stopping);
    let before_stop = |at: Timestamp| stopping.as_ref().map_or(at, |stopping| at.min(stopping.start));
    let prepared = transitions.last().is_some_and(|last| matches!(last.status, Downloading | Training));
    // Preparation that began after the stop came to nothing, unless the program was started all the same.
    let in_time = |at: Timestamp| started_at.is_some() || before_stop(at) == at;
    if let Some(at) = prepared_at.filter(|at| !prepared && in_time(*at)) {
        enter(transitions, Starting, before_stop(at), None);
        enter(transitions, Downloading, before_stop(at), None);
    }
    if let Some(at) = started_at {
        enter(transitions, Training, before_stop(at), None);
    }
    if let Some(stopping) = stopping {
        if let Some(last) = transitions.last_mut() {
            last.end = Some(stopping.start);
        }
        transitions.push(stopping);
    }
    transitions.last().map(|last| last.status)
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

#[cfg(test)]
mod tests {
    use super::*;
    use SecondaryStatus::{Downloading, Pending, Starting, Stopping, Training};

    fn stopped(at: i64) -> Vec<Transition> {
        let mut transitions = Vec::new();
        enter(&mut transitions, Pending, Timestamp(10), None);
        enter(&mut transitions, Stopping, Timestamp(at), None);
        transitions
    }

    fn shown(transitions: &[Transition]) -> Vec<(SecondaryStatus, i64, Option<i64>)> {
        transitions.iter().map(|t| (t.status, t.start.0, t.end.map(|end| end.0))).collect()
    }

    #[test]
    fn what_was_before_a_stop_is_shown_before_it() {
        let (prepared, started) = (Some(Timestamp(20)), Some(Timestamp(30)));
        let mut ran = stopped(50);
        assert_eq!(began(&mut ran, prepared, started), Some(Stopping));
        let all = [
            (Pending, 10, Some(20)),
            (Starting, 20, Some(20)),
            (Downloading, 20, Some(30)),
            (Training, 30, Some(50)),
            (Stopping, 50, None),
        ];
        assert_eq!(shown(&ran), all);
        began(&mut ran, prepared, started);
        assert_eq!(shown(&ran), all, "told twice is told once");
    }

    #[test]
    fn a_program_that_was_on_its_way_when_it_was_stopped_is_shown() {
        let mut late = stopped(25);
        began(&mut late, Some(Timestamp(20)), Some(Timestamp(30)));
        let statuses: Vec<_> = late.iter().map(|t| t.status).collect();
        assert_eq!(statuses, [Pending, Starting, Downloading, Training, Stopping]);
        assert!(late.is_sorted_by_key(|t| t.start));
    }

    #[test]
    fn what_was_stopped_before_it_began_never_began() {
        let mut waited = stopped(15);
        assert_eq!(began(&mut waited, Some(Timestamp(20)), None), Some(Stopping));
        assert_eq!(shown(&waited), [(Pending, 10, Some(15)), (Stopping, 15, None)]);
    }
}
