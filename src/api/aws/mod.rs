//! AWS JSON 1.1 over `POST /`: what every AWS service served here has in common.

use crate::app::{App, AppError};
use crate::domain::document::Document;
use crate::domain::names::Scope;

pub mod decode;
pub mod error;
pub mod model;
pub mod quote;
pub mod sagemaker;
pub(crate) mod service;
pub mod signature;
pub mod support;
pub mod tokens;
pub mod validate;

/// One request that has passed the service model: what an operation works on.
#[derive(Debug)]
pub struct Call<'a> {
    /// The use cases' surroundings.
    pub app: &'a App,
    /// The account, and the region that the request was signed for.
    pub scope: Scope,
    /// The request document, valid under the service model.
    pub input: Document<'a>,
    /// The request document as it came, byte for byte.
    pub raw: &'a str,
    /// Seals and opens `NextToken`s.
    pub tokens: &'a tokens::Tokens,
}

/// What an operation answers: the text of a JSON document, or nothing.
#[derive(Debug)]
pub struct Answer(String);

impl Answer {
    /// The empty body of an operation without output.
    pub const NOTHING: Self = Self(String::new());

    /// A document.
    pub fn document(output: &impl serde::Serialize) -> Result<Self, AppError> {
        serde_json::to_string(output).map(Self).map_err(|error| AppError::Internal(Box::new(error)))
    }
}
