//! From rows to the service's response documents.
//!
//! Invariant: whatever Create accepted comes back as it was sent, read from the request itself; defaults are added
//! beside it, never over it. Nothing here decides anything.

use serde_json::{Map, Value, json};

use crate::domain::time::Timestamp;

pub mod definition;
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

/// Sets a member of an object that has none of that name, or a null there; does nothing to other values.
fn default(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = object {
        let member = members.entry(name).or_insert(Value::Null);
        if member.is_null() {
            *member = value.into();
        }
    }
}

/// Removes null members, at any depth: to the service they are absent ones.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
