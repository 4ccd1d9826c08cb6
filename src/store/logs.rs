//! Rows of `log_segments`: where the parts of a finished attempt's log are kept.

use crate::domain::names::AttemptId;
use crate::store::rows::LogSegment;
use crate::store::{StoreError, Tx};

/// Adds segments; those already there are left as they are.
pub async fn add(tx: &mut Tx<'_>, attempt: AttemptId, host: u32, segments: &[LogSegment]) -> Result<(), StoreError> {
    let _ = (tx, attempt, host, segments);
    todo!()
}

/// The segments of one host, in order.
pub async fn of_attempt(tx: &mut Tx<'_>, attempt: AttemptId, host: u32) -> Result<Vec<LogSegment>, StoreError> {
    let _ = (tx, attempt, host);
    todo!()
}
