//! `ListTrainingJobs`.

use serde_json::Value;

use crate::api::aws::Call;
use crate::api::aws::sagemaker::render::lists::{List, rows};
use crate::api::aws::sagemaker::render::training_job;
use crate::app::{AppError, SortKey, training_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Value, AppError> {
    let list = List::read("ListTrainingJobs", &call, SortKey::CreationTime)?;
    let page = training_jobs::list(call.app, &call.scope, list.query.clone()).await?;
    Ok(list.respond("TrainingJobSummaries", &rows(&page, training_job::list_summary), page.next.as_ref()))
}
