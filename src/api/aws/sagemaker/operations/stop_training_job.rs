//! `StopTrainingJob`.

use serde_json::Value;

use crate::api::aws::Call;
use crate::app::AppError;

/// Answers one call.
#[expect(clippy::unused_async, reason = "the shape of every operation")]
pub async fn handle(call: Call<'_>) -> Result<Value, AppError> {
    let _ = call;
    Err(AppError::Internal("StopTrainingJob is not built yet".into()))
}
