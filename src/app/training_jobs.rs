//! Training jobs: describe, list, stop, delete.
//!
//! Invariant: a stop changes intent only, under the locks of the tuning job and then of the training job; a training
//! job that a running tuning job still learns from is not deleted, since suggestions replay from that history.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::app::{App, AppError, ListQuery, Page, SortKey, TrainingJob, TuningJob, tuning_jobs as tuning};
use crate::domain::names::{AttemptId, Scope};
use crate::domain::request::Objective;
use crate::domain::status::{ObjectiveStatus, SecondaryStatus, TrainingStatus};
use crate::domain::time::Timestamp;
use crate::store::rows::{Attempt, Definition};
use crate::store::{Tx, WriteClass, attempts, definitions, training_jobs, tuning_jobs};

/// A row of `definitions`, read.
#[derive(Debug, Clone)]
pub struct DefinitionView {
    /// The tuning job's name at the time.
    pub tuning_job_name: Option<String>,
    /// The definition's own name, where the request gave one.
    pub definition_name: Option<String>,
    /// The `TrainingJobDefinition` of the request, completed.
    pub document: Box<RawValue>,
    /// The objective; none for a training job without a tuning job.
    pub objective: Option<Objective>,
}

/// A training job and what it shares with others.
#[derive(Debug, Clone)]
pub struct TrainingJobView {
    /// The row.
    pub job: TrainingJob,
    /// What it trains.
    pub definition: Arc<DefinitionView>,
}

/// What is read of a document that is passed on whole.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "DefinitionName")]
    definition_name: Option<String>,
}

/// As above.
#[derive(Deserialize)]
struct Spot {
    #[serde(rename = "EnableManagedSpotTraining")]
    enabled: Option<bool>,
}

impl DefinitionView {
    /// Reads the definition of an id, which a job's row names.
    pub(crate) async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Self, AppError> {
        let row = definitions::get(tx, id)
            .await?
            .ok_or_else(|| AppError::Internal(format!("definition {id} is missing").into()))?;
        Self::read(row)
    }

    /// Reads a row.
    fn read(row: Definition) -> Result<Self, AppError> {
        Self::new(row.tuning_job_name, row.document, row.objective.as_deref())
    }

    /// Reads the columns that are shown.
    pub(crate) fn new(
        tuning_job_name: Option<String>,
        document: String,
        objective: Option<&str>,
    ) -> Result<Self, AppError> {
        let objective = objective.map(serde_json::from_str).transpose();
        let named: Named = serde_json::from_str(&document).map_err(AppError::unreadable)?;
        Ok(Self {
            tuning_job_name,
            definition_name: named.definition_name,
            document: RawValue::from_string(document).map_err(AppError::unreadable)?,
            objective: objective.map_err(AppError::unreadable)?,
        })
    }
}

/// A training job with what it trains.
pub async fn describe(app: &App, scope: &Scope, name: &str) -> Result<TrainingJobView, AppError> {
    let (scope, name) = (scope.clone(), name.to_owned());
    let found = app
        .db
        .glance(move |tx| {
            Box::pin(
                async move { training_jobs::find_with_definition(tx, &scope, &name).await.map_err(AppError::from) },
            )
        })
        .await?;
    let (job, definition) = found.ok_or_else(AppError::no_training_job)?;
    Ok(TrainingJobView { job, definition: Arc::new(DefinitionView::read(definition)?) })
}

