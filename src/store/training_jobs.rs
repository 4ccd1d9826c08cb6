//! Rows of `training_jobs`.

use uuid::Uuid;

use crate::domain::names::Scope;
use crate::domain::status::TrainingStatus;
use crate::store::rows::{ListQuery, Page, SortKey, TrainingJob};
use crate::store::{StoreError, Tx};

/// Inserts a job; `NameTaken` where its name is used.
pub async fn insert(tx: &mut Tx<'_>, job: &TrainingJob) -> Result<(), StoreError> {
    let _ = (tx, job);
    todo!()
}

/// Whether a name is used, ignoring case.
pub async fn name_exists(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<bool, StoreError> {
    let _ = (tx, scope, name);
    todo!()
}

/// The job of a name, ignoring case.
pub async fn find(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<Option<TrainingJob>, StoreError> {
    let _ = (tx, scope, name);
    todo!()
}

/// The job of an id.
pub async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TrainingJob>, StoreError> {
    let _ = (tx, id);
    todo!()
}

/// Locks the row until the end of the transaction and returns it.
pub async fn lock(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<TrainingJob>, StoreError> {
    let _ = (tx, id);
    todo!()
}

/// Writes every mutable column (all but identity and suggestion).
pub async fn update(tx: &mut Tx<'_>, job: &TrainingJob) -> Result<(), StoreError> {
    let _ = (tx, job);
    todo!()
}

/// Deletes a terminal job with its attempts, points, log index and tags; frees the name.
pub async fn delete(tx: &mut Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    let _ = (tx, id);
    todo!()
}

/// A page of a scope's jobs.
pub async fn list(
    tx: &mut Tx<'_>,
    scope: &Scope,
    query: &ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, StoreError> {
    let _ = (tx, scope, query);
    todo!()
}

/// A page of a tuning job's jobs.
pub async fn list_of_tuning_job(
    tx: &mut Tx<'_>,
    tuning_job: Uuid,
    query: &ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, StoreError> {
    let _ = (tx, tuning_job, query);
    todo!()
}

/// A tuning job's jobs that are not over, by ordinal.
pub async fn live(tx: &mut Tx<'_>, tuning_job: Uuid) -> Result<Vec<TrainingJob>, StoreError> {
    let _ = (tx, tuning_job);
    todo!()
}

/// All of a tuning job's jobs, by ordinal: the study, when a server takes it over.
pub async fn history(tx: &mut Tx<'_>, tuning_job: Uuid) -> Result<Vec<TrainingJob>, StoreError> {
    let _ = (tx, tuning_job);
    todo!()
}
