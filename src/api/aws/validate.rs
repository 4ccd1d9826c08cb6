//! Checks a request document against the service model and says all that is wrong with it, in the service's words.
//!
//! Invariant: a document that passes has only members that the model knows, each of its type and within its constraints.
//! Rules that span members are the domain's; members that nothing serves yet are refused in `support`.

use std::fmt::Write as _;

use crate::api::aws::model::{Bounds, Model, Shape, ShapeId, camel};
use crate::api::aws::quote;
use crate::domain::document::{Document, Members, member};

/// How many violations a message spells out; the rest are counted.
const SPELLED_OUT: usize = 50;

/// What is wrong with a document; the texts are for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInput {
    /// A value of another JSON type than the model's: the document cannot be read at all.
    #[error("{found} {} can not be converted to {expected}", at(path))]
    WrongType {
        /// Where; empty for the whole document.
        path: String,
        /// The JSON token found.
        found: &'static str,
        /// What the model has there.
        expected: &'static str,
    },
    /// Values outside their constraints.
    #[error("{0}")]
    Violations(Violations),
}

fn at(path: &str) -> String {
    if path.is_empty() { "as the whole document".to_owned() } else { format!("at '{path}'") }
}

/// All constraints that a document breaks, in the model's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violations {
    /// The first ones, each a whole clause.
    clauses: Vec<String>,
    /// How many there are in all.
    count: usize,
}

impl std::fmt::Display for Violations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} validation error{plural} detected: {}", self.count, self.clauses.join("; "))?;
        match self.count - self.clauses.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Checks the input of an operation.
pub fn validate(model: &Model, input: ShapeId, document: &Document<'_>) -> Result<(), InvalidInput> {
    let mut walker = Walker { model, path: Vec::new(), violations: Violations::default() };
    walker.check(input, document)?;
    match walker.violations {
        Violations { count: 0, .. } => Ok(()),
        violations => Err(InvalidInput::Violations(violations)),
    }
}

/// A step of the path to the value being checked.
#[derive(Clone, Copy)]
enum Step<'m> {
    Member(&'m str),
    /// 0-based; messages count from 1.
    Item(usize),
    Entry(&'m str),
}

struct Walker<'m> {
    model: &'m Model,
    path: Vec<Step<'m>>,
    violations: Violations,
}

impl<'m> Walker<'m> {
    fn check(&mut self, id: ShapeId, value: &'m Document<'m>) -> Result<(), InvalidInput> {
        match (self.model.shape(id), value) {
            (Shape::Structure(members), Document::Object(object)) => {
                let mut known = 0;
                for expected in members {
                    let found = member(object, &expected.name);
                    known += usize::from(found.is_some());
                    self.path.push(Step::Member(&expected.camel));
                    match found {
                        Some(value) if !value.is_null() => self.check(expected.shape, value)?,
                        _ if expected.required => self.violation(None, "Member must not be null"),
                        _ => {}
                    }
                    self.path.pop();
                }
                if known < object.len() {
                    let names = object.iter().map(|(name, _)| name.as_ref());
                    for name in names.filter(|name| members.iter().all(|m| m.name != *name)) {
                        self.unknown(name, members.iter().map(|m| m.name.as_str()));
                    }
                }
                Ok(())
            }
            (Shape::List { item, size }, Document::List(items)) => {
                self.sized(*size, items.len(), value, "length");
                self.items(*item, items)
            }
            (Shape::Map { key, value: values, size }, Document::Object(entries)) => {
                self.sized(*size, entries.len(), value, "length");
                self.entries(*key, *values, entries)
            }
            (shape, value) => {
                if let Some(expected) = mistyped(shape, value) {
                    let found = token(value);
                    return Err(InvalidInput::WrongType { path: self.place(), found, expected });
                }
                for constraint in broken(shape, value) {
                    self.violation(Some(value), &constraint);
                }
                Ok(())
            }
        }
    }

