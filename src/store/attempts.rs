//! Rows of `attempts` and `hosts`.

use crate::domain::names::AttemptId;
use crate::domain::outcome::Exit;
use crate::store::rows::Attempt;
use crate::store::{StoreError, Tx};

/// Inserts an attempt (state `Inserted`) with its first host.
pub async fn insert(tx: &mut Tx<'_>, attempt: &Attempt) -> Result<(), StoreError> {
    let _ = (tx, attempt);
    todo!()
}

/// The attempt of an id.
pub async fn get(tx: &mut Tx<'_>, id: AttemptId) -> Result<Option<Attempt>, StoreError> {
    let _ = (tx, id);
    todo!()
}

/// Records how an attempt ended: `Inserted` becomes `Ended`. False where it had ended before.
pub async fn end(tx: &mut Tx<'_>, id: AttemptId, exit: &Exit) -> Result<bool, StoreError> {
    let _ = (tx, id, exit);
    todo!()
}

/// Asks the attempt's executor to end it.
pub async fn request_stop(tx: &mut Tx<'_>, id: AttemptId) -> Result<(), StoreError> {
    let _ = (tx, id);
    todo!()
}

/// Notes that the executor holds nothing of it any more.
pub async fn mark_removed(tx: &mut Tx<'_>, ids: &[AttemptId]) -> Result<(), StoreError> {
    let _ = (tx, ids);
    todo!()
}

/// Every attempt of an executor that is not `Removed`, oldest first.
pub async fn of_executor(tx: &mut Tx<'_>, executor_id: &str) -> Result<Vec<Attempt>, StoreError> {
    let _ = (tx, executor_id);
    todo!()
}

/// The latest attempt of each training job of a tuning job that is not over.
pub async fn live_of_tuning_job(tx: &mut Tx<'_>, tuning_job: uuid::Uuid) -> Result<Vec<Attempt>, StoreError> {
    let _ = (tx, tuning_job);
    todo!()
}
