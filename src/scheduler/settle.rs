//! The one scheduling transaction: rows in, decisions, rows out.
//!
//! Invariant: it locks the tuning job's row first, refuses a lost lease, reads status, budget and everything live again,
//! and checks the budget in the transaction that inserts. It starts nothing: what it inserts is the intent that an
//! executor acts on after the commit. What it decides it writes at its end, many rows in one exchange with the database;
//! what is left of its points is written for each attempt by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::domain::decide::{CountedAs, Ending, TrainingStep, TuningStep, TuningView, decide_training, decide_tuning};
use crate::domain::names::{AttemptId, new_row_id, training_job_name};
use crate::domain::outcome::Exit;
use crate::domain::request::Tag;
use crate::domain::status::{AttemptState, Direction, ObjectiveStatus, SecondaryStatus, TrainingStatus, TuningStatus};
use crate::domain::time::Timestamp;
use crate::scheduler::report::Report;
use crate::scheduler::spec::Tries;
use crate::store::rows::{Attempt, LogSegment, TrainingJob, TuningJob};
use crate::store::{StoreError, Tx, attempts, logs, tags, training_jobs, tuning_jobs};

/// What a transaction works from; nothing in it may change while the transaction is tried again.
#[derive(Debug, Clone)]
pub struct Input {
    /// The tuning job.
    pub tuning_job: Uuid,
    /// Who holds the lease, and the fencing token.
    pub server: Uuid,
    /// See `server`.
    pub epoch: i64,
    /// The current time.
    pub now: Timestamp,
    /// Ends of attempts to record.
    pub reports: Vec<Arc<Report>>,
    /// Training jobs that the search gives up.
    pub stop_early: BTreeSet<Uuid>,
    /// Suggestions made ahead.
    pub plan: Option<Plan>,
    /// Which objective values are better; none where that cannot be read, and the best stays as it is.
    pub direction: Option<Direction>,
    /// How often and how long a training job is tried.
    pub tries: Tries,
    /// The executor that new attempts are bound to.
    pub executor_id: String,
    /// Why the tuning job can't go on at all, if so: it ends as failed once nothing runs.
    pub broken: Option<String>,
}

/// Suggestions, and the history that they were made from; worthless where the history turned out differently.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The tuning job's `observed`.
    pub watermark: u32,
    /// The ordinals pending, in order.
    pub pending: Vec<u32>,
    /// The first suggestion's ordinal.
    pub first: u32,
    /// The suggestions' texts.
    pub points: Vec<BTreeMap<String, String>>,
    /// Whether the search has nothing left after these.
    pub exhausted: bool,
}

/// What the transaction did.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The tuning job, as written.
    pub job: TuningJob,
    /// Training jobs that are not over, by ordinal.
    pub live: Vec<TrainingJob>,
    /// The latest attempt of each of them.
    pub attempts: Vec<Attempt>,
    /// Training jobs that it ended.
    pub ended: Vec<TrainingJob>,
    /// Whether there were slots and budget that no valid plan filled.
    pub wants_plan: bool,
    /// Whether an executor has something new to do.
    pub wake_executor: bool,
}

/// Runs the transaction's body; none where the tuning job is gone.
pub async fn settle(tx: &mut Tx<'_>, input: &Input) -> Result<Option<Settled>, StoreError> {
    let Some(before) = tuning_jobs::lock(tx, input.tuning_job).await? else { return Ok(None) };
    if before.lease_owner != Some(input.server) || before.lease_epoch != input.epoch {
        return Err(StoreError::LeaseLost { job: input.tuning_job });
    }
    let live = training_jobs::live(tx, input.tuning_job).await?;
    let mut work = Work {
        input,
        settled: Settled {
            job: before.clone(),
            live: Vec::with_capacity(live.len()),
            attempts: Vec::new(),
            ended: Vec::new(),
            wants_plan: false,
            wake_executor: false,
        },
        changes: Changes::default(),
    };
    for (job, attempt) in live {
        work.training_job(tx, job, attempt).await?;
    }
    work.tuning_job(tx).await?;
    let Work { mut settled, changes, .. } = work;
    changes.write(tx, &settled).await?;
    if settled.job != before {
        settled.job.modified_at = input.now;
        tuning_jobs::update(tx, &settled.job).await?;
    }
    Ok(Some(settled))
}

struct Work<'i> {
    input: &'i Input,
    settled: Settled,
    changes: Changes<'i>,
}

