//! Rows of `tuning_jobs`.
//!
//! Invariant: names are unique in a scope ignoring case; a write of a row carries the fencing token it was read with,
//! and is refused once another server has raised it.

use uuid::Uuid;

use crate::domain::names::{Scope, name_key};
use crate::domain::status::TuningStatus;
use crate::store::listing::{self, List, Listed};
use crate::store::query::{Reader, Row, assembled, sql};
use crate::store::rows::{
    Definition, ListQuery, ObjectiveCounters, Page, SortKey, SortValue, TrainingCounters, TuningJob,
    TuningJobDescription, TuningJobSummary,
};
use crate::store::{StoreError, Tx, definitions};

/// Every column, in the order in which `read` reads and `insert` writes them.
macro_rules! columns {
    () => {
        "id, account, region, name_key, name, status, strategy, definition_id, seed, max_jobs, max_parallel, \
         max_runtime_ms, created_at, modified_at, ended_at, stop_requested_at, failure_reason, completed, in_progress, \
         retryable_error, non_retryable_error, stopped, objective_succeeded, objective_pending, objective_failed, \
         best_id, best_value, observed, inserted, not_improving, exhausted, lease_owner, lease_epoch, request"
    };
}

/// What a list shows: every further column costs its reading in every row of every page.
macro_rules! listed_columns {
    () => {
        "name, status, strategy, max_jobs, max_parallel, max_runtime_ms, created_at, modified_at, ended_at, completed, \
         in_progress, retryable_error, non_retryable_error, stopped, objective_succeeded, objective_pending, \
         objective_failed"
    };
}

/// Counts the jobs of an account and region that are not terminal.
macro_rules! unfinished {
    ($account:literal, $region:literal) => {
        concat!(
            "(SELECT count(*) FROM tuning_jobs WHERE account = ",
            $account,
            " AND region = ",
            $region,
            " AND status IN ('InProgress', 'Stopping', 'Deleting'))"
        )
    };
}

/// A definition's row, inserted where the count leaves room; `$1` to `$34` are the job's columns.
macro_rules! insert_definition {
    () => {
        concat!(
            "INSERT INTO definitions (id, tuning_job_name, document, metric_definitions, objective) \
             SELECT $8, $35, $36, $37, $38 WHERE ",
            unfinished!("$2", "$3"),
            " < $39"
        )
    };
}

/// The job's row, inserted from the rows that `$rest` says.
macro_rules! insert_job {
    ($rest:literal) => {
        concat!(
            "INSERT INTO tuning_jobs (",
            columns!(),
            ") SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
             $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34 ",
            $rest,
            " ON CONFLICT (account, region, name_key) DO NOTHING"
        )
    };
}

/// Inserts a new job and what it trains in one exchange with the database. `NameTaken` where its name is used, else
/// `QuotaUsed` where the scope has `quota` jobs that are not over; after either the transaction is to be given up.
///
/// On Postgres inserts that are not committed yet are not counted. Where as many as there are lanes would still fit,
/// each insert holds a lane, so that they commit side by side; nearer the quota one excludes all others until it is
/// over.
pub async fn insert(tx: &mut Tx<'_>, job: &TuningJob, definition: &Definition, quota: u32) -> Result<(), StoreError> {
    let in_lane = !tx.writes_alone() && take_lane(tx, &job.scope, quota).await?;
    let room = if in_lane { quota.saturating_sub(LANES).saturating_add(1) } else { quota };
    if insert_both(tx, job, definition, room).await? {
        return Ok(());
    }
    // A name that is taken stays so whatever the quota.
    if find(tx, &job.scope, &job.name).await?.is_some() {
        return Err(StoreError::NameTaken { name: job.name.clone() });
    }
    if in_lane {
        // Others were quicker; the next try sees how near the quota is and waits for its turn.
        return Err(tx.conflict());
    }
    let row = sql("counting unfinished tuning jobs", concat!("SELECT ", unfinished!("$1", "$2")))
        .bind(&job.scope.account)
        .bind(&job.scope.region)
        .optional(tx)
        .await?;
    Err(StoreError::QuotaUsed { used: row.map_or(Ok(quota), |row| row.reader("tuning_jobs", "count").u32())? })
}

