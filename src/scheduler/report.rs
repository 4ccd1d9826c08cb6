//! What an executor's side found out about an ended attempt, and its way into the rows.
//!
//! Invariant: recording is idempotent: the first report of an attempt counts, a later one changes nothing. What follows
//! for the training job is `settle`'s to decide.

use uuid::Uuid;

use crate::domain::names::AttemptId;
use crate::domain::outcome::Exit;
use crate::domain::status::{ObjectiveStatus, SecondaryStatus};
use crate::domain::time::Timestamp;
use crate::scheduler::curves::Curve;
use crate::store::rows::{FinalMetric, LogSegment, MetricPoint, ReadPosition, TrainingJob};
use crate::store::{StoreError, Tx, attempts, logs, metrics, training_jobs};

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Whose training job it runs.
    pub tuning_job: Uuid,
    /// How it ended.
    pub exit: Exit,
    /// When its preparation began.
    pub prepared_at: Option<Timestamp>,
    /// When its artifacts began to go out.
    pub uploading_at: Option<Timestamp>,
    /// Where the model went.
    pub model_artifacts: Option<String>,
    /// Points not yet stored.
    pub points: Vec<MetricPoint>,
    /// Where the log ended.
    pub position: ReadPosition,
    /// The kept log.
    pub segments: Vec<LogSegment>,
    /// Whether the objective was evaluated, and to what.
    pub objective: (ObjectiveStatus, Option<f64>),
    /// The objective by epoch as the rows have it, through all attempts; empty where nobody asks for it.
    pub curve: Curve,
    /// The last value of each metric.
    pub final_metrics: Vec<FinalMetric>,
}

impl Report {
    /// The report of an attempt that left nothing.
    #[must_use]
    pub fn new(attempt: AttemptId, tuning_job: Uuid, exit: Exit) -> Self {
        Self {
            attempt,
            tuning_job,
            exit,
            prepared_at: None,
            uploading_at: None,
            model_artifacts: None,
            points: Vec::new(),
            position: ReadPosition::default(),
            segments: Vec::new(),
            objective: (ObjectiveStatus::Failed, None),
            curve: Curve::new(),
            final_metrics: Vec::new(),
        }
    }
}

impl Report {
    /// Stores what is left of the points.
    pub async fn store_points(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if self.position == ReadPosition::default() {
            return Ok(());
        }
        metrics::append(tx, self.attempt, 0, &self.points, self.position).await
    }

    /// Where the log is.
    pub fn log(&self) -> impl Iterator<Item = (AttemptId, &LogSegment)> {
        self.segments.iter().map(|segment| (self.attempt, segment))
    }

    /// Puts what it says into its training job's row, to be written by the caller.
    pub fn tell(&self, job: &mut TrainingJob) {
        job.began(self.prepared_at, self.exit.started_at);
        if let Some(at) = self.uploading_at {
            job.enter(SecondaryStatus::Uploading, at, None);
        }
        job.objective_status = self.objective.0;
        job.objective_value = self.objective.1;
        job.final_metrics.clone_from(&self.final_metrics);
        job.model_artifacts.clone_from(&self.model_artifacts);
        job.modified_at = job.modified_at.max(self.exit.ended_at);
    }
}

/// Writes a report into the rows of its attempt and training job, for whoever decides. False where the attempt had
/// ended before.
pub async fn record(tx: &mut Tx<'_>, report: &Report) -> Result<bool, StoreError> {
    let Some(mut job) = training_jobs::lock(tx, report.attempt.training_job).await? else { return Ok(false) };
    if attempts::end(tx, &[(report.attempt, &report.exit)]).await? == 0 {
        return Ok(false);
    }
    report.store_points(tx).await?;
    logs::add(tx, 0, &report.log().collect::<Vec<_>>()).await?;
    report.tell(&mut job);
    training_jobs::update(tx, &[&job]).await?;
    Ok(true)
}
