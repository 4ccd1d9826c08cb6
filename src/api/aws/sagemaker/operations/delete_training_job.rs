//! `DeleteTrainingJob`.

use serde_json::Value;

use crate::api::aws::Call;
use crate::api::aws::sagemaker::operations::name;
use crate::app::{AppError, training_jobs};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Value, AppError> {
    let name = name(&call.input, "TrainingJobName");
    training_jobs::delete(call.app, &call.scope, &name).await?;
    Ok(Value::Null)
}