/// Inserts both rows where fewer than `room` jobs of the scope are not over and the name is free; whether it did.
async fn insert_both(tx: &mut Tx<'_>, job: &TuningJob, definition: &Definition, room: u32) -> Result<bool, StoreError> {
    let script = concat!(insert_definition!(), "; ", insert_job!("FROM definitions WHERE id = $8"));
    let statement =
        concat!("WITH definition AS (", insert_definition!(), " RETURNING id) ", insert_job!("FROM definition"));
    let (text, whole) = tx.exchange((script, 2), (statement, 1));
    let inserted = sql("inserting a tuning job", text)
        .bind(job.id)
        .bind(&job.scope.account)
        .bind(&job.scope.region)
        .bind(name_key(&job.name))
        .bind(&job.name)
        .bind(job.status.as_str())
        .bind(job.strategy.as_str())
        .bind(job.definition_id)
        .bind(job.seed.cast_signed())
        .bind(job.max_jobs)
        .bind(job.max_parallel)
        .bind(job.max_runtime_ms)
        .bind(job.created_at)
        .bind(job.modified_at)
        .bind(job.ended_at)
        .bind(job.stop_requested_at)
        .bind(job.failure_reason.as_ref())
        .bind(job.counters.completed)
        .bind(job.counters.in_progress)
        .bind(job.counters.retryable_error)
        .bind(job.counters.non_retryable_error)
        .bind(job.counters.stopped)
        .bind(job.objective.succeeded)
        .bind(job.objective.pending)
        .bind(job.objective.failed)
        .bind(job.best.map(|(id, _)| id))
        .bind(job.best.map(|(_, value)| value))
        .bind(job.observed)
        .bind(job.inserted)
        .bind(job.not_improving)
        .bind(job.exhausted)
        .bind(job.lease_owner)
        .bind(job.lease_epoch)
        .bind(&job.request)
        .bind(definition.tuning_job_name.as_ref())
        .bind(&definition.document)
        .bind(&definition.metric_definitions)
        .bind(definition.objective.as_ref())
        .bind(room)
        .execute(tx)
        .await?;
    Ok(inserted == whole)
}

