//! Rows of `tuning_jobs`.
//!
//! Invariant: names are unique in a scope ignoring case; a write of a row carries the fencing token it was read with,
//! and is refused once another server has raised it.

use std::collections::HashSet;

use uuid::Uuid;

use crate::domain::names::{Scope, name_key};
use crate::domain::status::TuningStatus;
use crate::store::listing::{self, List, Listed};
use crate::store::query::{Reader, Row, Value, assembled, pieces, placeholders_after, sql};
use crate::store::rows::{
    Definition, ListQuery, ObjectiveCounters, Page, SortKey, SortValue, TrainingCounters, TuningJob,
    TuningJobDescription, TuningJobSummary,
};
use crate::store::{StoreError, Tx, definitions};

/// What scheduling reads, in the order in which `read` does; `request` and `config`, which are long, are read alone.
macro_rules! columns {
    () => {
        "id, account, region, name_key, name, status, strategy, seed, max_jobs, max_parallel, \
         max_runtime_ms, created_at, modified_at, ended_at, stop_requested_at, failure_reason, completed, in_progress, \
         retryable_error, non_retryable_error, stopped, objective_succeeded, objective_pending, objective_failed, \
         best_id, best_value, observed, inserted, not_improving, exhausted, lease_owner, lease_epoch"
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
            "(SELECT count(*) FROM tuning_jobs AS other WHERE other.account = ",
            $account,
            " AND other.region = ",
            $region,
            " AND other.status IN ('InProgress', 'Stopping', 'Deleting'))"
        )
    };
}

/// What a job says of itself when it is new, in the order in which `values` writes them: columns 1 to 11.
const NEW_COLUMNS: usize = 11;

/// The rows of new jobs of one scope ($2, $3), after INSERT: where they begin is the same for all.
macro_rules! insert_new {
    () => {
        " INTO tuning_jobs (account, region, id, name_key, name, strategy, seed, max_jobs, max_parallel, \
         max_runtime_ms, created_at, request, config, modified_at, status, completed, in_progress, retryable_error, \
         non_retryable_error, stopped, objective_succeeded, objective_pending, objective_failed, observed, inserted, \
         not_improving, exhausted, lease_epoch) SELECT $2, $3, column1, column2, column3, column4, column5, column6, \
         column7, column8, column9, column10, column11, column9, 'InProgress', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
         FROM (VALUES "
    };
}

/// A job to be inserted, as it is at its creation, with what it trains.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The job.
    pub job: &'a TuningJob,
    /// The request body, byte for byte.
    pub request: &'a str,
    /// Its configuration, completed.
    pub config: &'a str,
    /// The definition that it refers to.
    pub definition: &'a Definition,
}

/// Inserts new jobs, those of a scope in one exchange with the database, and says of each whether it is in: `NameTaken`
/// where its name is used, else `QuotaUsed` where its scope has `quota` jobs that are not over. Refusing some keeps
/// none of the others out. The write holds the `scope_lock`s of their scopes.
pub async fn insert(tx: &mut Tx<'_>, new: &[New<'_>], quota: u32) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut inserted = HashSet::new();
    let mut rest = new.to_vec();
    while let Some(scope) = rest.first().map(|first| &first.job.scope) {
        let of_scope: Vec<New<'_>> = rest.extract_if(.., |new| new.job.scope == *scope).collect();
        for piece in pieces(&of_scope) {
            inserted.extend(insert_where_free(tx, scope, piece, quota).await?);
        }
    }
    let mut outcomes = Vec::with_capacity(new.len());
    for new in new {
        let kept = inserted.contains(&new.job.id);
        outcomes.push(if kept { Ok(()) } else { insert_alone(tx, *new, quota).await? });
    }
    Ok(outcomes)
}

