//! Log bytes to metric points, by the job's `MetricDefinitions`.
//!
//! Invariant: pure and linear in the input, whatever the bytes or the expressions. Reading logs belongs to executors,
//! keeping points to the store.

use crate::domain::request::MetricDefinition;

/// All definitions of a job, compiled for one pass over each line.
#[derive(Debug)]
pub struct Scraper {
    definitions: Vec<MetricDefinition>,
}

/// One match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Index into the definitions.
    pub definition: usize,
    /// The value read; may be infinite or not a number.
    pub value: f64,
}

/// An expression that cannot be used; the text says why and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("The regular expression of metric definition {name} can't be used: {why}")]
pub struct InvalidRegex {
    /// The metric.
    pub name: String,
    /// What is wrong and what to change.
    pub why: String,
}

impl Scraper {
    /// Compiles the definitions.
    pub fn new(definitions: &[MetricDefinition]) -> Result<Self, InvalidRegex> {
        Ok(Self { definitions: definitions.to_vec() })
    }

    /// The definitions that no line has matched so far.
    #[must_use]
    pub fn unmatched(&self) -> Vec<&MetricDefinition> {
        Vec::new()
    }

    /// Appends the matches of one line (without its terminator) to `out`, in the order of the definitions; for one
    /// definition at most one per line: the first whose group reads as a number.
    pub fn scrape(&mut self, line: &[u8], out: &mut Vec<Match>) {
        let _ = (line, out, &self.definitions);
    }
}
