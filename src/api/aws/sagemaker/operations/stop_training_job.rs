//! `StopTrainingJob`.

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, training_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let name = name(&call.input, "TrainingJobName");
    training_jobs::stop(call.app, &call.scope, &name).await?;
    Ok(Answer::NOTHING)
}
