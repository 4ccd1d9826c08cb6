//! The two deciders: what must happen next to a tuning job and to a training job, as data.
//!
//! Invariant: level-triggered. A decision is a function of what the rows say now, so that deciding again after a crash,
//! or twice, asks for nothing new. Carrying a step out, and committing it, belongs to the scheduler.

use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::status::{SecondaryStatus, TrainingStatus, TuningStatus};
use crate::domain::time::Timestamp;

/// Failures after which a tuning job without any success gives up (the service's rule).
pub const FAILURES_BEFORE_GIVING_UP: u32 = 5;

/// `FailureReason` is at most this many characters.
pub const FAILURE_REASON_MAX_CHARS: usize = 1024;

/// What is known of a tuning job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuningView {
    /// Where it stands.
    pub status: TuningStatus,
    /// The current time.
    pub now: Timestamp,
    /// When it was created: its run time counts from here.
    pub created_at: Timestamp,
    /// Its wall-clock budget.
    pub max_runtime_ms: Option<i64>,
    /// Its budget of training jobs.
    pub max_jobs: u32,
    /// Its slots.
    pub max_parallel: u32,
    /// Training jobs inserted so far.
    pub inserted: u32,
    /// Training jobs that are not over; each holds a slot.
    pub live: u32,
    /// Whether any training job came to something.
    pub succeeded: bool,
    /// Training jobs that failed, for whatever reason.
    pub failed: u32,
    /// Whether the search has nothing left to suggest.
    pub exhausted: bool,
}

/// What must happen to a tuning job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TuningStep {
    /// Insert up to this many training jobs.
    Insert {
        /// At least 1.
        at_most: u32,
    },
    /// Ask every training job that is not over to stop.
    StopTrainingJobs,
    /// The tuning job is over.
    End {
        /// A terminal status.
        status: TuningStatus,
        /// Why it failed.
        reason: Option<String>,
    },
}

impl TuningView {
    fn out_of_time(&self) -> bool {
        self.max_runtime_ms.is_some_and(|budget| self.now.since_ms(self.created_at) >= budget)
    }

    fn gives_up(&self) -> bool {
        !self.succeeded && self.failed >= FAILURES_BEFORE_GIVING_UP
    }
}

/// What must happen next to a tuning job; nothing where it only waits.
#[must_use]
pub fn decide_tuning(view: &TuningView) -> Option<TuningStep> {
    if view.status.is_terminal() {
        return None;
    }
    if view.status == TuningStatus::Stopping {
        return Some(if view.live > 0 {
            TuningStep::StopTrainingJobs
        } else {
            TuningStep::End { status: TuningStatus::Stopped, reason: None }
        });
    }
    if view.out_of_time() && view.live > 0 {
        return Some(TuningStep::StopTrainingJobs);
    }
    let no_more = view.out_of_time() || view.gives_up() || view.exhausted || view.inserted >= view.max_jobs;
    if no_more {
        return (view.live == 0).then(|| end(view));
    }
    let at_most = (view.max_jobs - view.inserted).min(view.max_parallel.saturating_sub(view.live));
    (at_most > 0).then_some(TuningStep::Insert { at_most })
}

/// The end of a tuning job whose budget is used up: a failure where nothing succeeded.
fn end(view: &TuningView) -> TuningStep {
    if !view.succeeded && view.failed > 0 {
        let reason = format!(
            "No training job succeeded after {} attempts. For additional details, please take a look at the training \
             job failures by listing training jobs for the hyperparameter tuning job.",
            view.failed.min(FAILURES_BEFORE_GIVING_UP)
        );
        return TuningStep::End { status: TuningStatus::Failed, reason: Some(reason) };
    }
    TuningStep::End { status: TuningStatus::Completed, reason: None }
}

/// What is known of a training job.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingView<'a> {
    /// Where it stands.
    pub status: TrainingStatus,
    /// Whether it was asked to stop, by a user or by its tuning job.
    pub stop_requested: bool,
    /// Its latest attempt.
    pub attempt: Option<AttemptView<'a>>,
    /// How many attempts it may have: 1, what `RetryStrategy` adds, and one for each interruption that was.
    pub max_attempts: u32,
    /// Whether it may be interrupted: an attempt that was stopped while nobody asked the training job to stop was.
    pub spot: bool,
    /// Whether it has taken as long as it may in all, waiting included.
    pub waited_out: bool,
}

/// What is known of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttemptView<'a> {
    /// 1-based.
    pub number: u32,
    /// Whether its executor was asked to end it.
    pub stop_requested: bool,
    /// How it ended, once it has.
    pub exit: Option<&'a Exit>,
}

