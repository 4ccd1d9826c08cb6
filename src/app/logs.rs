//! Reading a training job's log, wherever it is kept.

use crate::app::{App, AppError};
use crate::domain::names::Scope;
use crate::executor::LogRecord;

/// A part of a training job's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// Whole records, oldest first.
    pub lines: Vec<LogRecord>,
    /// Where to go on: a byte offset.
    pub next_offset: u64,
    /// Whether nothing will ever follow.
    pub end: bool,
}

/// Reads the log of an attempt (the latest one where none is asked for) from a byte offset on.
#[expect(clippy::unused_async, reason = "it will read")]
pub async fn read(
    app: &App,
    scope: &Scope,
    name: &str,
    attempt: Option<u32>,
    from_offset: u64,
) -> Result<LogPage, AppError> {
    let _ = (app, scope, name, attempt, from_offset);
    Err(AppError::Internal("logs are not built yet".into()))
}
