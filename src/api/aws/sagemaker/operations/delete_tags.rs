//! `DeleteTags`.

use serde_json::json;

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::sagemaker::render::lists::read;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, tags};
use crate::domain::document::Document;

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    let arn = name(&call.input, "ResourceArn");
    tags::remove(call.app, &call.scope, &arn, read(call.input.get("TagKeys").unwrap_or(&Document::Null))?).await?;
    Answer::document(&json!({}))
}
