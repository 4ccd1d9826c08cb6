//! `ListHyperParameterTuningJobs`.

use crate::api::aws::sagemaker::render::lists::{List, rows};
use crate::api::aws::sagemaker::render::tuning_job;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, SortKey, tuning_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let list = List::read("ListHyperParameterTuningJobs", &call, SortKey::Name)?;
    let page = tuning_jobs::list(call.app, &call.scope, list.query.clone()).await?;
    let summaries = rows(&page, |job| tuning_job::summary(&call.scope, job));
    list.respond("HyperParameterTuningJobSummaries", &summaries, page.next.as_ref())
}
