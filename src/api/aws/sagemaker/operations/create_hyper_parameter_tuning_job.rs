//! `CreateHyperParameterTuningJob`.

use serde_json::json;

use crate::api::aws::{Answer, Call};
use crate::app::{AppError, tuning_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let arn = tuning_jobs::create(call.app, call.scope, call.input, call.raw).await?;
    Answer::document(&json!({ "HyperParameterTuningJobArn": arn }))
}
