//! What the lists have in common: reading filters, sort and token; sealing the next token.
//!
//! Invariant: a token goes on with the list that it was returned for: everything in the request but the token and the
//! page size is part of what it is sealed for.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::api::aws::tokens::Tokens;
use crate::api::aws::{Answer, Call};
use crate::app::{AppError, Cursor, ListQuery, Page, SortKey};
use crate::domain::document::Document;
use crate::domain::names::Scope;
use crate::domain::time::Timestamp;

/// `MaxResults` where it is not given.
const DEFAULT_PAGE: u32 = 10;

/// The members that lists take; each operation's model says which of them it has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", bound = "S: Deserialize<'de>")]
struct ListInput<S> {
    sort_by: Option<SortKey>,
    sort_order: Option<String>,
    status_equals: Option<S>,
    name_contains: Option<String>,
    creation_time_after: Option<f64>,
    creation_time_before: Option<f64>,
    last_modified_time_after: Option<f64>,
    last_modified_time_before: Option<f64>,
    max_results: Option<u32>,
    next_token: Option<String>,
}

/// One list call: the query that it asks for, and what its tokens are sealed for.
#[derive(Debug)]
pub struct List<'a, S> {
    /// What to ask the use case for.
    pub query: ListQuery<S, SortKey>,
    operation: &'static str,
    scope: Scope,
    filters: String,
    tokens: &'a Tokens,
}

impl<'a, S: serde::de::DeserializeOwned> List<'a, S> {
    /// Reads a list call's input. `sort_by` is the operation's default; every list ascends by default.
    pub fn read(operation: &'static str, call: &Call<'a>, sort_by: SortKey) -> Result<Self, AppError> {
        let filters = filters(&call.input)?;
        let input: ListInput<S> = read(&call.input)?;
        let open = |token: String| call.tokens.open(operation, &call.scope, &filters, &token);
        let after: Option<Cursor> = input.next_token.map(open).transpose()?;
        let query = ListQuery {
            sort_by: input.sort_by.unwrap_or(sort_by),
            descending: input.sort_order.as_deref() == Some("Descending"),
            status: input.status_equals,
            name_contains: input.name_contains.filter(|text| !text.is_empty()),
            created_after: input.creation_time_after.map(timestamp),
            created_before: input.creation_time_before.map(timestamp),
            modified_after: input.last_modified_time_after.map(timestamp),
            modified_before: input.last_modified_time_before.map(timestamp),
            limit: input.max_results.unwrap_or(DEFAULT_PAGE).clamp(1, 100),
            after,
        };
        Ok(Self { query, operation, scope: call.scope.clone(), filters, tokens: call.tokens })
    }

    /// The response: the rendered items under `member`, and the token of the next page.
    pub fn respond<T: Serialize>(
        &self,
        member: &'static str,
        items: &[T],
        next: Option<&Cursor>,
    ) -> Result<Answer, AppError> {
        let token = next.map(|cursor| self.tokens.seal(self.operation, &self.scope, &self.filters, cursor));
        Answer::document(&Response { member, items, token })
    }
}

/// A page as clients see it.
struct Response<'a, T> {
    member: &'static str,
    items: &'a [T],
    token: Option<String>,
}

impl<T: Serialize> Serialize for Response<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry(self.member, self.items)?;
        if let Some(token) = &self.token {
            members.serialize_entry("NextToken", token)?;
        }
        members.end()
    }
}

/// The members of a request document that an operation reads.
pub fn read<T: serde::de::DeserializeOwned>(input: &Document<'_>) -> Result<T, AppError> {
    T::deserialize(input).map_err(|error| AppError::Validation(format!("The request could not be read: {error}.")))
}

/// Renders each row of a page.
pub fn rows<'p, T, R>(page: &'p Page<T>, render: impl Fn(&'p T) -> R) -> Vec<R> {
    page.items.iter().map(render).collect()
}

/// What a token is sealed for: the request without the members that may differ from page to page, in one order.
fn filters(input: &Document<'_>) -> Result<String, AppError> {
    let members = if let Document::Object(members) = input { members.as_slice() } else { &[] };
    let kept: BTreeMap<&str, &Document<'_>> = members
        .iter()
        .map(|(name, value)| (name.as_ref(), value))
        .filter(|(name, _)| !matches!(*name, "NextToken" | "MaxResults"))
        .collect();
    serde_json::to_string(&kept).map_err(|error| AppError::Internal(Box::new(error)))
}

/// Epoch seconds, perhaps with a fraction.
#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates: a far time stays a far time")]
fn timestamp(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1000.0).round() as i64)
}