/// The job of a name, ignoring case.
pub async fn find(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<Option<TuningJob>, StoreError> {
    let row = sql(
        "finding a tuning job",
        concat!("SELECT ", columns!(), " FROM tuning_jobs WHERE account = $1 AND region = $2 AND name_key = $3"),
    )
    .bind(&scope.account)
    .bind(&scope.region)
    .bind(name_key(name))
    .optional(tx)
    .await?;
    row.as_ref().map(read_row).transpose()
}

/// What Describe shows of the job of a name, ignoring case, in one statement.
pub async fn describe(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<Option<TuningJobDescription>, StoreError> {
    macro_rules! described {
        () => {
            concat!(
                listed_columns!(),
                ", failure_reason, best_id, not_improving, request, tuning_job_name, document, objective"
            )
        };
    }
    let row = sql(
        "finding a tuning job",
        concat!(
            "SELECT ",
            described!(),
            " FROM tuning_jobs",
            definitions::joined!(),
            " WHERE account = $1 AND region = $2 AND name_key = $3"
        ),
    )
    .bind(&scope.account)
    .bind(&scope.region)
    .bind(name_key(name))
    .optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut r = row.reader("tuning_jobs", described!());
    Ok(Some(TuningJobDescription {
        summary: read_summary(&mut r)?,
        failure_reason: r.opt_text()?,
        best: r.opt_parsed()?,
        not_improving: r.u32()?,
        request: r.text()?,
        tuning_job_name: r.opt_text()?,
        document: r.text()?,
        objective: r.opt_text()?,
    }))
}

/// The job of an id.
pub async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TuningJob>, StoreError> {
    let row = sql("reading a tuning job", concat!("SELECT ", columns!(), " FROM tuning_jobs WHERE id = $1"))
        .bind(id)
        .optional(tx)
        .await?;
    row.as_ref().map(read_row).transpose()
}

/// Locks the row until the end of the transaction and returns it: the first statement of every scheduling transaction.
pub async fn lock(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TuningJob>, StoreError> {
    let text = format!(concat!("SELECT ", columns!(), " FROM tuning_jobs WHERE id = $1{}"), tx.row_lock());
    let row = assembled("locking a tuning job", text, vec![id.into()]).optional(tx).await?;
    row.as_ref().map(read_row).transpose()
}

/// Writes every mutable column of a locked job (all but identity, request, seed, limits and lease). `LeaseLost` where
/// the row's fencing token is not the one that `job` was read with.
pub async fn update(tx: &mut Tx<'_>, job: &TuningJob) -> Result<(), StoreError> {
    let updated = sql(
        "updating a tuning job",
        "UPDATE tuning_jobs SET status = $3, modified_at = $4, ended_at = $5, stop_requested_at = $6, \
         failure_reason = $7, completed = $8, in_progress = $9, retryable_error = $10, non_retryable_error = $11, \
         stopped = $12, objective_succeeded = $13, objective_pending = $14, objective_failed = $15, best_id = $16, \
         best_value = $17, observed = $18, inserted = $19, not_improving = $20, exhausted = $21 \
         WHERE id = $1 AND lease_epoch = $2",
    )
    .bind(job.id)
    .bind(job.lease_epoch)
    .bind(job.status.as_str())
    .bind(job.modified_at)
    .bind(job.ended_at)
    .bind(job.stop_requested_at)
    .bind(job.failure_reason.as_ref())
    .bind(job.counters.completed)
    .bind(job.counters.in_progress)
    .bind(job.counters.retryable_error)
    .bind(job.counters.non_retryable_error)
    .bind(job.counters.stopped)
    .bind(job.objective.succeeded)
    .bind(job.objective.pending)
    .bind(job.objective.failed)
    .bind(job.best.map(|(id, _)| id))
    .bind(job.best.map(|(_, value)| value))
    .bind(job.observed)
    .bind(job.inserted)
    .bind(job.not_improving)
    .bind(job.exhausted)
    .execute(tx)
    .await?;
    if updated == 0 { Err(StoreError::LeaseLost { job: job.id }) } else { Ok(()) }
}

/// Deletes the row and its tags; its training jobs stay, and its definition with them.
pub async fn delete(tx: &mut Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    let Some(job) = get(tx, id).await? else { return Ok(()) };
    sql("deleting a tuning job", "DELETE FROM tuning_jobs WHERE id = $1").bind(id).execute(tx).await?;
    super::tags::delete_all(tx, &job.scope.tuning_job_arn(&job.name)).await?;
    super::definitions::delete_unused(tx, job.definition_id).await
}

/// A page of a scope's jobs.
pub async fn list(
    tx: &mut Tx<'_>,
    scope: &Scope,
    query: &ListQuery<TuningStatus, SortKey>,
) -> Result<Page<TuningJobSummary>, StoreError> {
    listing::page(tx, of_scope(scope), query).await
}

/// The list of a scope's jobs.
pub(super) fn of_scope(scope: &Scope) -> List {
    List {
        doing: "listing tuning jobs",
        table: "tuning_jobs",
        columns: listed_columns!(),
        owner: vec![("account", (&scope.account).into()), ("region", (&scope.region).into())],
        status_by_creation: true,
        by_objective: false,
    }
}

/// The ids of all jobs that are not terminal: the scheduler's sweep.
pub async fn unfinished(tx: &mut Tx<'_>) -> Result<Vec<Uuid>, StoreError> {
    let rows = sql(
        "looking for unfinished tuning jobs",
        "SELECT id FROM tuning_jobs WHERE status IN ('InProgress', 'Stopping', 'Deleting') ORDER BY created_at, id",
    )
    .all(tx)
    .await?;
    rows.iter().map(|row| row.reader("tuning_jobs", "id").parsed()).collect()
}

/// Inserts of one account that may be under way at once where its quota is further away than so many.
const LANES: u32 = 32;

/// Takes the account's lock, shared and with a lane where the quota is far (true), else exclusively.
async fn take_lane(tx: &mut Tx<'_>, scope: &Scope, quota: u32) -> Result<bool, StoreError> {
    let row = sql(
        "waiting to count unfinished tuning jobs",
        concat!(
            "SELECT CAST(CASE WHEN ",
            unfinished!("$2", "$3"),
            " + $4 <= $5 THEN \
                CASE WHEN pg_advisory_xact_lock_shared($1) IS NULL THEN 0 \
                     WHEN pg_advisory_xact_lock($1 + 1 + pg_backend_pid() % $4) IS NULL THEN 0 ELSE 1 END \
              ELSE CASE WHEN pg_advisory_xact_lock($1) IS NULL THEN 1 ELSE 0 END END AS BIGINT)"
        ),
    )
    .bind(account_lock(scope))
    .bind(&scope.account)
    .bind(&scope.region)
    .bind(LANES)
    .bind(quota)
    .optional(tx)
    .await?;
    row.map_or(Ok(false), |row| row.reader("tuning_jobs", "lane").flag())
}

/// Takes the lease of a job for a server and returns the new fencing token; none while a live server holds it. Taking
/// what one already holds returns the token in force.
pub async fn acquire_lease(tx: &mut Tx<'_>, id: Uuid, server: Uuid) -> Result<Option<i64>, StoreError> {
    let holder_is_dead = if tx.sole_server() {
        String::from("1 = 1")
    } else {
        format!(
            "NOT EXISTS (SELECT 1 FROM servers WHERE servers.id = tuning_jobs.lease_owner AND expires_at > {})",
            tx.clock()
        )
    };
    let text = format!(
        "UPDATE tuning_jobs SET lease_epoch = CASE WHEN lease_owner = $2 THEN lease_epoch ELSE lease_epoch + 1 END, \
         lease_owner = $2 WHERE id = $1 AND (lease_owner IS NULL OR lease_owner = $2 OR {holder_is_dead}) \
         RETURNING lease_epoch"
    );
    let row = assembled("taking a lease", text, vec![id.into(), server.into()]).optional(tx).await?;
    row.map(|row| row.reader("tuning_jobs", "lease_epoch").int()).transpose()
}

/// The key of an account's advisory lock (FNV-1a of account and region); those of its lanes follow it.
fn account_lock(scope: &Scope) -> i64 {
    let bytes = scope.account.bytes().chain([0]).chain(scope.region.bytes());
    bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        .cast_signed()
        >> 8
        << 8
}

fn training_counters(r: &mut Reader<'_>) -> Result<TrainingCounters, StoreError> {
    Ok(TrainingCounters {
        completed: r.u32()?,
        in_progress: r.u32()?,
        retryable_error: r.u32()?,
        non_retryable_error: r.u32()?,
        stopped: r.u32()?,
    })
}

fn objective_counters(r: &mut Reader<'_>) -> Result<ObjectiveCounters, StoreError> {
    Ok(ObjectiveCounters { succeeded: r.u32()?, pending: r.u32()?, failed: r.u32()? })
}

/// Reads a job's columns, the first ones of the row.
fn read(r: &mut Reader<'_>) -> Result<TuningJob, StoreError> {
    let id = r.parsed()?;
    let scope = Scope { account: r.text()?, region: r.text()? };
    let _name_key = r.text()?;
    Ok(TuningJob {
        id,
        scope,
        name: r.text()?,
        status: r.parsed()?,
        strategy: r.parsed()?,
        definition_id: r.parsed()?,
        seed: r.int()?.cast_unsigned(),
        max_jobs: r.u32()?,
        max_parallel: r.u32()?,
        max_runtime_ms: r.opt_int()?,
        created_at: r.time()?,
        modified_at: r.time()?,
        ended_at: r.opt_time()?,
        stop_requested_at: r.opt_time()?,
        failure_reason: r.opt_text()?,
        counters: training_counters(r)?,
        objective: objective_counters(r)?,
        best: r.opt_parsed()?.zip(r.opt_real()?),
        observed: r.u32()?,
        inserted: r.u32()?,
        not_improving: r.u32()?,
        exhausted: r.flag()?,
        lease_owner: r.opt_parsed()?,
        lease_epoch: r.int()?,
        request: r.text()?,
    })
}

fn read_row(row: &Row) -> Result<TuningJob, StoreError> {
    read(&mut row.reader("tuning_jobs", columns!()))
}

/// Reads a summary's columns, the first ones of the row.
fn read_summary(r: &mut Reader<'_>) -> Result<TuningJobSummary, StoreError> {
    Ok(TuningJobSummary {
        name: r.text()?,
        status: r.parsed()?,
        strategy: r.parsed()?,
        max_jobs: r.u32()?,
        max_parallel: r.u32()?,
        max_runtime_ms: r.opt_int()?,
        created_at: r.time()?,
        modified_at: r.time()?,
        ended_at: r.opt_time()?,
        counters: training_counters(r)?,
        objective: objective_counters(r)?,
    })
}

impl Listed for TuningJobSummary {
    fn read(row: &Row) -> Result<Self, StoreError> {
        read_summary(&mut row.reader("tuning_jobs", listed_columns!()))
    }

    fn sort_value(&self, sort_by: SortKey) -> SortValue {
        match sort_by {
            SortKey::Name | SortKey::FinalObjectiveMetricValue => SortValue::Text(self.name_key()),
            SortKey::CreationTime => SortValue::Int(self.created_at.0),
            SortKey::Status => SortValue::Text(self.status.as_str().to_owned()),
        }
    }

    fn name_key(&self) -> String {
        name_key(&self.name)
    }
}
