//! Errors become bytes here and nowhere else.
//!
//! Invariant: every refusal names its code in `__type` and in `x-amzn-ErrorType`; of a failure that is not the caller's
//! fault the client learns nothing but that, while the log gets its whole chain of causes, once.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::api::aws::decode::DecodeError;
use crate::api::aws::validate::InvalidInput;
use crate::app::AppError;

/// The media type of every AWS JSON 1.1 body.
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");
/// Carries the error's code.
pub const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// A refused or failed request, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AwsError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The service's code.
    pub code: &'static str,
    /// What was wrong, and what to change.
    pub message: String,
}

impl AwsError {
    /// An error of the common kind, status 400.
    pub fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// An error of another status.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// A `ValidationException`.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::refused("ValidationException", message)
    }

    /// A failure whose cause stays in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalFailure",
            "The service failed to answer the request. The server's log has the cause under the x-amzn-RequestId of this \
             response.",
        )
    }

    /// The answer to a use case's error. What is not the caller's fault is logged.
    pub fn from_app(error: &AppError, operation: &str) -> Self {
        let message = error.to_string();
        match error {
            AppError::Validation(_) => Self::validation(message),
            AppError::NotFound(_) => Self::refused("ResourceNotFound", message),
            AppError::InUse(_) => Self::refused("ResourceInUse", message),
            AppError::LimitExceeded(_) => Self::refused("ResourceLimitExceeded", message),
            AppError::Throttled => Self::refused("ThrottlingException", message),
            AppError::Internal(source) => {
                tracing::error!(operation, cause = chain(source.as_ref()), "a request failed");
                Self::internal()
            }
        }
    }

    /// The response.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut body = json!({"__type": self.code, "message": self.message});
        if matches!(self.code, "ResourceNotFound" | "ResourceInUse" | "ResourceLimitExceeded") {
            // The model's exceptions have one member, and generated clients read it by its exact name.
            body["Message"] = body["message"].clone();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(self.code));
        response
    }
}

impl From<DecodeError> for AwsError {
    fn from(error: DecodeError) -> Self {
        Self::refused("SerializationException", error.to_string())
    }
}

impl From<InvalidInput> for AwsError {
    fn from(error: InvalidInput) -> Self {
        let code = match error {
            InvalidInput::WrongType { .. } => "SerializationException",
            InvalidInput::Violations(_) => "ValidationException",
        };
        Self::refused(code, error.to_string())
    }
}

/// An error and all its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wire(error: AppError) -> String {
        let response = AwsError::from_app(&error, "ListTags").into_response();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 4096).await.unwrap();
        let header = |name: &HeaderName| parts.headers[name].to_str().unwrap().to_owned();
        let (kind, code) = (header(&header::CONTENT_TYPE), header(&ERROR_TYPE));
        format!("{} {code} {kind}\n{}", parts.status.as_u16(), String::from_utf8_lossy(&body))
    }

    #[tokio::test]
    async fn every_error_has_its_code_and_status() {
        insta::assert_snapshot!(wire(AppError::Validation("bad".into())).await, @r#"
        400 ValidationException application/x-amz-json-1.1
        {"__type":"ValidationException","message":"bad"}
        "#);
        insta::assert_snapshot!(wire(AppError::NotFound("gone".into())).await, @r#"
        400 ResourceNotFound application/x-amz-json-1.1
        {"__type":"ResourceNotFound","message":"gone","Message":"gone"}
        "#);
        insta::assert_snapshot!(wire(AppError::InUse("taken".into())).await, @r#"
        400 ResourceInUse application/x-amz-json-1.1
        {"__type":"ResourceInUse","message":"taken","Message":"taken"}
        "#);
        insta::assert_snapshot!(wire(AppError::LimitExceeded("full".into())).await, @r#"
        400 ResourceLimitExceeded application/x-amz-json-1.1
        {"__type":"ResourceLimitExceeded","message":"full","Message":"full"}
        "#);
        insta::assert_snapshot!(wire(AppError::Throttled).await, @r#"
        400 ThrottlingException application/x-amz-json-1.1
        {"__type":"ThrottlingException","message":"Rate exceeded"}
        "#);
    }

    #[tokio::test]
    async fn a_failure_tells_the_client_nothing_of_its_cause() {
        let cause = std::io::Error::other("column status of tuning_jobs: password=hunter2");
        insta::assert_snapshot!(wire(AppError::Internal(Box::new(cause))).await, @r#"
        500 InternalFailure application/x-amz-json-1.1
        {"__type":"InternalFailure","message":"The service failed to answer the request. The server's log has the cause under the x-amzn-RequestId of this response."}
        "#);
    }

    #[test]
    fn the_log_gets_the_whole_chain() {
        let inner = std::io::Error::other("disk full");
        let outer = AppError::Internal(Box::new(inner));
        assert_eq!(chain(&outer), "the service failed: disk full");
    }
}
