//! What a use case answers when it cannot do what was asked, in the API's terms; the edge turns it into bytes.

use crate::domain::rules::RuleError;
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

impl From<RuleError> for AppError {
    fn from(error: RuleError) -> Self {
        Self::Validation(error.to_string())
    }
}

impl AppError {
    /// A document of a row that cannot be read: no version of this program writes one.
    pub(crate) fn unreadable(error: serde_json::Error) -> Self {
        Self::Internal(Box::new(error))
    }

    /// The service's answer where a training job, or what a tag hangs on, is missing: not a `ResourceNotFound`, and
    /// clients depend on the text.
    pub(crate) fn no_training_job() -> Self {
        Self::Validation("Requested resource not found.".to_owned())
    }

    /// The service's answer where a tuning job is missing.
    pub(crate) fn no_tuning_job(name: &str) -> Self {
        Self::NotFound(format!("Amazon SageMaker can't find a tuning job called {name}. Type another name."))
    }
}
