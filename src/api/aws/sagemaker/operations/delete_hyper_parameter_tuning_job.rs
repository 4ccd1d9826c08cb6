//! `DeleteHyperParameterTuningJob`.

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, tuning_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let name = name(&call.input, "HyperParameterTuningJobName");
    tuning_jobs::delete(call.app, &call.scope, &name).await?;
    Ok(Answer::NOTHING)
}
