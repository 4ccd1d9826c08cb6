//! Rows of `log_segments`: where the parts of a finished attempt's log are kept.
//!
//! Invariant: a segment is written once: adding it again changes nothing. It is deleted with its training job. The
//! bytes are in the object store, and putting them there before, and removing them, is left to the callers.

use crate::domain::names::AttemptId;
use crate::store::query::{Value, assembled, from_u64, pieces, placeholders, sql};
use crate::store::rows::LogSegment;
use crate::store::{StoreError, Tx};

/// Adds segments of one host's logs, many in one exchange with the database; those already there are left as they are.
pub async fn add(tx: &mut Tx<'_>, host: u32, segments: &[(AttemptId, &LogSegment)]) -> Result<(), StoreError> {
    for piece in pieces(segments) {
        let text = format!(
            "INSERT INTO log_segments (training_job_id, attempt, host, first_offset, first_time, bytes, object_key) \
             VALUES {} ON CONFLICT (training_job_id, attempt, host, first_offset) DO NOTHING",
            placeholders(piece.len(), 7)
        );
        let args = piece.iter().flat_map(|(attempt, segment)| {
            [
                Value::from(attempt.training_job),
                Value::from(attempt.number),
                Value::from(host),
                from_u64(segment.first_offset),
                Value::from(segment.first_time),
                from_u64(segment.bytes),
                Value::from(&segment.object_key),
            ]
        });
        assembled("indexing a log", text, args.collect()).execute(tx).await?;
    }
    Ok(())
}

/// The segments of one host, in order.
pub async fn of_attempt(tx: &mut Tx<'_>, attempt: AttemptId, host: u32) -> Result<Vec<LogSegment>, StoreError> {
    let rows = sql(
        "reading a log's index",
        "SELECT first_offset, first_time, bytes, object_key FROM log_segments \
         WHERE training_job_id = $1 AND attempt = $2 AND host = $3 ORDER BY first_offset",
    )
    .bind(attempt.training_job)
    .bind(attempt.number)
    .bind(host)
    .all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let mut r = row.reader("log_segments", "first_offset, first_time, bytes, object_key");
            Ok(LogSegment { first_offset: r.u64()?, first_time: r.time()?, bytes: r.u64()?, object_key: r.text()? })
        })
        .collect()
}
