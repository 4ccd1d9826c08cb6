//! Rows of `attempts` and `hosts`.
//!
//! Invariant: an attempt goes from `Inserted` to `Ended` to `Removed`, never back.

use crate::domain::names::AttemptId;
use crate::domain::outcome::Exit;
use crate::domain::status::AttemptState;
use crate::store::query::{Row, Value, assembled, json, pieces, placeholders, sql};
use crate::store::rows::Attempt;
use crate::store::{StoreError, Tx};

macro_rules! columns {
    () => {
        "training_job_id, number, executor_id, state, stop_requested, end_record, inserted_at"
    };
}

/// Inserts an attempt (state `Inserted`) with its first host.
pub async fn insert(tx: &mut Tx<'_>, attempt: &Attempt) -> Result<(), StoreError> {
    sql("inserting an attempt", concat!("INSERT INTO attempts (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7)"))
        .bind(attempt.id.training_job)
        .bind(attempt.id.number)
        .bind(&attempt.executor_id)
        .bind(attempt.state.as_str())
        .bind(attempt.stop_requested)
        .bind(attempt.exit.as_ref().map_or(Ok(Value::Text(None)), json)?)
        .bind(attempt.inserted_at)
        .execute(tx)
        .await?;
    sql(
        "inserting an attempt's host",
        "INSERT INTO hosts (training_job_id, attempt, host, read_offset, non_finite) VALUES ($1, $2, 0, 0, 0)",
    )
    .bind(attempt.id.training_job)
    .bind(attempt.id.number)
    .execute(tx)
    .await
    .map(|_| ())
}

/// The attempt of an id.
pub async fn get(tx: &mut Tx<'_>, id: AttemptId) -> Result<Option<Attempt>, StoreError> {
    let row = sql(
        "reading an attempt",
        concat!("SELECT ", columns!(), " FROM attempts WHERE training_job_id = $1 AND number = $2"),
    )
    .bind(id.training_job)
    .bind(id.number)
    .optional(tx)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Records how an attempt ended: `Inserted` becomes `Ended`. False where it had ended before.
pub async fn end(tx: &mut Tx<'_>, id: AttemptId, exit: &Exit) -> Result<bool, StoreError> {
    let ended = sql(
        "recording an attempt's end",
        "UPDATE attempts SET state = 'Ended', end_record = $3 \
         WHERE training_job_id = $1 AND number = $2 AND state = 'Inserted'",
    )
    .bind(id.training_job)
    .bind(id.number)
    .bind(json(exit)?)
    .execute(tx)
    .await?;
    Ok(ended > 0)
}

/// Asks the attempt's executor to end it.
pub async fn request_stop(tx: &mut Tx<'_>, id: AttemptId) -> Result<(), StoreError> {
    sql(
        "asking for an attempt's end",
        "UPDATE attempts SET stop_requested = 1 WHERE training_job_id = $1 AND number = $2",
    )
    .bind(id.training_job)
    .bind(id.number)
    .execute(tx)
    .await
    .map(|_| ())
}

/// Notes that the executor holds nothing of them any more.
pub async fn mark_removed(tx: &mut Tx<'_>, ids: &[AttemptId]) -> Result<(), StoreError> {
    for piece in pieces(ids) {
        let text = format!(
            "UPDATE attempts SET state = 'Removed' WHERE (training_job_id, number) IN (VALUES {})",
            placeholders(piece.len(), 2)
        );
        let args = piece.iter().flat_map(|id| [Value::from(id.training_job), Value::from(id.number)]).collect();
        assembled("noting the removal of attempts", text, args).execute(tx).await?;
    }
    Ok(())
}

/// Every attempt of an executor that is not `Removed`, oldest first.
pub async fn of_executor(tx: &mut Tx<'_>, executor_id: &str) -> Result<Vec<Attempt>, StoreError> {
    let rows = sql(
        "reading an executor's attempts",
        concat!(
            "SELECT ",
            columns!(),
            " FROM attempts WHERE executor_id = $1 AND state <> 'Removed' \
             ORDER BY inserted_at, training_job_id, number"
        ),
    )
    .bind(executor_id)
    .all(tx)
    .await?;
    rows.iter().map(read).collect()
}

/// The latest attempt of each training job of a tuning job that is not over.
pub async fn live_of_tuning_job(tx: &mut Tx<'_>, tuning_job: uuid::Uuid) -> Result<Vec<Attempt>, StoreError> {
    let rows = sql(
        "reading the attempts of live training jobs",
        "SELECT a.training_job_id, a.number, a.executor_id, a.state, a.stop_requested, a.end_record, a.inserted_at \
         FROM training_jobs j JOIN attempts a ON a.training_job_id = j.id AND a.number = j.attempts \
         WHERE j.tuning_job_id = $1 AND j.status IN ('InProgress', 'Stopping', 'Deleting') ORDER BY j.ordinal",
    )
    .bind(tuning_job)
    .all(tx)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Attempt, StoreError> {
    let mut r = row.reader("attempts", columns!());
    Ok(Attempt {
        id: AttemptId { training_job: r.parsed()?, number: r.u32()? },
        executor_id: r.text()?,
        state: r.parsed::<AttemptState>()?,
        stop_requested: r.flag()?,
        exit: r.opt_json()?,
        inserted_at: r.time()?,
    })
}
