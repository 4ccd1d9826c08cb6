//! Rows of `training_jobs`.
//!
//! Invariant: what a job was suggested from (ordinal, watermark, pending, values) is written once; a tuning job's jobs
//! keep its id after it is deleted. A statement of the scheduler locks the tuning job's row before any of these.

use std::collections::HashSet;

use uuid::Uuid;

use crate::domain::names::{Scope, name_key};
use crate::domain::status::TrainingStatus;
use crate::store::listing::{self, List, Listed};
use crate::store::query::{Reader, Row, Value, assembled, json, pieces, placeholders, sql};
use crate::store::rows::{Attempt, Definition, ListQuery, Page, SortKey, SortValue, TrainingJob};
use crate::store::{StoreError, Tx, attempts, definitions};

/// Every column, in the order in which `Listed::read` reads them.
macro_rules! columns {
    () => {
        "id, account, region, name_key, name, tuning_job_id, definition_id, ordinal, watermark, pending, tuned, status, \
         secondary, transitions, failure_reason, created_at, modified_at, started_at, ended_at, stop_requested_at, \
         stopped_early, objective_status, objective_value, final_metrics, model_artifacts, attempts, observation"
    };
}

/// The columns that are written once, in the order of [`identity`].
const IDENTITY: [&str; 12] = [
    "id",
    "account",
    "region",
    "name_key",
    "name",
    "tuning_job_id",
    "definition_id",
    "ordinal",
    "watermark",
    "pending",
    "tuned",
    "created_at",
];

/// Identity and suggestion.
fn identity(job: &TrainingJob) -> Result<[Value; IDENTITY.len()], StoreError> {
    Ok([
        job.id.into(),
        (&job.scope.account).into(),
        (&job.scope.region).into(),
        name_key(&job.name).into(),
        (&job.name).into(),
        job.tuning_job_id.into(),
        job.definition_id.into(),
        job.ordinal.into(),
        job.watermark.into(),
        json(&job.pending)?,
        json(&job.tuned)?,
        job.created_at.into(),
    ])
}

/// The columns that change, in the order of [`state`].
const STATE: [&str; 15] = [
    "status",
    "secondary",
    "transitions",
    "failure_reason",
    "modified_at",
    "started_at",
    "ended_at",
    "stop_requested_at",
    "stopped_early",
    "objective_status",
    "objective_value",
    "final_metrics",
    "model_artifacts",
    "attempts",
    "observation",
];

/// How far a job has come.
fn state(job: &TrainingJob) -> Result<[Value; STATE.len()], StoreError> {
    Ok([
        job.status.as_str().into(),
        job.secondary.as_str().into(),
        json(&job.transitions)?,
        job.failure_reason.as_ref().into(),
        job.modified_at.into(),
        job.started_at.into(),
        job.ended_at.into(),
        job.stop_requested_at.into(),
        job.stopped_early.into(),
        job.objective_status.as_str().into(),
        job.objective_value.into(),
        json(&job.final_metrics)?,
        job.model_artifacts.as_ref().into(),
        job.attempts.into(),
        job.observation.into(),
    ])
}

/// Inserts those of the jobs whose names are free, many in one exchange with the database; returns their ids.
pub async fn insert(tx: &mut Tx<'_>, jobs: &[TrainingJob]) -> Result<HashSet<Uuid>, StoreError> {
    let mut inserted = HashSet::new();
    for piece in pieces(jobs) {
        let text = format!(
            "INSERT INTO training_jobs ({}, {}) VALUES {} ON CONFLICT (account, region, name_key) DO NOTHING RETURNING id",
            IDENTITY.join(", "),
            STATE.join(", "),
            placeholders(piece.len(), IDENTITY.len() + STATE.len())
        );
        let mut args = Vec::with_capacity(piece.len() * (IDENTITY.len() + STATE.len()));
        for job in piece {
            args.extend(identity(job)?);
            args.extend(state(job)?);
        }
        for row in assembled("inserting training jobs", text, args).all(tx).await? {
            inserted.insert(row.reader("training_jobs", "id").parsed()?);
        }
    }
    Ok(inserted)
}