/// What must happen to a training job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainingStep {
    /// Insert an attempt.
    InsertAttempt {
        /// Its number.
        number: u32,
        /// The secondary status that says why there is a further one; none of the first.
        after: Option<SecondaryStatus>,
    },
    /// Ask the attempt's executor to end it.
    StopAttempt,
    /// The training job is over.
    End(Ending),
}

/// How a training job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// A terminal status.
    pub status: TrainingStatus,
    /// The matching secondary status.
    pub secondary: SecondaryStatus,
    /// Which counter of the tuning job it falls under.
    pub counted_as: CountedAs,
    /// `FailureReason`.
    pub reason: Option<String>,
}

/// The counters of `TrainingJobStatusCounters` that a training job can end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedAs {
    /// `Completed`.
    Completed,
    /// `Stopped`.
    Stopped,
    /// `RetryableError`: an infrastructure fault, out of attempts.
    RetryableError,
    /// `NonRetryableError`: the job's own fault.
    NonRetryableError,
}

/// What must happen next to a training job; nothing where it only waits.
#[must_use]
pub fn decide_training(view: &TrainingView<'_>) -> Option<TrainingStep> {
    if view.status.is_terminal() {
        return None;
    }
    let Some(attempt) = view.attempt else {
        return Some(if view.stop_requested {
            TrainingStep::End(stopped(SecondaryStatus::Stopped))
        } else {
            TrainingStep::InsertAttempt { number: 1, after: None }
        });
    };
    let Some(exit) = attempt.exit else {
        return (view.stop_requested && !attempt.stop_requested).then_some(TrainingStep::StopAttempt);
    };
    Some(match &exit.cause {
        ExitCause::Exited { code: 0 } => TrainingStep::End(Ending {
            status: TrainingStatus::Completed,
            secondary: SecondaryStatus::Completed,
            counted_as: CountedAs::Completed,
            reason: None,
        }),
        ExitCause::Stopped if view.spot && !view.stop_requested => further(view, attempt, SecondaryStatus::Interrupted),
        ExitCause::Stopped => TrainingStep::End(stopped(SecondaryStatus::Stopped)),
        ExitCause::Deadline if view.waited_out => TrainingStep::End(stopped(SecondaryStatus::MaxWaitTimeExceeded)),
        ExitCause::Deadline => TrainingStep::End(stopped(SecondaryStatus::MaxRuntimeExceeded)),
        ExitCause::Infrastructure { .. } if view.stop_requested => TrainingStep::End(stopped(SecondaryStatus::Stopped)),
        ExitCause::Infrastructure { .. } if attempt.number < view.max_attempts => {
            further(view, attempt, SecondaryStatus::Restarting)
        }
        ExitCause::Infrastructure { .. } => TrainingStep::End(failed(exit, CountedAs::RetryableError)),
        ExitCause::Exited { .. }
        | ExitCause::Signaled { .. }
        | ExitCause::StartFailed { .. }
        | ExitCause::OverLimit { .. }
        | ExitCause::InputRefused { .. }
        | ExitCause::OutputRefused { .. } => TrainingStep::End(failed(exit, CountedAs::NonRetryableError)),
    })
}

/// A further attempt, while there is time for one.
fn further(view: &TrainingView<'_>, attempt: AttemptView<'_>, after: SecondaryStatus) -> TrainingStep {
    if view.waited_out {
        return TrainingStep::End(stopped(SecondaryStatus::MaxWaitTimeExceeded));
    }
    TrainingStep::InsertAttempt { number: attempt.number + 1, after: Some(after) }
}

fn stopped(secondary: SecondaryStatus) -> Ending {
    Ending { status: TrainingStatus::Stopped, secondary, counted_as: CountedAs::Stopped, reason: None }
}

fn failed(exit: &Exit, counted_as: CountedAs) -> Ending {
    Ending {
        status: TrainingStatus::Failed,
        secondary: SecondaryStatus::Failed,
        counted_as,
        reason: Some(failure_reason(exit)),
    }
}

/// A failed attempt's `FailureReason`: the failure file if the program wrote one, else the end of its stderr, with the
/// exit code; in the service's form.
#[must_use]
pub fn failure_reason(exit: &Exit) -> String {
    let told = exit.failure.as_deref().map(str::trim).filter(|text| !text.is_empty());
    // The failure file begins with what matters; stderr ends with it.
    let (detail, keep) = told.map_or((exit.stderr_tail.trim(), Keep::End), |told| (told, Keep::Beginning));
    match &exit.cause {
        ExitCause::StartFailed { message }
        | ExitCause::OverLimit { message }
        | ExitCause::InputRefused { message }
        | ExitCause::OutputRefused { message } => clip("ClientError: ", message, "", Keep::Beginning),
        ExitCause::Infrastructure { message } => clip("InternalServerError: ", message, "", Keep::Beginning),
        ExitCause::Signaled { signal } => {
            let suffix = format!(", exit code: {} (killed by signal {signal})", 128 + signal);
            clip("AlgorithmError: ", detail, &suffix, keep)
        }
        ExitCause::Exited { code } => clip("AlgorithmError: ", detail, &format!(", exit code: {code}"), keep),
        ExitCause::Deadline | ExitCause::Stopped => String::new(),
    }
}

