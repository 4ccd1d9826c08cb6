//! `ListTags`: all of a resource's tags fit one page, so there is never a next one.

use serde_json::json;

use crate::api::aws::sagemaker::operations::name;
use crate::api::aws::tokens::InvalidToken;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, tags};

/// Answers one call.
pub async fn handle(call: Call<'_>) -> Result<Answer, AppError> {
    if call.input.get("NextToken").is_some() {
        return Err(InvalidToken.into());
    }
    let arn = name(&call.input, "ResourceArn");
    let tags = tags::list(call.app, &call.scope, &arn).await?;
    Answer::document(&json!({ "Tags": tags }))
}
