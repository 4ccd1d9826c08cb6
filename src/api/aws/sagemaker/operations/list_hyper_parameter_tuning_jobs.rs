//! `ListHyperParameterTuningJobs`.

use serde_json::Value;

use crate::api::aws::Call;
use crate::api::aws::sagemaker::render::lists::{List, rows};
use crate::api::aws::sagemaker::render::tuning_job;
use crate::app::{AppError, SortKey, tuning_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Value, AppError> {
    let list = List::read("ListHyperParameterTuningJobs", &call, SortKey::Name)?;
    let page = tuning_jobs::list(call.app, &call.scope, list.query.clone()).await?;
    Ok(list.respond(
        "HyperParameterTuningJobSummaries",
        &rows(&page, |job| tuning_job::summary(&call.scope, job)),
        page.next.as_ref(),
    ))
}
