//! What a use case answers when it cannot do what was asked, in the API's terms; the edge turns it into bytes.

use crate::store::StoreError;

/// A refused or failed call. The text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The request breaks a rule.
    #[error("{0}")]
    Validation(String),
    /// `ResourceNotFound`.
    #[error("{0}")]
    NotFound(String),
    /// `ResourceInUse`.
    #[error("{0}")]
    InUse(String),
    /// `ResourceLimitExceeded`.
    #[error("{0}")]
    LimitExceeded(String),
    /// `ThrottlingException`.
    #[error("Rate exceeded")]
    Throttled,
    /// Not the caller's fault; the cause is logged, never shown.
    #[error("the service failed")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::Throttled,
            other => Self::Internal(Box::new(other)),
        }
    }
}