/// The job of a name, ignoring case.
pub async fn find(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<Option<TrainingJob>, StoreError> {
    let row = sql(
        "finding a training job",
        concat!("SELECT ", columns!(), " FROM training_jobs WHERE account = $1 AND region = $2 AND name_key = $3"),
    )
    .bind(&scope.account)
    .bind(&scope.region)
    .bind(name_key(name))
    .optional(tx)
    .await?;
    row.as_ref().map(TrainingJob::read).transpose()
}

/// The job of a name, ignoring case, with what it trains, in one statement.
pub async fn find_with_definition(
    tx: &mut Tx<'_>,
    scope: &Scope,
    name: &str,
) -> Result<Option<(TrainingJob, Definition)>, StoreError> {
    macro_rules! all {
        () => {
            concat!(columns!(), ", ", definitions::joined_columns!())
        };
    }
    let row = sql(
        "finding a training job",
        concat!(
            "SELECT ",
            all!(),
            " FROM training_jobs",
            definitions::joined!("definition_id"),
            " WHERE account = $1 AND region = $2 AND name_key = $3"
        ),
    )
    .bind(&scope.account)
    .bind(&scope.region)
    .bind(name_key(name))
    .optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut r = row.reader("training_jobs", all!());
    Ok(Some((read(&mut r)?, definitions::read(&mut r)?)))
}

/// The job of an id.
pub async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TrainingJob>, StoreError> {
    let row = sql("reading a training job", concat!("SELECT ", columns!(), " FROM training_jobs WHERE id = $1"))
        .bind(id)
        .optional(tx)
        .await?;
    row.as_ref().map(TrainingJob::read).transpose()
}

/// The jobs of those ids that have one, in any order.
pub async fn get_all(tx: &mut Tx<'_>, ids: &[Uuid]) -> Result<Vec<TrainingJob>, StoreError> {
    let mut jobs = Vec::with_capacity(ids.len());
    for piece in pieces(ids) {
        let text = format!(
            concat!("SELECT ", columns!(), " FROM training_jobs WHERE id IN (VALUES {})"),
            placeholders(piece.len(), 1)
        );
        let rows =
            assembled("reading training jobs", text, piece.iter().map(|id| (*id).into()).collect()).all(tx).await?;
        for row in &rows {
            jobs.push(TrainingJob::read(row)?);
        }
    }
    Ok(jobs)
}

/// Locks the row until the end of the transaction and returns it.
pub async fn lock(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TrainingJob>, StoreError> {
    let text = format!(concat!("SELECT ", columns!(), " FROM training_jobs WHERE id = $1{}"), tx.row_lock());
    let row = assembled("locking a training job", text, vec![id.into()]).optional(tx).await?;
    row.as_ref().map(TrainingJob::read).transpose()
}

/// Writes every mutable column (all but identity and suggestion) of the jobs, many in one exchange with the database.
pub async fn update(tx: &mut Tx<'_>, jobs: &[&TrainingJob]) -> Result<(), StoreError> {
    let set: Vec<String> = STATE.iter().zip(2..).map(|(name, at)| format!("{name} = new.column{at}")).collect();
    for piece in pieces(jobs) {
        let text = format!(
            "UPDATE training_jobs SET {} FROM (VALUES {}) AS new WHERE id = new.column1",
            set.join(", "),
            placeholders(piece.len(), 1 + STATE.len())
        );
        let mut args = Vec::with_capacity(piece.len() * (1 + STATE.len()));
        for job in piece {
            args.push(job.id.into());
            args.extend(state(job)?);
        }
        assembled("updating training jobs", text, args).execute(tx).await?;
    }
    Ok(())
}

/// Deletes a terminal job with its attempts, points, log index and tags; frees the name.
pub async fn delete(tx: &mut Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    let Some(job) = get(tx, id).await? else { return Ok(()) };
    for text in [
        "DELETE FROM metric_points WHERE training_job_id = $1",
        "DELETE FROM metric_series WHERE training_job_id = $1",
        "DELETE FROM log_segments WHERE training_job_id = $1",
        "DELETE FROM hosts WHERE training_job_id = $1",
        "DELETE FROM attempts WHERE training_job_id = $1",
        "DELETE FROM training_jobs WHERE id = $1",
    ] {
        sql("deleting a training job", text).bind(id).execute(tx).await?;
    }
    super::tags::delete_all(tx, &job.scope.training_job_arn(&job.name)).await?;
    super::definitions::delete_unused(tx, job.definition_id).await
}

/// A page of a scope's jobs.
pub async fn list(
    tx: &mut Tx<'_>,
    scope: &Scope,
    query: &ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, StoreError> {
    listing::page(tx, of_scope(scope), query).await
}

/// A page of a tuning job's jobs.
pub async fn list_of_tuning_job(
    tx: &mut Tx<'_>,
    tuning_job: Uuid,
    query: &ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, StoreError> {
    listing::page(tx, of_tuning_job(tuning_job), query).await
}

/// The list of a scope's jobs.
pub(super) fn of_scope(scope: &Scope) -> List {
    List {
        doing: "listing training jobs",
        table: "training_jobs",
        columns: columns!(),
        owner: vec![("account", (&scope.account).into()), ("region", (&scope.region).into())],
        status_by_creation: true,
        by_objective: false,
    }
}

/// The list of a tuning job's jobs.
pub(super) fn of_tuning_job(tuning_job: Uuid) -> List {
    List {
        doing: "listing a tuning job's training jobs",
        table: "training_jobs",
        columns: columns!(),
        owner: vec![("tuning_job_id", tuning_job.into())],
        status_by_creation: false,
        by_objective: true,
    }
}

/// Its condition is that of the index `training_jobs_live`, word by word: every decision runs it.
const LIVE: &str = concat!(
    "SELECT ",
    columns!(),
    ", CAST(CASE WHEN a.training_job_id IS NULL THEN 0 ELSE 1 END AS BIGINT), ",
    attempts::columns!(),
    " FROM training_jobs LEFT JOIN attempts a ON a.training_job_id = id AND a.number = training_jobs.attempts \
     WHERE tuning_job_id = $1 AND status IN ('InProgress', 'Stopping', 'Deleting') ORDER BY ordinal"
);

/// A tuning job's jobs that are not over, by ordinal, each with its latest attempt if it has one.
pub async fn live(tx: &mut Tx<'_>, tuning_job: Uuid) -> Result<Vec<(TrainingJob, Option<Attempt>)>, StoreError> {
    macro_rules! all {
        () => {
            concat!(columns!(), ", has_attempt, ", attempts::columns!())
        };
    }
    let rows = sql("reading a tuning job's live training jobs", LIVE).bind(tuning_job).all(tx).await?;
    let pair = |row: &Row| {
        let mut r = row.reader("training_jobs", all!());
        Ok((read(&mut r)?, r.flag()?.then(|| attempts::read_columns(&mut r)).transpose()?))
    };
    rows.iter().map(pair).collect()
}

/// All of a tuning job's jobs, by ordinal: the study, when a server takes it over.
pub async fn history(tx: &mut Tx<'_>, tuning_job: Uuid) -> Result<Vec<TrainingJob>, StoreError> {
    let rows = sql(
        "reading a tuning job's training jobs",
        concat!("SELECT ", columns!(), " FROM training_jobs WHERE tuning_job_id = $1 ORDER BY ordinal"),
    )
    .bind(tuning_job)
    .all(tx)
    .await?;
    rows.iter().map(TrainingJob::read).collect()
}

/// Reads a job's columns, the first ones of the row.
fn read(r: &mut Reader<'_>) -> Result<TrainingJob, StoreError> {
    let id = r.parsed()?;
    let scope = Scope { account: r.text()?, region: r.text()? };
    let _name_key = r.text()?;
    Ok(TrainingJob {
        id,
        scope,
        name: r.text()?,
        tuning_job_id: r.opt_parsed()?,
        definition_id: r.parsed()?,
        ordinal: r.u32()?,
        watermark: r.u32()?,
        pending: r.json()?,
        tuned: r.json()?,
        status: r.parsed()?,
        secondary: r.parsed()?,
        transitions: r.json()?,
        failure_reason: r.opt_text()?,
        created_at: r.time()?,
        modified_at: r.time()?,
        started_at: r.opt_time()?,
        ended_at: r.opt_time()?,
        stop_requested_at: r.opt_time()?,
        stopped_early: r.flag()?,
        objective_status: r.parsed()?,
        objective_value: r.opt_real()?,
        final_metrics: r.json()?,
        model_artifacts: r.opt_text()?,
        attempts: r.u32()?,
        observation: r.opt_u32()?,
    })
}

impl Listed for TrainingJob {
    fn read(row: &Row) -> Result<Self, StoreError> {
        read(&mut row.reader("training_jobs", columns!()))
    }

    fn sort_value(&self, sort_by: SortKey) -> SortValue {
        match sort_by {
            SortKey::Name => SortValue::Text(self.name_key()),
            SortKey::CreationTime => SortValue::Int(self.created_at.0),
            SortKey::Status => SortValue::Text(self.status.as_str().to_owned()),
            // A list in this order has no row without a value.
            SortKey::FinalObjectiveMetricValue => SortValue::Real(self.objective_value.unwrap_or_default()),
        }
    }

    fn name_key(&self) -> String {
        name_key(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::explained;

    #[tokio::test]
    async fn a_decision_reads_no_job_that_is_over() {
        let (_folder, db) = explained::database().await;
        let steps = explained::steps(&db, LIVE, vec![Uuid::nil().into()]).await;
        assert!(steps[0].contains("training_jobs USING INDEX training_jobs_live (tuning_job_id=?)"), "{steps:?}");
        assert!(steps.iter().all(|step| step.starts_with("SEARCH")), "without sorting: {steps:?}");
    }
}
