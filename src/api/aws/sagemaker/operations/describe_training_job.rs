//! `DescribeTrainingJob`.

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::sagemaker::render::training_job;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, training_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let name = name(&call.input, "TrainingJobName");
    let view = training_jobs::describe(call.app, &call.scope, &name).await?;
    Answer::document(&training_job::describe(&view)?)
}
