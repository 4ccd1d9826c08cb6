//! `CreateHyperParameterTuningJob`.

use serde_json::{Value, json};

use crate::api::aws::Call;
use crate::app::{AppError, tuning_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Value, AppError> {
    let arn = tuning_jobs::create(call.app, call.scope, &call.input, call.raw).await?;
    Ok(json!({ "HyperParameterTuningJobArn": arn }))
}
