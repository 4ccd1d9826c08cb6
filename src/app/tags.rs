//! Tags of tuning and training jobs.
//!
//! Invariant: a tag hangs on a resource that exists in the caller's account and region; at most
//! [`rules::MAX_TAGS`] on each. That a tuning job's tags reach the training jobs launched later is the scheduler's.

use crate::app::{App, AppError, training_jobs, tuning_jobs};
use crate::domain::names::Scope;
use crate::domain::request::Tag;
use crate::domain::rules;
use crate::store::{Tx, WriteClass, tags};

/// Sets tags, and returns all that the resource has then.
pub async fn add(app: &App, scope: Scope, arn: String, new: Vec<Tag>) -> Result<Vec<Tag>, AppError> {
    rules::tags(&new)?;
    app.db
        .write(WriteClass::Api, move |tx| {
            let (scope, arn, new) = (scope.clone(), arn.clone(), new.clone());
            Box::pin(async move {
                let arn = resource(tx, &scope, &arn).await?;
                tags::set(tx, &arn, &new).await?;
                let all = tags::list(tx, &arn).await?;
                rules::tag_count(all.len())?;
                Ok(all)
            })
        })
        .await
}

/// All tags of a resource, by key.
pub async fn list(app: &App, scope: Scope, arn: String) -> Result<Vec<Tag>, AppError> {
    app.db
        .read(move |tx| {
            Box::pin(async move {
                let arn = resource(tx, &scope, &arn).await?;
                tags::list(tx, &arn).await.map_err(AppError::from)
            })
        })
        .await
}

/// Removes tags; keys that are not there are ignored.
pub async fn remove(app: &App, scope: Scope, arn: String, keys: Vec<String>) -> Result<(), AppError> {
    app.db
        .write(WriteClass::Api, move |tx| {
            let (scope, arn, keys) = (scope.clone(), arn.clone(), keys.clone());
            Box::pin(async move {
                let arn = resource(tx, &scope, &arn).await?;
                tags::remove(tx, &arn, &keys).await.map_err(AppError::from)
            })
        })
        .await
}

/// The ARN under which the tags of the resource that a request names are kept; refused where there is none such in the
/// scope. An ARN of another account or region is answered like a missing one, so that it tells nothing.
async fn resource(tx: &mut Tx<'_>, scope: &Scope, arn: &str) -> Result<String, AppError> {
    if let Some(name) = name_in(arn, &scope.tuning_job_arn("")) {
        let job = tuning_jobs::find(tx, scope, name).await.map_err(|error| match error {
            AppError::NotFound(_) => AppError::no_training_job(),
            other => other,
        })?;
        return Ok(scope.tuning_job_arn(&job.name));
    }
    if let Some(name) = name_in(arn, &scope.training_job_arn("")) {
        let job = training_jobs::find(tx, scope, name).await?;
        return Ok(scope.training_job_arn(&job.name));
    }
    Err(AppError::no_training_job())
}

fn name_in<'a>(arn: &'a str, prefix: &str) -> Option<&'a str> {
    arn.strip_prefix(prefix).filter(|name| !name.is_empty())
}
