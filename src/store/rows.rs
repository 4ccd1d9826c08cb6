//! The rows as values.
//!
//! Invariant: no SQL and no clock is here; reading and writing rows is left to the files of the resources. A method
//! changes the members that belong together, such as a status and its transition; whether it may is left to the
//! callers.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::names::{AttemptId, Scope};
use crate::domain::outcome::Exit;
use crate::domain::status::{
    AttemptState, ObjectiveStatus, SecondaryStatus, Strategy, TrainingStatus, Transition, TuningStatus,
};
use crate::domain::time::Timestamp;
use crate::domain::transitions;

/// What the secondary status of a training job says that the search stops.
const STOPPED_EARLY: &str = "Stopping the training job early: its objective falls behind";

/// `TrainingJobStatusCounters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrainingCounters {
    /// Completed.
    pub completed: u32,
    /// Not over: every status that is not terminal.
    pub in_progress: u32,
    /// Failed by an infrastructure fault, out of attempts.
    pub retryable_error: u32,
    /// Failed by the job's own fault.
    pub non_retryable_error: u32,
    /// Stopped.
    pub stopped: u32,
}

/// `ObjectiveStatusCounters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectiveCounters {
    /// With a final objective value.
    pub succeeded: u32,
    /// Running.
    pub pending: u32,
    /// Over without one.
    pub failed: u32,
}

/// A row of `tuning_jobs`.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningJob {
    /// Identity; never reused.
    pub id: Uuid,
    /// Account and region.
    pub scope: Scope,
    /// As written by the user.
    pub name: String,
    /// Where it stands.
    pub status: TuningStatus,
    /// The strategy of the request.
    pub strategy: Strategy,
    /// The request's seed, or the one drawn at Create.
    pub seed: u64,
    /// Budget; derived for Grid.
    pub max_jobs: u32,
    /// Slots.
    pub max_parallel: u32,
    /// Wall-clock budget.
    pub max_runtime_ms: Option<i64>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When anything of it changed last.
    pub modified_at: Timestamp,
    /// When it became terminal.
    pub ended_at: Option<Timestamp>,
    /// When Stop was asked for.
    pub stop_requested_at: Option<Timestamp>,
    /// Why it failed, or a remark.
    pub failure_reason: Option<String>,
    /// By status.
    pub counters: TrainingCounters,
    /// By objective status.
    pub objective: ObjectiveCounters,
    /// The best training job of those that completed or were stopped early, and its value.
    pub best: Option<(Uuid, f64)>,
    /// How many of its training jobs are over: the number of the latest observation.
    pub observed: u32,
    /// How many training jobs it has inserted: the latest ordinal.
    pub inserted: u32,
    /// Training jobs over, with a value, since the best was found.
    pub not_improving: u32,
    /// Whether the space has nothing left to suggest.
    pub exhausted: bool,
    /// The server that holds the lease, and the fencing token, raised at every takeover.
    pub lease_owner: Option<Uuid>,
    /// See `lease_owner`.
    pub lease_epoch: i64,
}

impl TuningJob {
    /// What a list shows of it.
    #[must_use]
    pub fn summary(&self) -> TuningJobSummary {
        TuningJobSummary {
            name: self.name.clone(),
            status: self.status,
            strategy: self.strategy,
            max_jobs: self.max_jobs,
            max_parallel: self.max_parallel,
            max_runtime_ms: self.max_runtime_ms,
            created_at: self.created_at,
            modified_at: self.modified_at,
            ended_at: self.ended_at,
            counters: self.counters,
            objective: self.objective,
        }
    }
}

/// A tuning job in a page of a list. The members are those of [`TuningJob`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "documented where the row is")]
pub struct TuningJobSummary {
    pub name: String,
    pub status: TuningStatus,
    pub strategy: Strategy,
    pub max_jobs: u32,
    pub max_parallel: u32,
    pub max_runtime_ms: Option<i64>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub counters: TrainingCounters,
    pub objective: ObjectiveCounters,
}

