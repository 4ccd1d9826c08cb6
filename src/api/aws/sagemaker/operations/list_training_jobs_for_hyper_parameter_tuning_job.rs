//! `ListTrainingJobsForHyperParameterTuningJob`.

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::sagemaker::render::lists::{List, rows};
use crate::api::aws::sagemaker::render::training_job;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, SortKey, training_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let list = List::read("ListTrainingJobsForHyperParameterTuningJob", &call, SortKey::Name)?;
    let name = name(&call.input, "HyperParameterTuningJobName");
    let page = training_jobs::list_of_tuning_job(call.app, &call.scope, &name, list.query.clone()).await?;
    list.respond("TrainingJobSummaries", &rows(&page, training_job::summary), page.next.as_ref())
}
