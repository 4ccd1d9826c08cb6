//! `DescribeHyperParameterTuningJob`.

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::sagemaker::render::tuning_job;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, tuning_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let name = name(&call.input, "HyperParameterTuningJobName");
    let view = tuning_jobs::describe(call.app, &call.scope, &name).await?;
    tuning_job::describe(&call.scope, &view)
}