    /// Items that are structures are checked each at its place; plain ones together at the list's, as the service does.
    fn items(&mut self, item: ShapeId, items: &'m [Document<'m>]) -> Result<(), InvalidInput> {
        let shape = self.model.shape(item);
        let mut offending = Vec::new();
        for (i, value) in items.iter().enumerate() {
            self.path.push(Step::Item(i));
            if value.is_null() {
                self.violation(None, "Member must not be null");
            } else if is_plain(shape) {
                self.typed(shape, value)?;
                if breaks(shape, value) {
                    offending.push(value.clone());
                }
            } else {
                self.check(item, value)?;
            }
            self.path.pop();
        }
        if !offending.is_empty() {
            let constraint = format!("Member must satisfy constraint: {}", every_constraint(shape));
            self.violation(Some(&Document::List(offending)), &constraint);
        }
        Ok(())
    }

    fn entries(&mut self, key: ShapeId, values: ShapeId, entries: &'m Members<'m>) -> Result<(), InvalidInput> {
        let (key_shape, shape) = (self.model.shape(key), self.model.shape(values));
        let (mut bad_keys, mut bad_values) = (Members::new(), Members::new());
        for (name, value) in entries {
            if breaks(key_shape, &Document::from(name.as_ref())) {
                bad_keys.push((name.clone(), value.clone()));
            }
            self.path.push(Step::Entry(name));
            if value.is_null() {
                self.violation(None, "Member must not be null");
            } else if is_plain(shape) {
                self.typed(shape, value)?;
                if breaks(shape, value) {
                    bad_values.push((name.clone(), value.clone()));
                }
            } else {
                self.check(values, value)?;
            }
            self.path.pop();
        }
        for (bad, shape, what) in [(bad_keys, key_shape, "Map keys"), (bad_values, shape, "Map value")] {
            if !bad.is_empty() {
                let constraint = format!("{what} must satisfy constraint: {}", every_constraint(shape));
                self.violation(Some(&Document::Object(bad)), &constraint);
            }
        }
        Ok(())
    }

    fn typed(&self, shape: &Shape, value: &Document<'_>) -> Result<(), InvalidInput> {
        match mistyped(shape, value) {
            None => Ok(()),
            Some(expected) => Err(InvalidInput::WrongType { path: self.place(), found: token(value), expected }),
        }
    }

    fn sized(&mut self, bounds: Bounds, size: usize, value: &Document<'_>, what: &str) {
        for constraint in outside(bounds, i64::try_from(size).unwrap_or(i64::MAX), what) {
            self.violation(Some(value), &constraint);
        }
    }

    fn unknown<'n>(&mut self, name: &str, mut members: impl Iterator<Item = &'n str>) {
        let meant = members
            .find(|member| member.eq_ignore_ascii_case(name))
            .map_or_else(String::new, |member| format!("; did you mean '{member}'?"));
        let mut place = self.place();
        if !place.is_empty() {
            place.push('.');
        }
        let (spelled, name) = (quote::clip(&camel(name)), quote::clip(name));
        self.clause(|| format!("'{place}{spelled}' is not a member that the service model knows: '{name}'{meant}"));
    }

    fn violation(&mut self, value: Option<&Document<'_>>, constraint: &str) {
        let place = self.place();
        self.clause(|| {
            let value = value.map_or_else(|| "null".to_owned(), |value| format!("'{}'", quote::value(value)));
            format!("Value {value} at '{place}' failed to satisfy constraint: {constraint}")
        });
    }

    fn clause(&mut self, text: impl FnOnce() -> String) {
        self.violations.count += 1;
        if self.violations.clauses.len() < SPELLED_OUT {
            self.violations.clauses.push(text());
        }
    }

    /// The path as the service writes it: `a.b`, `list.1.member.c`, `map.key`.
    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            if !place.is_empty() {
                place.push('.');
            }
            let _ = match step {
                Step::Member(name) => write!(place, "{name}"),
                Step::Item(i) => write!(place, "{}.member", i + 1),
                Step::Entry(name) => write!(place, "{}", quote::clip(name)),
            };
        }
        place
    }
}

fn is_plain(shape: &Shape) -> bool {
    !matches!(shape, Shape::Structure(_) | Shape::List { .. } | Shape::Map { .. })
}

