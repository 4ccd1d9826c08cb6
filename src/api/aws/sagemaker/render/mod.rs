//! From rows to the service's response documents.
//!
//! Invariant: whatever Create accepted comes back as it was sent, read from the request itself; defaults are added
//! beside it, never over it. Nothing here decides anything.

use serde_json::{Map, Value, json};

use crate::domain::time::Timestamp;

pub mod lists;
pub mod training_job;
pub mod tuning_job;

/// A timestamp as AWS JSON 1.1 carries it.
#[must_use]
pub fn time(at: Timestamp) -> Value {
    json!(at.as_epoch_seconds())
}

/// A response document under construction.
#[derive(Debug, Default)]
pub struct Document(Map<String, Value>);

impl Document {
    /// Sets a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a member where there is a value: the service leaves out what is not there.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The document as JSON.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
