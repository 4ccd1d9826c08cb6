//! Rows of `tuning_jobs`.

use uuid::Uuid;

use crate::domain::names::Scope;
use crate::domain::status::TuningStatus;
use crate::store::rows::{ListQuery, Page, SortKey, TuningJob};
use crate::store::{StoreError, Tx};

/// Inserts a new job; `NameTaken` where its name is used.
pub async fn insert(tx: &mut Tx<'_>, job: &TuningJob) -> Result<(), StoreError> {
    let _ = (tx, job);
    todo!()
}

/// The job of a name, ignoring case.
pub async fn find(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<Option<TuningJob>, StoreError> {
    let _ = (tx, scope, name);
    todo!()
}

/// The job of an id.
pub async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TuningJob>, StoreError> {
    let _ = (tx, id);
    todo!()
}

/// Locks the row until the end of the transaction and returns it: the first statement of every scheduling transaction.
pub async fn lock(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TuningJob>, StoreError> {
    let _ = (tx, id);
    todo!()
}

/// Writes every mutable column of a locked job (all but identity, request, seed, limits and lease).
pub async fn update(tx: &mut Tx<'_>, job: &TuningJob) -> Result<(), StoreError> {
    let _ = (tx, job);
    todo!()
}

/// Deletes the row and its tags; its training jobs stay.
pub async fn delete(tx: &mut Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    let _ = (tx, id);
    todo!()
}

/// A page of a scope's jobs.
pub async fn list(
    tx: &mut Tx<'_>,
    scope: &Scope,
    query: &ListQuery<TuningStatus, SortKey>,
) -> Result<Page<TuningJob>, StoreError> {
    let _ = (tx, scope, query);
    todo!()
}

/// The ids of all jobs that are not terminal: the scheduler's sweep.
pub async fn unfinished(tx: &mut Tx<'_>) -> Result<Vec<Uuid>, StoreError> {
    let _ = tx;
    todo!()
}

/// How many jobs of an account are not terminal: the quota.
pub async fn count_unfinished(tx: &mut Tx<'_>, scope: &Scope) -> Result<u32, StoreError> {
    let _ = (tx, scope);
    todo!()
}

/// Takes the lease of a job for a server and returns the new fencing token; none while a live server holds it. Taking
/// what one already holds returns the token in force.
pub async fn acquire_lease(tx: &mut Tx<'_>, id: Uuid, server: Uuid) -> Result<Option<i64>, StoreError> {
    let _ = (tx, id, server);
    todo!()
}