/// A page of the scope's training jobs.
pub async fn list(
    app: &App,
    scope: &Scope,
    query: ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, AppError> {
    let scope = scope.clone();
    if query.is_unfiltered() {
        return app.db.glance(move |tx| Box::pin(list_page(tx, scope, query))).await;
    }
    app.db.read(move |tx| Box::pin(list_page(tx, scope, query))).await
}

async fn list_page(
    tx: &mut Tx<'_>,
    scope: Scope,
    query: ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, AppError> {
    Ok(training_jobs::list(tx, &scope, &query).await?)
}

/// A page of a tuning job's training jobs, each with what it trains.
pub async fn list_of_tuning_job(
    app: &App,
    scope: &Scope,
    tuning_job: &str,
    query: ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJobView>, AppError> {
    let (scope, tuning_job) = (scope.clone(), tuning_job.to_owned());
    app.db
        .read(move |tx| {
            Box::pin(async move {
                let id = tuning::find(tx, &scope, &tuning_job).await?.id;
                let page = training_jobs::list_of_tuning_job(tx, id, &query).await?;
                let mut definitions = HashMap::new();
                let mut items = Vec::with_capacity(page.items.len());
                for job in page.items {
                    let definition = match definitions.get(&job.definition_id) {
                        Some(known) => Arc::clone(known),
                        None => Arc::new(DefinitionView::get(tx, job.definition_id).await?),
                    };
                    definitions.insert(job.definition_id, Arc::clone(&definition));
                    items.push(TrainingJobView { job, definition });
                }
                Ok(Page { items, next: page.next })
            })
        })
        .await
}

/// Asks a training job to stop. Asking twice is asking once.
pub async fn stop(app: &App, scope: &Scope, name: &str) -> Result<(), AppError> {
    let (scope, name) = (scope.clone(), name.to_owned());
    let now = app.clock.now();
    let tuning_job = app
        .db
        .write(WriteClass::Api, move |tx| {
            let (scope, name) = (scope.clone(), name.clone());
            Box::pin(async move {
                let job = find_and_lock(tx, &scope, &name).await?.job;
                if job.status.is_terminal() {
                    return Err(AppError::Validation(format!(
                        "The request was rejected because the training job is in status {}.",
                        job.status
                    )));
                }
                let tuning_job = job.tuning_job_id;
                let latest = attempts::get(tx, AttemptId { training_job: job.id, number: job.attempts }).await?;
                ask_to_stop(tx, vec![(job, latest)], now).await?;
                Ok(tuning_job)
            })
        })
        .await?;
    if let Some(tuning_job) = tuning_job {
        app.calls.call(tuning_job);
    }
    Ok(())
}

/// Asks training jobs to stop, and their latest attempts in the same transaction: what waits for a slot must not start
/// any more once its job shows that it is stopping.
pub(super) async fn ask_to_stop(
    tx: &mut Tx<'_>,
    live: Vec<(TrainingJob, Option<Attempt>)>,
    now: Timestamp,
) -> Result<(), AppError> {
    let (mut jobs, mut running) = (Vec::new(), Vec::new());
    for (mut job, attempt) in live {
        running.extend(attempt.filter(|attempt| attempt.exit.is_none() && !attempt.stop_requested).map(|a| a.id));
        if job.stop_requested_at.is_none() {
            job.request_stop(now);
            jobs.push(job);
        }
    }
    training_jobs::update(tx, &jobs.iter().collect::<Vec<_>>()).await?;
    Ok(attempts::request_stop(tx, &running).await?)
}

/// Takes a training job's capacity away, as a spot interruption does: its attempt ends, and a further one goes on from
/// its checkpoints. Only for a training job with `EnableManagedSpotTraining` that runs.
pub async fn interrupt(app: &App, scope: &Scope, name: &str) -> Result<(), AppError> {
    let (scope, name) = (scope.clone(), name.to_owned());
    let tuning_job = app
        .db
        .write(WriteClass::Api, move |tx| {
            let (scope, name) = (scope.clone(), name.clone());
            Box::pin(async move {
                let job = find_and_lock(tx, &scope, &name).await?.job;
                let refused = |why: &str| Err(AppError::Validation(format!("{} is not interrupted: {why}.", job.name)));
                if job.status != TrainingStatus::InProgress {
                    return refused(&format!("it is in status {}", job.status));
                }
                if job.secondary == SecondaryStatus::Uploading {
                    return refused("its program has ended, and what it left is being stored");
                }
                let definition = definitions::get(tx, job.definition_id).await?;
                let definition = definition.ok_or_else(|| AppError::Internal("a definition is missing".into()))?;
                let spot: Spot = serde_json::from_str(&definition.document).map_err(AppError::unreadable)?;
                if spot.enabled != Some(true) {
                    return refused("its EnableManagedSpotTraining is not true");
                }
                let latest = AttemptId { training_job: job.id, number: job.attempts };
                match attempts::get(tx, latest).await?.filter(|attempt| attempt.exit.is_none()) {
                    Some(_) => attempts::request_stop(tx, &[latest]).await?,
                    None => return refused("it is between two attempts"),
                }
                Ok(job.tuning_job_id)
            })
        })
        .await?;
    if let Some(tuning_job) = tuning_job {
        app.calls.call(tuning_job);
    }
    Ok(())
}

/// Deletes a training job that is over, with its kept log; its name can be used again. Its artifacts stay. Where it was its
/// tuning job's best, the best of those left is.
pub async fn delete(app: &App, scope: &Scope, name: &str) -> Result<(), AppError> {
    let (scope, name) = (scope.clone(), name.to_owned());
    let job = app
        .db
        .write(WriteClass::Api, move |tx| {
            let (scope, name) = (scope.clone(), name.clone());
            Box::pin(async move {
                let Locked { job, tuning_job } = find_and_lock(tx, &scope, &name).await?;
                if !job.status.is_terminal() {
                    return Err(AppError::InUse(format!(
                        "The training job {} is in status {}. Stop it, and delete it once it is Stopped.",
                        job.name, job.status
                    )));
                }
                if let Some(TuningJob { name, .. }) = tuning_job.as_ref().filter(|parent| !parent.status.is_terminal())
                {
                    return Err(AppError::InUse(format!(
                        "The training job {} is part of the hyperparameter tuning job {name}, which is still \
                         running and learns from it. Delete it once the tuning job is over.",
                        job.name
                    )));
                }
                training_jobs::delete(tx, job.id).await?;
                if let Some(tuning_job) = tuning_job.filter(|parent| parent.best.is_some_and(|(id, _)| id == job.id)) {
                    name_next_best(tx, tuning_job).await?;
                }
                Ok(job)
            })
        })
        .await?;
    for number in 1..=job.attempts {
        let attempt = AttemptId { training_job: job.id, number };
        // The row is gone, so the call has succeeded; a log that stays costs space only.
        if let Err(error) = app.objects.remove_log(attempt).await {
            tracing::warn!(%attempt, %error, "the log of a deleted training job could not be removed");
        }
    }
    Ok(())
}

/// The training job of a name, or the service's refusal.
pub(crate) async fn find(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<TrainingJob, AppError> {
    training_jobs::find(tx, scope, name).await?.ok_or_else(AppError::no_training_job)
}

/// Names the best of a locked tuning job anew, as if its training jobs had ended just now, one after the other.
async fn name_next_best(tx: &mut Tx<'_>, mut tuning_job: TuningJob) -> Result<(), AppError> {
    let definition = DefinitionView::get(tx, tuning_job.id).await?;
    let Some(Objective { direction, .. }) = definition.objective else { return Ok(()) };
    let mut left = training_jobs::history(tx, tuning_job.id).await?;
    left.sort_by_key(|job| job.observation);
    tuning_job.best = None;
    for job in left.iter().filter(|job| job.may_be_best() && job.objective_status == ObjectiveStatus::Succeeded) {
        let Some(value) = job.objective_value else { continue };
        if tuning_job.best.is_none_or(|(_, best)| direction.is_better(value, best)) {
            tuning_job.best = Some((job.id, value));
        }
    }
    tuning_jobs::update(tx, &tuning_job).await.map_err(AppError::from)
}

/// A locked training job.
struct Locked {
    job: TrainingJob,
    /// Its tuning job, locked too, unless that was deleted.
    tuning_job: Option<TuningJob>,
}

/// Locks a training job after its tuning job: every transaction takes locks in this order.
async fn find_and_lock(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<Locked, AppError> {
    let found = find(tx, scope, name).await?;
    let tuning_job = match found.tuning_job_id {
        Some(id) => tuning_jobs::lock(tx, id).await?,
        None => None,
    };
    // It may have been deleted while this waited for the locks.
    let job = training_jobs::lock(tx, found.id).await?.ok_or_else(AppError::no_training_job)?;
    Ok(Locked { job, tuning_job })
}
