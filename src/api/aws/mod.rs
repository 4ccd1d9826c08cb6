//! AWS JSON 1.1 over `POST /`: what every AWS service served here has in common.

use crate::app::App;
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
    pub input: serde_json::Value,
    /// The request document as it came, byte for byte.
    pub raw: &'a str,
    /// Seals and opens `NextToken`s.
    pub tokens: &'a tokens::Tokens,
}