/// What the value should have been, where it is something else.
fn mistyped(shape: &Shape, value: &Document<'_>) -> Option<&'static str> {
    let (fits, expected) = match shape {
        Shape::Structure(_) => (matches!(value, Document::Object(_)), "a structure"),
        Shape::List { .. } => (matches!(value, Document::List(_)), "a List"),
        Shape::Map { .. } => (matches!(value, Document::Object(_)), "a Map"),
        Shape::Text { .. } => (matches!(value, Document::Text(_)), "a String"),
        Shape::Integer { wide: true, .. } => (whole(value).is_some(), "a Long"),
        Shape::Integer { wide: false, .. } => (whole(value).is_some_and(|n| i32::try_from(n).is_ok()), "an Integer"),
        Shape::Number => (matches!(value, Document::Number(_)), "a Float"),
        Shape::Timestamp => (matches!(value, Document::Number(_)), "a Timestamp"),
        Shape::Boolean => (matches!(value, Document::Bool(_)), "a Boolean"),
    };
    (!fits).then_some(expected)
}

fn whole(value: &Document<'_>) -> Option<i64> {
    match value {
        Document::Number(number) => number.as_i64(),
        _ => None,
    }
}

fn token(value: &Document<'_>) -> &'static str {
    match value {
        Document::Null => "VALUE_NULL",
        Document::Bool(true) => "TRUE_VALUE",
        Document::Bool(false) => "FALSE_VALUE",
        Document::Number(_) => "NUMBER_VALUE",
        Document::Text(_) => "STRING_VALUE",
        Document::List(_) => "START_ARRAY",
        Document::Object(_) => "START_OBJECT",
    }
}

fn breaks(shape: &Shape, value: &Document<'_>) -> bool {
    broken(shape, value).next().is_some()
}

/// The constraints of a plain shape that a value of its type breaks, in the service's order.
fn broken<'a>(shape: &'a Shape, value: &'a Document<'_>) -> impl Iterator<Item = String> + 'a {
    let (own, bounds, size, what) = match (shape, value) {
        (Shape::Text { length, pattern, values }, Document::Text(text)) => {
            let mismatch = pattern.as_ref().filter(|p| !p.regex.is_match(text)).map(|p| must_match(&p.published));
            let foreign = (!values.is_empty() && !values.iter().any(|v| v == text)).then(|| must_be_of(values));
            let chars = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            ([mismatch, foreign], *length, chars, "length")
        }
        (Shape::Integer { range, .. }, Document::Number(number)) => {
            ([None, None], *range, number.as_i64().unwrap_or_default(), "value")
        }
        _ => ([None, None], Bounds::default(), 0, ""),
    };
    own.into_iter().flatten().chain(outside(bounds, size, what))
}

fn outside(bounds: Bounds, size: i64, what: &str) -> impl Iterator<Item = String> {
    let above = bounds.max.filter(|max| size > *max).map(|max| at_most(what, max));
    let below = bounds.min.filter(|min| size < *min).map(|min| at_least(what, min));
    above.into_iter().chain(below)
}

/// All constraints of a plain shape, as the service lists them for the items of lists and maps.
fn every_constraint(shape: &Shape) -> String {
    let (bounds, what, own) = match shape {
        Shape::Text { length, pattern, values } => {
            let pattern = pattern.as_ref().map(|p| must_match(&p.published));
            let values = (!values.is_empty()).then(|| must_be_of(values));
            (*length, "length", [pattern, values])
        }
        Shape::Integer { range, .. } => (*range, "value", [None, None]),
        _ => (Bounds::default(), "", [None, None]),
    };
    let max = bounds.max.map(|max| at_most(what, max));
    let min = bounds.min.map(|min| at_least(what, min));
    let all: Vec<String> = [max, min].into_iter().chain(own).flatten().collect();
    format!("[{}]", all.join(", "))
}

fn must_match(pattern: &str) -> String {
    format!("Member must satisfy regular expression pattern: {pattern}")
}

fn must_be_of(values: &[String]) -> String {
    format!("Member must satisfy enum value set: [{}]", values.join(", "))
}

fn at_most(what: &str, max: i64) -> String {
    format!("Member must have {what} less than or equal to {max}")
}

fn at_least(what: &str, min: i64) -> String {
    format!("Member must have {what} greater than or equal to {min}")
}

#[cfg(test)]
mod tests;