/// What is to be written of the training jobs that were there before, and of attempts.
#[derive(Debug, Default)]
struct Changes<'i> {
    /// Attempts that have ended.
    ended: Vec<(AttemptId, &'i Exit)>,
    /// Where their logs are.
    logs: Vec<(AttemptId, &'i LogSegment)>,
    /// Attempts that are to end.
    stopped: Vec<AttemptId>,
    /// Training jobs whose rows are other ones now.
    training_jobs: BTreeSet<Uuid>,
    /// Attempts to be started.
    attempts: Vec<Attempt>,
}

impl Changes<'_> {
    async fn write(&self, tx: &mut Tx<'_>, settled: &Settled) -> Result<(), StoreError> {
        attempts::end(tx, &self.ended).await?;
        logs::add(tx, 0, &self.logs).await?;
        attempts::insert(tx, &self.attempts).await?;
        attempts::request_stop(tx, &self.stopped).await?;
        let jobs = settled.live.iter().chain(&settled.ended);
        let changed: Vec<_> = jobs.filter(|job| self.training_jobs.contains(&job.id)).collect();
        training_jobs::update(tx, &changed).await
    }
}

impl Work<'_> {
    /// Decides on one training job and carries the step out.
    async fn training_job(
        &mut self,
        tx: &mut Tx<'_>,
        mut job: TrainingJob,
        mut attempt: Option<Attempt>,
    ) -> Result<(), StoreError> {
        if let Some(attempt) = &mut attempt
            && attempt.exit.is_none()
            && let Some(report) = self.input.reports.iter().find(|report| report.attempt == attempt.id)
        {
            report.store_points(tx).await?;
            self.changes.logs.extend(report.log());
            report.tell(&mut job);
            attempt.exit = Some(report.exit.clone());
            self.changes.ended.push((report.attempt, &report.exit));
            self.changes.training_jobs.insert(job.id);
        }
        let runs = attempt.as_ref().is_some_and(|attempt| attempt.exit.is_none());
        if runs && job.stop_requested_at.is_none() && self.input.stop_early.contains(&job.id) {
            job.stop_early(self.input.now);
            self.changes.training_jobs.insert(job.id);
        }
        let exit = attempt.as_ref().and_then(|attempt| attempt.exit.as_ref());
        match decide_training(&self.input.tries.view(&job, attempt.as_ref(), exit, self.input.now)) {
            None => {
                // An interruption asks the attempt alone, and its agent is to see that at once.
                self.settled.wake_executor |= attempt.as_ref().is_some_and(|attempt| attempt.stop_requested);
                self.keep(job, attempt);
            }
            Some(TrainingStep::StopAttempt) => {
                if let Some(attempt) = &mut attempt {
                    self.changes.stopped.push(attempt.id);
                    attempt.stop_requested = true;
                }
                self.settled.wake_executor = true;
                self.keep(job, attempt);
            }
            Some(TrainingStep::InsertAttempt { number, after }) => {
                if let Some(after) = after {
                    job.enter(after, self.input.now, None);
                    if after == SecondaryStatus::Interrupted {
                        job.enter(SecondaryStatus::Starting, self.input.now, None);
                    }
                    job.objective_status = ObjectiveStatus::Pending;
                    (job.objective_value, job.model_artifacts) = (None, None);
                    job.final_metrics.clear();
                }
                job.attempts = number;
                self.changes.training_jobs.insert(job.id);
                let attempt = self.new_attempt(job.id, number);
                self.keep(job, Some(attempt));
            }
            Some(TrainingStep::End(ending)) => {
                let exit = attempt.as_ref().and_then(|a| a.exit.as_ref());
                self.end(&mut job, ending, exit);
                self.changes.training_jobs.insert(job.id);
                self.settled.ended.push(job);
                self.settled.wake_executor = true;
            }
        }
        Ok(())
    }

    fn keep(&mut self, job: TrainingJob, attempt: Option<Attempt>) {
        self.settled.live.push(job);
        self.settled.attempts.extend(attempt);
    }

    fn new_attempt(&mut self, training_job: Uuid, number: u32) -> Attempt {
        let attempt = Attempt {
            id: AttemptId { training_job, number },
            executor_id: self.input.executor_id.clone(),
            state: AttemptState::Inserted,
            stop_requested: false,
            exit: None,
            inserted_at: self.input.now,
        };
        self.changes.attempts.push(attempt.clone());
        self.settled.wake_executor = true;
        attempt
    }

    /// Ends a training job: its row, and the tuning job's counters, best and observation number.
    fn end(&mut self, job: &mut TrainingJob, ending: Ending, exit: Option<&Exit>) {
        // The attempt's own end, however late a server came to hear of it.
        let ended_at = exit.map_or(self.input.now, |exit| exit.ended_at).max(job.created_at);
        let remark = exit.and_then(|exit| exit.remark.as_deref());
        let tuning = &mut self.settled.job;
        tuning.observed += 1;
        job.observation = Some(tuning.observed);
        job.status = ending.status;
        job.ended_at = Some(ended_at);
        job.modified_at = self.input.now;
        job.failure_reason = ending.reason;
        job.enter(ending.secondary, ended_at, remark);
        if job.objective_status != ObjectiveStatus::Succeeded || ending.status == TrainingStatus::Failed {
            job.objective_status = ObjectiveStatus::Failed;
            job.objective_value = None;
        }
        let counters = &mut tuning.counters;
        counters.in_progress = counters.in_progress.saturating_sub(1);
        *match ending.counted_as {
            CountedAs::Completed => &mut counters.completed,
            CountedAs::Stopped => &mut counters.stopped,
            CountedAs::RetryableError => &mut counters.retryable_error,
            CountedAs::NonRetryableError => &mut counters.non_retryable_error,
        } += 1;
        tuning.objective.pending = tuning.objective.pending.saturating_sub(1);
        match (job.objective_status, job.objective_value) {
            (ObjectiveStatus::Succeeded, Some(value)) => {
                tuning.objective.succeeded += 1;
                self.compare_with_best(job, value);
            }
            _ => tuning.objective.failed += 1,
        }
    }

    fn compare_with_best(&mut self, job: &TrainingJob, value: f64) {
        let Some(direction) = self.input.direction else { return };
        let tuning = &mut self.settled.job;
        let better = tuning.best.is_none_or(|(_, best)| direction.is_better(value, best));
        if !better {
            tuning.not_improving += 1;
        } else if job.may_be_best() {
            tuning.best = Some((job.id, value));
            tuning.not_improving = 0;
        }
    }

    /// Decides on the tuning job and carries the step out.
    async fn tuning_job(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let planned = self.input.plan.as_ref();
        if planned.is_some_and(|plan| plan.exhausted && plan.points.is_empty() && self.history_is(plan)) {
            self.settled.job.exhausted = true;
        }
        let broken = self.input.broken.as_ref().filter(|_| !self.settled.job.status.is_terminal());
        let next = match broken {
            Some(_) if !self.settled.live.is_empty() => Some(TuningStep::StopTrainingJobs),
            Some(reason) => Some(TuningStep::End { status: TuningStatus::Failed, reason: Some(reason.clone()) }),
            None => decide_tuning(&self.view()),
        };
        match next {
            None => {}
            Some(TuningStep::Insert { at_most }) => {
                let points: Vec<_> = self.valid_points().iter().take(at_most as usize).cloned().collect();
                self.settled.wants_plan = points.len() < at_most as usize;
                self.insert(tx, points).await?;
            }
            Some(TuningStep::StopTrainingJobs) => self.stop_training_jobs(),
            Some(TuningStep::End { status, reason }) => {
                let tuning = &mut self.settled.job;
                tuning.status = status;
                tuning.ended_at = Some(self.input.now);
                tuning.failure_reason = reason;
            }
        }
        Ok(())
    }

    fn view(&self) -> TuningView {
        let job = &self.settled.job;
        TuningView {
            status: job.status,
            now: self.input.now,
            created_at: job.created_at,
            max_runtime_ms: job.max_runtime_ms,
            max_jobs: job.max_jobs,
            max_parallel: job.max_parallel,
            inserted: job.inserted,
            live: u32::try_from(self.settled.live.len()).unwrap_or(u32::MAX),
            // One that the search stopped early counts, too, if it came to a value.
            succeeded: job.counters.completed > 0 || job.best.is_some(),
            failed: job.counters.retryable_error + job.counters.non_retryable_error,
            exhausted: job.exhausted,
        }
    }

    fn history_is(&self, plan: &Plan) -> bool {
        plan.watermark == self.settled.job.observed
            && plan.first == self.settled.job.inserted + 1
            && plan.pending.iter().copied().eq(self.settled.live.iter().map(|j| j.ordinal))
    }

    /// The plan's suggestions, if they were made from the history as it is.
    fn valid_points(&self) -> &[BTreeMap<String, String>] {
        self.input.plan.as_ref().filter(|plan| self.history_is(plan)).map_or(&[], |plan| &plan.points)
    }

    async fn insert(&mut self, tx: &mut Tx<'_>, points: Vec<BTreeMap<String, String>>) -> Result<(), StoreError> {
        if points.is_empty() {
            return Ok(());
        }
        let scope = self.settled.job.scope.clone();
        let inherited = tags::list(tx, &scope.tuning_job_arn(&self.settled.job.name)).await?;
        let planned = self.input.plan.as_ref();
        let uses_all = planned.is_some_and(|p| p.exhausted && p.points.len() == points.len());
        let mut jobs = Vec::with_capacity(points.len());
        for tuned in points {
            jobs.push(self.new_training_job(tuned, &jobs));
        }
        for job in self.insert_named(tx, jobs).await? {
            let attempt = self.new_attempt(job.id, 1);
            self.inherit_tags(tx, &job, &inherited).await?;
            self.keep(job, Some(attempt));
        }
        let tuning = &mut self.settled.job;
        tuning.exhausted |= uses_all;
        self.settled.wants_plan &= !tuning.exhausted;
        Ok(())
    }

    /// The next training job after the live and the `earlier` ones.
    fn new_training_job(&mut self, tuned: BTreeMap<String, String>, earlier: &[TrainingJob]) -> TrainingJob {
        let now = self.input.now;
        let pending = self.settled.live.iter().chain(earlier).map(|j| j.ordinal).collect();
        let tuning = &mut self.settled.job;
        tuning.inserted += 1;
        tuning.counters.in_progress += 1;
        tuning.objective.pending += 1;
        let mut job = TrainingJob {
            id: new_row_id(now),
            scope: tuning.scope.clone(),
            name: String::new(),
            tuning_job_id: Some(tuning.id),
            definition_id: tuning.id,
            ordinal: tuning.inserted,
            watermark: tuning.observed,
            pending,
            tuned,
            status: TrainingStatus::InProgress,
            secondary: SecondaryStatus::Pending,
            transitions: Vec::new(),
            failure_reason: None,
            created_at: now,
            modified_at: now,
            started_at: None,
            ended_at: None,
            stop_requested_at: None,
            stopped_early: false,
            objective_status: ObjectiveStatus::Pending,
            objective_value: None,
            final_metrics: Vec::new(),
            model_artifacts: None,
            attempts: 1,
            observation: None,
        };
        job.enter(SecondaryStatus::Pending, now, None);
        job
    }

    /// Inserts training jobs under names that no other has, also none that an earlier tuning job of this name left.
    async fn insert_named(
        &self,
        tx: &mut Tx<'_>,
        mut nameless: Vec<TrainingJob>,
    ) -> Result<Vec<TrainingJob>, StoreError> {
        let tuning = &self.settled.job;
        let (mut named, mut salt) = (Vec::with_capacity(nameless.len()), 0);
        while !nameless.is_empty() {
            for job in &mut nameless {
                job.name = training_job_name(&tuning.name, tuning.id, job.ordinal, salt);
            }
            let inserted = training_jobs::insert(tx, &nameless).await?;
            let (of_free_names, others) = nameless.into_iter().partition(|job| inserted.contains(&job.id));
            named.extend::<Vec<_>>(of_free_names);
            nameless = others;
            salt += 1;
        }
        named.sort_unstable_by_key(|job| job.ordinal);
        Ok(named)
    }

    async fn inherit_tags(&self, tx: &mut Tx<'_>, job: &TrainingJob, inherited: &[Tag]) -> Result<(), StoreError> {
        if inherited.is_empty() {
            return Ok(());
        }
        tags::set(tx, &job.scope.training_job_arn(&job.name), inherited).await
    }

    fn stop_training_jobs(&mut self) {
        for job in self.settled.live.iter_mut().filter(|job| job.stop_requested_at.is_none()) {
            job.request_stop(self.input.now);
            self.changes.training_jobs.insert(job.id);
        }
        for attempt in self.settled.attempts.iter_mut().filter(|attempt| !attempt.stop_requested) {
            attempt.stop_requested = true;
            self.changes.stopped.push(attempt.id);
            self.settled.wake_executor = true;
        }
    }
}

/// Whether a settled tuning job needs its loop no more.
#[must_use]
pub fn is_over(settled: &Settled) -> bool {
    settled.job.status.is_terminal() && settled.live.is_empty()
}
