//! Reading a training job's log, wherever it is kept.
//!
//! Invariant: offsets are bytes of the stored log, the same before and after the log moved from its executor to the
//! object store; so a reader that goes on at `next_offset` of the same attempt loses nothing and sees nothing twice.

use crate::app::{App, AppError, training_jobs};
use crate::domain::names::{AttemptId, Scope};
use crate::domain::status::AttemptState;
use crate::executor::{LogRecord, log_format};
use crate::store::rows::LogSegment;
use crate::store::{attempts, logs};

/// About how many bytes a page has.
const PAGE_BYTES: usize = 256 * 1024;
/// More than the longest record: a page that holds not one whole record is read again with this.
const RECORD_BYTES: usize = 2 * 1024 * 1024;

/// A part of a training job's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The attempt that it is of; none where there is no such attempt, yet or at all. Each attempt has offsets of its own.
    pub attempt: Option<u32>,
    /// Whole records, oldest first.
    pub lines: Vec<LogRecord>,
    /// Where to go on: a byte offset.
    pub next_offset: u64,
    /// Whether nothing will ever follow: of this attempt, or, where there is none, of the training job.
    pub end: bool,
}

/// What the rows say of an attempt's log.
struct Known {
    attempt: AttemptId,
    /// Of the attempt; none where there is no such attempt.
    state: Option<(AttemptState, String)>,
    /// Whether a later attempt could still come.
    job_over: bool,
    segments: Vec<LogSegment>,
}

/// Reads the log of an attempt (the latest one where none is asked for) from a byte offset on.
pub async fn read(
    app: &App,
    scope: &Scope,
    name: &str,
    attempt: Option<u32>,
    from_offset: u64,
) -> Result<LogPage, AppError> {
    let known = known(app, scope.clone(), name.to_owned(), attempt).await?;
    let number = known.state.is_some().then_some(known.attempt.number);
    let page = page(app, known, from_offset).await?;
    Ok(LogPage { attempt: number, ..page })
}

/// A page of what is known, as if of no attempt.
async fn page(app: &App, known: Known, from_offset: u64) -> Result<LogPage, AppError> {
    let nothing = |end| LogPage { next_offset: from_offset, end, ..LogPage::default() };
    let Some((state, executor_id)) = &known.state else {
        return Ok(nothing(known.job_over));
    };
    let over = *state != AttemptState::Inserted;
    if let Some(segment) = known.segments.iter().find(|s| s.first_offset + s.bytes > from_offset) {
        return kept(app, segment, from_offset.max(segment.first_offset)).await;
    }
    if over && !known.segments.is_empty() {
        return Ok(nothing(true));
    }
    if *state == AttemptState::Removed || executor_id != app.executor.id() {
        return Ok(nothing(over));
    }
    let chunk = app
        .executor
        .logs(known.attempt, from_offset, PAGE_BYTES)
        .await
        .map_err(|error| AppError::Internal(Box::new(error)))?;
    let end = over && chunk.records.is_empty();
    Ok(LogPage { lines: chunk.records, next_offset: chunk.next_offset, end, ..LogPage::default() })
}

async fn known(app: &App, scope: Scope, name: String, attempt: Option<u32>) -> Result<Known, AppError> {
    app.db
        .read(move |tx| {
            Box::pin(async move {
                let job = training_jobs::find(tx, &scope, &name).await?;
                let id = AttemptId { training_job: job.id, number: attempt.unwrap_or(job.attempts) };
                let state = attempts::get(tx, id).await?.map(|row| (row.state, row.executor_id));
                let segments = logs::of_attempt(tx, id, 0).await?;
                Ok::<_, AppError>(Known { attempt: id, state, job_over: job.status.is_terminal(), segments })
            })
        })
        .await
}

/// A page from a segment in the object store.
async fn kept(app: &App, segment: &LogSegment, from: u64) -> Result<LogPage, AppError> {
    for max_bytes in [PAGE_BYTES, RECORD_BYTES] {
        let bytes = app
            .objects
            .read_log(&segment.object_key, from - segment.first_offset, max_bytes)
            .await
            .map_err(|error| AppError::Internal(Box::new(error)))?;
        let (lines, next_offset) = log_format::read(&bytes, from);
        if !lines.is_empty() {
            return Ok(LogPage { lines, next_offset, ..LogPage::default() });
        }
        if bytes.len() < max_bytes {
            break;
        }
    }
    // What is left of the segment is no whole record (or the offset was none of ours): go on behind it.
    Ok(LogPage { next_offset: segment.first_offset + segment.bytes, ..LogPage::default() })
}
