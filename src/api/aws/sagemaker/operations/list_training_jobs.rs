//! `ListTrainingJobs`.

use crate::api::aws::sagemaker::render::lists::{List, rows};
use crate::api::aws::sagemaker::render::training_job;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, SortKey, training_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let list = List::read("ListTrainingJobs", &call, SortKey::CreationTime)?;
    let page = training_jobs::list(call.app, &call.scope, list.query.clone()).await?;
    list.respond("TrainingJobSummaries", &rows(&page, training_job::list_summary), page.next.as_ref())
}