/// Which part of a text that is too long is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Beginning,
    End,
}

/// `prefix`, as much of `detail` as fits, `suffix`; an empty detail is said.
fn clip(prefix: &str, detail: &str, suffix: &str, keep: Keep) -> String {
    let detail =
        if detail.is_empty() { "the program wrote nothing to stderr or /opt/ml/output/failure" } else { detail };
    let room = FAILURE_REASON_MAX_CHARS.saturating_sub(prefix.chars().count() + suffix.chars().count());
    let skip = if keep == Keep::End { detail.chars().count().saturating_sub(room) } else { 0 };
    let kept: String = detail.chars().skip(skip).take(room).collect();
    format!("{prefix}{kept}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> TuningView {
        TuningView {
            status: TuningStatus::InProgress,
            now: Timestamp(1_000),
            created_at: Timestamp(0),
            max_runtime_ms: None,
            max_jobs: 10,
            max_parallel: 3,
            inserted: 0,
            live: 0,
            succeeded: false,
            failed: 0,
            exhausted: false,
        }
    }

    fn exit(cause: ExitCause) -> Exit {
        let (failure, stderr_tail) = (None, "Traceback: boom".to_owned());
        Exit { started_at: None, ended_at: Timestamp(5), cause, failure, stderr_tail, remark: None }
    }

    fn decide(exit: Option<&Exit>, stop_requested: bool, number: u32, max_attempts: u32) -> Option<TrainingStep> {
        decide_training(&TrainingView {
            status: TrainingStatus::InProgress,
            stop_requested,
            attempt: Some(AttemptView { number, stop_requested: false, exit }),
            max_attempts,
            spot: false,
            waited_out: false,
        })
    }

    #[test]
    fn inserts_up_to_slots_and_budget() {
        assert_eq!(decide_tuning(&view()), Some(TuningStep::Insert { at_most: 3 }));
        assert_eq!(decide_tuning(&TuningView { live: 3, inserted: 3, ..view() }), None);
        let nearly = TuningView { inserted: 9, live: 1, succeeded: true, ..view() };
        assert_eq!(decide_tuning(&nearly), Some(TuningStep::Insert { at_most: 1 }));
    }

    #[test]
    fn completes_when_the_budget_is_used_and_nothing_runs() {
        let used = TuningView { inserted: 10, succeeded: true, failed: 1, ..view() };
        assert_eq!(decide_tuning(&used), Some(TuningStep::End { status: TuningStatus::Completed, reason: None }));
        assert_eq!(decide_tuning(&TuningView { live: 1, ..used }), None);
    }

    #[test]
    fn gives_up_after_five_failures_without_success_once_the_running_ones_finish() {
        let failing = TuningView { inserted: 6, failed: 5, live: 1, ..view() };
        assert_eq!(decide_tuning(&failing), None);
        let Some(TuningStep::End { status, reason }) = decide_tuning(&TuningView { live: 0, ..failing.clone() }) else {
            panic!("the tuning job is over");
        };
        assert_eq!(status, TuningStatus::Failed);
        assert!(reason.unwrap().starts_with("No training job succeeded after 5 attempts."));
        let one_success = TuningView { succeeded: true, ..failing };
        assert_eq!(decide_tuning(&one_success), Some(TuningStep::Insert { at_most: 2 }));
    }

    #[test]
    fn stopping_starts_nothing_and_waits_for_the_running_ones() {
        let stopping = TuningView { status: TuningStatus::Stopping, inserted: 4, live: 2, ..view() };
        assert_eq!(decide_tuning(&stopping), Some(TuningStep::StopTrainingJobs));
        let ended = decide_tuning(&TuningView { live: 0, ..stopping });
        assert_eq!(ended, Some(TuningStep::End { status: TuningStatus::Stopped, reason: None }));
    }

    #[test]
    fn the_runtime_budget_stops_what_runs_and_completes() {
        let late = TuningView { max_runtime_ms: Some(900), inserted: 2, live: 1, succeeded: true, ..view() };
        assert_eq!(decide_tuning(&late), Some(TuningStep::StopTrainingJobs));
        let over = decide_tuning(&TuningView { live: 0, ..late });
        assert_eq!(over, Some(TuningStep::End { status: TuningStatus::Completed, reason: None }));
    }

    #[test]
    fn infrastructure_faults_are_tried_again_within_the_retry_strategy() {
        let lost = exit(ExitCause::Infrastructure { message: "the supervisor was lost".into() });
        assert_eq!(decide(Some(&lost), false, 1, 2), Some(again(SecondaryStatus::Restarting)));
        let Some(TrainingStep::End(ending)) = decide(Some(&lost), false, 2, 2) else { panic!("out of attempts") };
        assert_eq!(ending.counted_as, CountedAs::RetryableError);
        assert_eq!(ending.reason.as_deref(), Some("InternalServerError: the supervisor was lost"));
        let Some(TrainingStep::End(ending)) = decide(Some(&lost), true, 1, 2) else { panic!("stopped") };
        assert_eq!(ending.status, TrainingStatus::Stopped);
    }

    fn again(after: SecondaryStatus) -> TrainingStep {
        TrainingStep::InsertAttempt { number: 2, after: Some(after) }
    }

    #[test]
    fn an_interruption_is_a_further_attempt_while_there_is_time() {
        let (interrupted, late) = (exit(ExitCause::Stopped), exit(ExitCause::Deadline));
        let view = |exit, stop_requested, waited_out| TrainingView {
            status: TrainingStatus::InProgress,
            stop_requested,
            attempt: Some(AttemptView { number: 1, stop_requested: true, exit: Some(exit) }),
            max_attempts: 1,
            spot: true,
            waited_out,
        };
        let ended_as = |view: TrainingView<'_>| match decide_training(&view) {
            Some(TrainingStep::End(ending)) => (ending.status, ending.secondary),
            other => panic!("{other:?}"),
        };
        let stopped = |secondary| (TrainingStatus::Stopped, secondary);
        assert_eq!(decide_training(&view(&interrupted, false, false)), Some(again(SecondaryStatus::Interrupted)));
        assert_eq!(ended_as(view(&interrupted, true, false)), stopped(SecondaryStatus::Stopped), "asked to stop too");
        assert_eq!(ended_as(view(&interrupted, false, true)), stopped(SecondaryStatus::MaxWaitTimeExceeded));
        assert_eq!(ended_as(view(&late, false, true)), stopped(SecondaryStatus::MaxWaitTimeExceeded));
        assert_eq!(ended_as(view(&late, false, false)), stopped(SecondaryStatus::MaxRuntimeExceeded));
        let not_spot = TrainingView { spot: false, ..view(&interrupted, false, false) };
        assert_eq!(ended_as(not_spot), stopped(SecondaryStatus::Stopped));
    }

    #[test]
    fn the_programs_own_failure_is_never_tried_again() {
        let code = exit(ExitCause::Exited { code: 3 });
        let Some(TrainingStep::End(ending)) = decide(Some(&code), false, 1, 5) else { panic!("it failed") };
        assert_eq!(ending.counted_as, CountedAs::NonRetryableError);
        assert_eq!(ending.reason.as_deref(), Some("AlgorithmError: Traceback: boom, exit code: 3"));
    }

    #[test]
    fn the_failure_file_comes_before_stderr_and_the_reason_is_clipped() {
        let mut code = exit(ExitCause::Exited { code: 1 });
        code.failure = Some("out of memory".into());
        assert_eq!(failure_reason(&code), "AlgorithmError: out of memory, exit code: 1");
        code.failure = Some(format!("BEGIN{}", "é".repeat(2_000)));
        let reason = failure_reason(&code);
        assert_eq!(reason.chars().count(), FAILURE_REASON_MAX_CHARS);
        assert!(reason.starts_with("AlgorithmError: BEGINé") && reason.ends_with("é, exit code: 1"));
        (code.failure, code.stderr_tail) = (None, format!("{}END", "é".repeat(2_000)));
        let reason = failure_reason(&code);
        assert_eq!(reason.chars().count(), FAILURE_REASON_MAX_CHARS);
        assert!(reason.ends_with("éEND, exit code: 1"));
    }

    #[test]
    fn a_job_asked_to_stop_before_it_began_never_begins() {
        let view = TrainingView {
            status: TrainingStatus::Stopping,
            stop_requested: true,
            attempt: None,
            max_attempts: 1,
            spot: false,
            waited_out: false,
        };
        let Some(TrainingStep::End(ending)) = decide_training(&view) else { panic!("it is over") };
        assert_eq!(ending.status, TrainingStatus::Stopped);
    }
}