/// Inserts one that was not let in beside others, or finds what is in its way.
async fn insert_alone(tx: &mut Tx<'_>, new: New<'_>, quota: u32) -> Result<Result<(), StoreError>, StoreError> {
    let New { job, definition, .. } = new;
    definitions::delete_unused(tx, definition.id).await?;
    // A name that is taken stays so whatever the quota.
    if find(tx, &job.scope, &job.name).await?.is_some() {
        return Ok(Err(StoreError::NameTaken { name: job.name.clone() }));
    }
    let row = sql("counting unfinished tuning jobs", concat!("SELECT ", unfinished!("$1", "$2")))
        .bind(&job.scope.account)
        .bind(&job.scope.region)
        .optional(tx)
        .await?;
    let used = row.map_or(Ok(quota), |row| row.reader("tuning_jobs", "count").u32())?;
    if used >= quota {
        return Ok(Err(StoreError::QuotaUsed { used }));
    }
    // It was counted behind jobs that did not get in themselves.
    let inserted = insert_where_free(tx, &job.scope, &[new], quota).await?;
    Ok(if inserted.is_empty() { Err(StoreError::QuotaUsed { used }) } else { Ok(()) })
}

/// Inserts every job of a scope whose name is free, while the scope has room for it and for those before it; returns
/// the ids of those that are in. The definitions of all of them are in then.
async fn insert_where_free(
    tx: &mut Tx<'_>,
    scope: &Scope,
    new: &[New<'_>],
    quota: u32,
) -> Result<Vec<Uuid>, StoreError> {
    const BEFORE_ROWS: usize = 3;
    let width = NEW_COLUMNS + 1;
    let taken = BEFORE_ROWS + new.len() * definitions::COLUMNS;
    // A row that fails takes the transaction's whole part along, so SQLite, which would keep what each page was before
    // the statement, need not be able to undo the statement alone.
    let insert = tx.exchange("INSERT OR FAIL", "INSERT");
    let definitions = format!(
        "{insert} INTO definitions (id, tuning_job_name, document, objective) VALUES {}",
        placeholders_after(BEFORE_ROWS, new.len(), definitions::COLUMNS)
    );
    let jobs = format!(
        concat!(
            "{}",
            insert_new!(),
            "{}) AS new WHERE ",
            unfinished!("$2", "$3"),
            " + new.column12 < $1 ON CONFLICT (account, region, name_key) DO NOTHING RETURNING id"
        ),
        insert,
        placeholders_after(taken, new.len(), width),
    );
    let text = tx.exchange(format!("{definitions}; {jobs}"), format!("WITH definition AS ({definitions}) {jobs}"));
    let mut args = Vec::with_capacity(taken + new.len() * width);
    args.extend([quota.into(), (&scope.account).into(), (&scope.region).into()]);
    args.extend(new.iter().flat_map(|new| definitions::values(new.definition)));
    for (before, one) in (0_u32..).zip(new) {
        args.extend(values(one));
        args.push(Value::from(before));
    }
    let rows = assembled("inserting tuning jobs", text, args).all(tx).await?;
    rows.iter().map(|row| row.reader("tuning_jobs", "id").parsed()).collect()
}

/// What a new job says of itself.
fn values(New { job, request, config, .. }: &New<'_>) -> [Value; NEW_COLUMNS] {
    [
        job.id.into(),
        name_key(&job.name).into(),
        (&job.name).into(),
        job.strategy.as_str().into(),
        job.seed.cast_signed().into(),
        job.max_jobs.into(),
        job.max_parallel.into(),
        job.max_runtime_ms.into(),
        job.created_at.into(),
        (*request).into(),
        (*config).into(),
    ]
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
                ", failure_reason, best_id, not_improving, config, tuning_job_name, document, objective"
            )
        };
    }
    let row = sql(
        "finding a tuning job",
        concat!(
            "SELECT ",
            described!(),
            " FROM tuning_jobs",
            definitions::joined!("id"),
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
        config: r.text()?,
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

/// The request body of a job, byte for byte.
pub async fn request(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<String>, StoreError> {
    let row = sql("reading a request", "SELECT request FROM tuning_jobs WHERE id = $1").bind(id).optional(tx).await?;
    row.map(|row| row.reader("tuning_jobs", "request").text()).transpose()
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
    super::definitions::delete_unused(tx, job.id).await
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

/// The lock that an insert into a scope holds, so that what another server inserts counts towards the quota: FNV-1a of
/// account and region.
#[must_use]
pub fn scope_lock(scope: &Scope) -> i64 {
    let bytes = scope.account.bytes().chain([0]).chain(scope.region.bytes());
    bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        .cast_signed()
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
