//! Tags of tuning and training jobs.
//!
//! Invariant: a tag hangs on a resource that exists in the caller's account and region; at most
//! [`rules::MAX_TAGS`] on each. That a tuning job's tags reach the training jobs launched later is the scheduler's.

use crate::app::{App, AppError, TrainingJob, TuningJob, training_jobs};
use crate::domain::names::Scope;
use crate::domain::request::Tag;
use crate::domain::rules;
use crate::store::{self, Tx, WriteClass, tags};

/// Sets tags, and returns all that the resource has then.
pub async fn add(app: &App, scope: &Scope, arn: &str, new: Vec<Tag>) -> Result<Vec<Tag>, AppError> {
    let (scope, arn) = (scope.clone(), arn.to_owned());
    rules::tags(&new)?;
    app.db
        .write(WriteClass::Api, move |tx| {
            let (scope, arn, new) = (scope.clone(), arn.clone(), new.clone());
            Box::pin(async move {
                let arn = find_and_lock(tx, &scope, &arn).await?;
                tags::set(tx, &arn, &new).await?;
                let all = tags::list(tx, &arn).await?;
                rules::tag_count(all.len())?;
                Ok(all)
            })
        })
        .await
}

/// All tags of a resource, by key.
pub async fn list(app: &App, scope: &Scope, arn: &str) -> Result<Vec<Tag>, AppError> {
    let (scope, arn) = (scope.clone(), arn.to_owned());
    app.db
        .read(move |tx| {
            Box::pin(async move {
                let (_, arn) = find(tx, &scope, &arn).await?;
                tags::list(tx, &arn).await.map_err(AppError::from)
            })
        })
        .await
}

/// Removes tags; keys that are not there are ignored.
pub async fn remove(app: &App, scope: &Scope, arn: &str, keys: Vec<String>) -> Result<(), AppError> {
    let (scope, arn) = (scope.clone(), arn.to_owned());
    app.db
        .write(WriteClass::Api, move |tx| {
            let (scope, arn, keys) = (scope.clone(), arn.clone(), keys.clone());
            Box::pin(async move {
                let arn = find_and_lock(tx, &scope, &arn).await?;
                tags::remove(tx, &arn, &keys).await.map_err(AppError::from)
            })
        })
        .await
}

/// A resource that has tags.
enum Resource {
    Tuning(TuningJob),
    Training(TrainingJob),
}

/// The resource of an ARN, and the ARN under which its tags are kept; refused where there is none such in the scope. An
/// ARN of another account or region is answered like a missing one, so that it tells nothing.
async fn find(tx: &mut Tx<'_>, scope: &Scope, arn: &str) -> Result<(Resource, String), AppError> {
    if let Some(name) = name_in(arn, &scope.tuning_job_arn("")) {
        let job = store::tuning_jobs::find(tx, scope, name).await?.ok_or_else(AppError::no_training_job)?;
        let arn = scope.tuning_job_arn(&job.name);
        return Ok((Resource::Tuning(job), arn));
    }
    if let Some(name) = name_in(arn, &scope.training_job_arn("")) {
        let job = training_jobs::find(tx, scope, name).await?;
        let arn = scope.training_job_arn(&job.name);
        return Ok((Resource::Training(job), arn));
    }
    Err(AppError::no_training_job())
}

/// As [`find`], and keeps the resource from being deleted, or tagged by another call, until the transaction ends.
async fn find_and_lock(tx: &mut Tx<'_>, scope: &Scope, arn: &str) -> Result<String, AppError> {
    let (resource, arn) = find(tx, scope, arn).await?;
    let there = match resource {
        Resource::Tuning(job) => store::tuning_jobs::lock(tx, job.id).await?.is_some(),
        Resource::Training(job) => store::training_jobs::lock(tx, job.id).await?.is_some(),
    };
    if there { Ok(arn) } else { Err(AppError::no_training_job()) }
}

fn name_in<'a>(arn: &'a str, prefix: &str) -> Option<&'a str> {
    arn.strip_prefix(prefix).filter(|name| !name.is_empty())
}
