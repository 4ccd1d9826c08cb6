//! Rows of `metric_points`, and the reading position that commits with them.

use uuid::Uuid;

use crate::domain::names::AttemptId;
use crate::store::rows::{MetricPoint, ReadPosition};
use crate::store::{StoreError, Tx};

/// Where to go on reading a host's log.
pub async fn position(tx: &mut Tx<'_>, attempt: AttemptId, host: u32) -> Result<ReadPosition, StoreError> {
    let _ = (tx, attempt, host);
    todo!()
}

/// Appends points and moves the reading position, in one step. Points already there are left as they are. Keeps at
/// most 10,000 points per metric and training job, thinned evenly, the last and the best exact.
pub async fn append(
    tx: &mut Tx<'_>,
    attempt: AttemptId,
    host: u32,
    points: &[MetricPoint],
    position: ReadPosition,
) -> Result<(), StoreError> {
    let _ = (tx, attempt, host, points, position);
    todo!()
}

/// All points of one metric of a training job on its first host, in order of attempt and offset.
pub async fn curve(tx: &mut Tx<'_>, training_job: Uuid, definition: u32) -> Result<Vec<MetricPoint>, StoreError> {
    let _ = (tx, training_job, definition);
    todo!()
}
