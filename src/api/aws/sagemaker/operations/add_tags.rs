//! `AddTags`.

use serde_json::{Value, json};

use crate::api::aws::Call;
use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::sagemaker::render::lists::read;
use crate::app::{AppError, tags};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Value, AppError> {
    let arn = name(&call.input, "ResourceArn");
    let tags = tags::add(call.app, &call.scope, &arn, read(&call.input["Tags"])?).await?;
    Ok(json!({ "Tags": tags }))
}
