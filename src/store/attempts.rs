//! Rows of `attempts` and `hosts`.
//!
//! Invariant: an attempt goes from `Inserted` to `Ended` to `Removed`, never back.

use crate::domain::names::AttemptId;
use crate::domain::outcome::Exit;
use crate::domain::status::AttemptState;
use crate::store::query::{Reader, Row, Value, assembled, json, pieces, placeholders, sql};
use crate::store::rows::Attempt;
use crate::store::{StoreError, Tx};

/// Every column; no other table that these are joined to has one of the same name.
macro_rules! columns {
    () => {
        "training_job_id, number, executor_id, state, stop_requested, end_record, inserted_at"
    };
}
pub(super) use columns;

/// Inserts attempts (state `Inserted`), each with its first host, many in one exchange with the database.
pub async fn insert(tx: &mut Tx<'_>, attempts: &[Attempt]) -> Result<(), StoreError> {
    const WIDTH: usize = 7;
    for piece in pieces(attempts) {
        let rows =
            format!(concat!("INSERT INTO attempts (", columns!(), ") VALUES {}"), placeholders(piece.len(), WIDTH));
        let hosts = "INSERT INTO hosts (training_job_id, attempt, host, read_offset, non_finite) \
                     SELECT training_job_id, number, 0, 0, 0 FROM";
        let keys: Vec<String> =
            (0..piece.len()).map(|at| format!("(${}, ${})", at * WIDTH + 1, at * WIDTH + 2)).collect();
        let script =
            format!("{rows}; {hosts} attempts WHERE (training_job_id, number) IN (VALUES {})", keys.join(", "));
        let statement = format!("WITH attempt AS ({rows} RETURNING training_job_id, number) {hosts} attempt");
        let mut args = Vec::with_capacity(piece.len() * WIDTH);
        for attempt in piece {
            args.extend::<[Value; WIDTH]>([
                attempt.id.training_job.into(),
                attempt.id.number.into(),
                (&attempt.executor_id).into(),
                attempt.state.as_str().into(),
                attempt.stop_requested.into(),
                attempt.exit.as_ref().map_or(Ok(Value::Text(None)), json)?,
                attempt.inserted_at.into(),
            ]);
        }
        assembled("inserting attempts", tx.exchange(script, statement), args).execute(tx).await?;
    }
    Ok(())
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

/// Records how attempts ended: `Inserted` becomes `Ended`. Returns how many had not ended before.
pub async fn end(tx: &mut Tx<'_>, ends: &[(AttemptId, &Exit)]) -> Result<u64, StoreError> {
    let mut ended = 0;
    for piece in pieces(ends) {
        let text = format!(
            "UPDATE attempts SET state = 'Ended', end_record = new.column3 FROM (VALUES {}) AS new \
             WHERE training_job_id = new.column1 AND number = new.column2 AND state = 'Inserted'",
            placeholders(piece.len(), 3)
        );
        let mut args = Vec::with_capacity(piece.len() * 3);
        for (id, exit) in piece {
            args.extend([id.training_job.into(), id.number.into(), json(exit)?]);
        }
        ended += assembled("recording the end of attempts", text, args).execute(tx).await?;
    }
    Ok(ended)
}

/// Asks the attempts' executor to end them.
pub async fn request_stop(tx: &mut Tx<'_>, ids: &[AttemptId]) -> Result<(), StoreError> {
    set_where(tx, "asking for the end of attempts", "stop_requested = 1", ids).await
}

/// Notes that the executor holds nothing of them any more.
pub async fn mark_removed(tx: &mut Tx<'_>, ids: &[AttemptId]) -> Result<(), StoreError> {
    set_where(tx, "noting the removal of attempts", "state = 'Removed'", ids).await
}

async fn set_where(tx: &mut Tx<'_>, doing: &'static str, set: &str, ids: &[AttemptId]) -> Result<(), StoreError> {
    for piece in pieces(ids) {
        let text = format!(
            "UPDATE attempts SET {set} WHERE (training_job_id, number) IN (VALUES {})",
            placeholders(piece.len(), 2)
        );
        let args = piece.iter().flat_map(|id| [Value::from(id.training_job), Value::from(id.number)]).collect();
        assembled(doing, text, args).execute(tx).await?;
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

fn read(row: &Row) -> Result<Attempt, StoreError> {
    read_columns(&mut row.reader("attempts", columns!()))
}

/// Reads an attempt's columns, the next ones of the row.
pub(super) fn read_columns(r: &mut Reader<'_>) -> Result<Attempt, StoreError> {
    Ok(Attempt {
        id: AttemptId { training_job: r.parsed()?, number: r.u32()? },
        executor_id: r.text()?,
        state: r.parsed::<AttemptState>()?,
        stop_requested: r.flag()?,
        exit: r.opt_json()?,
        inserted_at: r.time()?,
    })
}