/// A tuning job with what Describe shows beside what lists show.
#[derive(Debug, Clone, PartialEq)]
pub struct TuningJobDescription {
    /// What lists show.
    pub summary: TuningJobSummary,
    /// Why it failed, or a remark.
    pub failure_reason: Option<String>,
    /// The best training job: see [`TuningJob`].
    pub best: Option<Uuid>,
    /// Training jobs over, with a value, since the best was found.
    pub not_improving: u32,
    /// The request's configuration, completed at Create.
    pub config: String,
    /// See [`Definition`].
    pub tuning_job_name: Option<String>,
    /// See [`Definition`].
    pub document: String,
    /// See [`Definition`].
    pub objective: Option<String>,
}

/// A row of `definitions`: what every training job of one definition shares.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// That of the tuning job that brought it.
    pub id: Uuid,
    /// The tuning job's name at the time, for training jobs that outlive it.
    pub tuning_job_name: Option<String>,
    /// The `TrainingJobDefinition` of the request, completed with the defaults and the metric definitions in force at
    /// Create, as JSON text.
    pub document: String,
    /// The objective, as JSON text; none for a training job without a tuning job.
    pub objective: Option<String>,
}

/// A row of `training_jobs`.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingJob {
    /// Identity; never reused.
    pub id: Uuid,
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// Its tuning job, kept after that is deleted; none for a training job of its own.
    pub tuning_job_id: Option<Uuid>,
    /// What it trains.
    pub definition_id: Uuid,
    /// 1-based place in its tuning job.
    pub ordinal: u32,
    /// The tuning job's `observed` when it was suggested.
    pub watermark: u32,
    /// The ordinals then pending.
    pub pending: Vec<u32>,
    /// The suggestion: tuned hyperparameters as the API's texts.
    pub tuned: BTreeMap<String, String>,
    /// Where it stands.
    pub status: TrainingStatus,
    /// The finer status.
    pub secondary: SecondaryStatus,
    /// `SecondaryStatusTransitions`.
    pub transitions: Vec<Transition>,
    /// Why it failed, or a remark.
    pub failure_reason: Option<String>,
    /// When it was inserted.
    pub created_at: Timestamp,
    /// When anything of it changed last.
    pub modified_at: Timestamp,
    /// When training began.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub ended_at: Option<Timestamp>,
    /// When Stop was asked for.
    pub stop_requested_at: Option<Timestamp>,
    /// Whether that was the search's doing (early stopping): its value counts like that of a completed job.
    pub stopped_early: bool,
    /// Whether the objective was evaluated.
    pub objective_status: ObjectiveStatus,
    /// The final objective value.
    pub objective_value: Option<f64>,
    /// The last value and time of each metric, final once the job is over.
    pub final_metrics: Vec<FinalMetric>,
    /// `s3://…/model.tar.gz`, once uploaded.
    pub model_artifacts: Option<String>,
    /// Attempts inserted so far.
    pub attempts: u32,
    /// Its number in the order in which the tuning job's training jobs ended; none while it is not over.
    pub observation: Option<u32>,
}

impl TrainingJob {
    /// Enters a secondary status, with what there is to add to the service's message.
    pub fn enter(&mut self, status: SecondaryStatus, at: Timestamp, remark: Option<&str>) {
        transitions::enter(&mut self.transitions, status, at, remark);
        self.secondary = status;
    }

    /// Notes that an attempt was prepared and began to train, as far as that is not shown yet. A job that was asked to
    /// stop before it could be shown goes on showing that, after what was.
    pub fn began(&mut self, prepared_at: Option<Timestamp>, started_at: Option<Timestamp>) {
        self.started_at = self.started_at.or(started_at);
        self.secondary = transitions::began(&mut self.transitions, prepared_at, started_at).unwrap_or(self.secondary);
    }

    /// Whether the job ended such that its value may be the tuning job's best.
    #[must_use]
    pub fn may_be_best(&self) -> bool {
        self.observation.is_some() && (self.status == TrainingStatus::Completed || self.stopped_early)
    }

    /// Notes that the search gives the job up: it is asked to stop, and what it came to counts.
    pub fn stop_early(&mut self, now: Timestamp) {
        self.stopped_early = true;
        self.request_stop(now);
        if let Some(last) = self.transitions.last_mut() {
            STOPPED_EARLY.clone_into(&mut last.message);
        }
    }

    /// Notes that the job was asked to stop; how far that is belongs to the scheduler.
    pub fn request_stop(&mut self, now: Timestamp) {
        self.stop_requested_at = Some(now);
        self.status = TrainingStatus::Stopping;
        self.modified_at = now;
        self.enter(SecondaryStatus::Stopping, now, None);
    }
}

/// The last value of a metric.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FinalMetric {
    /// The metric.
    pub name: String,
    /// Always finite.
    pub value: f64,
    /// When its line was read.
    pub time: Timestamp,
}

/// A row of `attempts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Training job and number.
    pub id: AttemptId,
    /// The only executor that may start or stop it.
    pub executor_id: String,
    /// Where it stands.
    pub state: AttemptState,
    /// Whether the rows have given it up: its executor ends it.
    pub stop_requested: bool,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
    /// When it was inserted.
    pub inserted_at: Timestamp,
}

/// The reading position of one host's log, and what was counted on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadPosition {
    /// Where to go on reading: a byte offset.
    pub offset: u64,
    /// Matches that were infinite or not a number.
    pub non_finite: u64,
}

/// One metric point. Its key is (attempt, host, offset, definition): reading a line again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricPoint {
    /// Byte offset of the record.
    pub offset: u64,
    /// Which match of its definition in the attempt's log, from 0; values that are no numbers count too.
    pub nth: u64,
    /// Index into the metric definitions.
    pub definition: u32,
    /// The supervisor's stamp.
    pub time: Timestamp,
    /// Always finite.
    pub value: f64,
}

/// A stored segment of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSegment {
    /// Byte offset of its first record.
    pub first_offset: u64,
    /// Time of its first record.
    pub first_time: Timestamp,
    /// Its length.
    pub bytes: u64,
    /// Where `objects` keeps it.
    pub object_key: String,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows, in order.
    pub items: Vec<T>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// A keyset position: the sort value and the tie-breaking id of the last row examined.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    /// The sort column's value.
    pub sort: SortValue,
    /// The row's name key or id, which is unique.
    pub id: String,
}

/// A value of a sort column.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum SortValue {
    /// A time.
    Int(i64),
    /// An objective value.
    Real(f64),
    /// A name or a status.
    Text(String),
}

/// What the three lists have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery<S, K> {
    /// The sort column.
    pub sort_by: K,
    /// Order.
    pub descending: bool,
    /// Only this status.
    pub status: Option<S>,
    /// Only names with this text in them, ignoring case.
    pub name_contains: Option<String>,
    /// Only created after / before.
    pub created_after: Option<Timestamp>,
    /// See `created_after`.
    pub created_before: Option<Timestamp>,
    /// Only modified after / before.
    pub modified_after: Option<Timestamp>,
    /// See `modified_after`.
    pub modified_before: Option<Timestamp>,
    /// 1..=100.
    pub limit: u32,
    /// Where to go on.
    pub after: Option<Cursor>,
}

impl<S, K> ListQuery<S, K> {
    /// Whether nothing is filtered, so that one statement finds the page and where the next one begins.
    #[must_use]
    pub fn is_unfiltered(&self) -> bool {
        let times = [self.created_after, self.created_before, self.modified_after, self.modified_before];
        self.status.is_none() && self.name_contains.is_none() && times.iter().all(Option::is_none)
    }
}

impl<S, K: Default> Default for ListQuery<S, K> {
    fn default() -> Self {
        Self {
            sort_by: K::default(),
            descending: false,
            status: None,
            name_contains: None,
            created_after: None,
            created_before: None,
            modified_after: None,
            modified_before: None,
            limit: 0,
            after: None,
        }
    }
}

/// What a list of tuning or training jobs is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum SortKey {
    /// Ignoring case.
    #[default]
    Name,
    /// The creation time.
    CreationTime,
    /// The status' text.
    Status,
    /// The final objective value; jobs without one are not listed. Only for one tuning job's training jobs.
    FinalObjectiveMetricValue,
}
