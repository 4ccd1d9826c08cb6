//! Log bytes to metric points, by the job's `MetricDefinitions`.
//!
//! Invariant: pure and linear in the input, whatever the bytes or the expressions. Reading logs belongs to executors,
//! keeping points to the store.
//!
//! What is read from a line, and how:
//! - Bytes that are not UTF-8 count as U+FFFD, as a decoder would show them. A `\r` ends a line as `\n` does, so that each
//!   state of a progress bar is a line of its own.
//! - A line is tried as it is; where a definition reads no number from it and it has tabs, once more with `#011` for each
//!   tab, which is what the expressions of built-in containers are written for. One line is never read twice.
//! - All matches of a definition that do not overlap count, as with Python's `findall`. The value is the first group that took
//!   part in the match.
//! - The group has to be a number as a whole, blanks around it aside: what Python's `float` reads, save underscores between
//!   digits. `1.`, `.5`, `+3`, `nan`, `-inf` are numbers, `1e400` is infinite. `0,5`, `93%` and `1_000` are not: they are
//!   counted, and [`Scraper::unmatched`] tells of them. A group `([0-9.]+)` takes only the `0` out of `0,5`.

mod dialect;
mod literals;
mod reader;

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::domain::request::MetricDefinition;
use crate::metrics::reader::{Definition, Reading};

/// All definitions of a job, compiled for one pass over each line, with counts of what they met.
///
/// Compiling takes milliseconds: compile once for a job and [`Scraper::fork`] for each of its logs.
#[derive(Debug, Clone)]
pub struct Scraper {
    compiled: Arc<Compiled>,
    lines: u64,
    tallies: Vec<Tally>,
    /// Which definitions may match the line at hand; kept to be used again.
    candidates: Vec<bool>,
    reading: Reading,
}

#[derive(Debug)]
struct Compiled {
    definitions: Vec<Definition>,
    /// Definitions that no text can rule out.
    unfiltered: Vec<usize>,
    /// The texts that the other definitions need, and whose each is.
    texts: Option<AhoCorasick>,
    owners: Vec<usize>,
}

/// What became of one definition in the lines so far.
#[derive(Debug, Clone, Default)]
struct Tally {
    matches: u64,
    not_numbers: u64,
    /// The first group that was not a number, shortened.
    example: Option<String>,
}

/// One match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Index into the definitions.
    pub definition: usize,
    /// Which of the definition's matches in this line it is, from 0; less than the line's length in bytes. So the line's
    /// offset plus `nth` is a place in the log that no other match of the definition has: a key that keeps every match.
    pub nth: u32,
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

/// A definition that has read no value from any line so far. Its text is for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched<'a> {
    /// Index into the definitions.
    pub definition: usize,
    /// The metric.
    pub name: &'a str,
    /// Its expression.
    pub regex: &'a str,
    /// How many lines were seen.
    pub lines: u64,
    /// How often the expression matched and its group was no number.
    pub not_numbers: u64,
    /// The first such group, shortened.
    pub example: Option<&'a str>,
}

impl std::fmt::Display for Unmatched<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, regex, lines, not_numbers, .. } = self;
        match self.example {
            None => write!(f, "metric {name}: no line of {lines} matched {regex}"),
            Some(example) => write!(
                f,
                "metric {name}: {regex} matched {not_numbers} times in {lines} lines, but its group was never a number: \
                 the first was [{example}]"
            ),
        }
    }
}

impl Scraper {
    /// Compiles the definitions.
    pub fn new(definitions: &[MetricDefinition]) -> Result<Self, InvalidRegex> {
        let compiled = Arc::new(Compiled::new(definitions)?);
        let n = compiled.definitions.len();
        Ok(Self {
            compiled,
            lines: 0,
            tallies: vec![Tally::default(); n],
            candidates: vec![false; n],
            reading: Reading::default(),
        })
    }

    /// The same definitions for another log: nothing counted yet, nothing compiled again.
    #[must_use]
    pub fn fork(&self) -> Self {
        let n = self.compiled.definitions.len();
        Self { lines: 0, tallies: vec![Tally::default(); n], reading: Reading::default(), ..self.clone() }
    }

    /// Appends the matches of one line (without its terminator) to `out`, in the order of the definitions, and for each
    /// definition in the order of the line: its last match is the latest value.
    ///
    /// One definition may match a line several times. Whoever keeps one point for a line and definition keeps the
    /// last; [`Match::nth`] helps to keep all. Beyond 256 matches of a definition in one line, or more work than some
    /// passes over a very long line, those between are left out, never the last.
    pub fn scrape(&mut self, line: &[u8], out: &mut Vec<Match>) {
        self.lines += 1;
        if !self.compiled.find_candidates(line, &mut self.candidates) {
            return;
        }
        let text = String::from_utf8_lossy(line);
        for (index, definition) in self.compiled.definitions.iter().enumerate().filter(|(i, _)| self.candidates[*i]) {
            let tally = &mut self.tallies[index];
            let mut nth = 0;
            for part in text.split('\r') {
                self.reading.read(definition, part);
                tally.add(&self.reading);
                out.extend(self.reading.values.iter().zip(nth..).map(|(value, nth)| Match {
                    definition: index,
                    nth,
                    value: *value,
                }));
                nth = nth.saturating_add(u32::try_from(self.reading.values.len()).unwrap_or(u32::MAX));
            }
        }
    }

    /// How many lines were seen.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The definitions that have read no value so far, with what is known of each.
    pub fn unmatched(&self) -> impl Iterator<Item = Unmatched<'_>> {
        let all = self.compiled.definitions.iter().zip(&self.tallies).enumerate();
        all.filter(|(_, (_, tally))| tally.matches == 0).map(|(index, (definition, tally))| Unmatched {
            definition: index,
            name: &definition.name,
            regex: &definition.expression,
            lines: self.lines,
            not_numbers: tally.not_numbers,
            example: tally.example.as_deref(),
        })
    }
}

impl Compiled {
    fn new(definitions: &[MetricDefinition]) -> Result<Self, InvalidRegex> {
        let definitions: Vec<Definition> = definitions.iter().map(Definition::new).collect::<Result<_, _>>()?;
        let (mut texts, mut owners, mut unfiltered) = (Vec::new(), Vec::new(), Vec::new());
        for (index, definition) in definitions.iter().enumerate() {
            match literals::required(definition.regex.as_str()) {
                Some(required) => {
                    owners.extend(required.iter().map(|_| index));
                    texts.extend(required);
                }
                None => unfiltered.push(index),
            }
        }
        let automaton = if texts.is_empty() {
            None
        } else {
            let built = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(&texts);
            built.ok().or_else(|| {
                // Too many texts for the automaton: every definition is tried on every line instead.
                unfiltered = (0..definitions.len()).collect();
                None
            })
        };
        Ok(Self { definitions, unfiltered, texts: automaton, owners })
    }

    /// Marks the definitions that may match; whether there are any.
    fn find_candidates(&self, line: &[u8], candidates: &mut [bool]) -> bool {
        let texts = self.texts.as_ref().filter(|texts| texts.is_match(line));
        if texts.is_none() && self.unfiltered.is_empty() {
            return false;
        }
        candidates.fill(false);
        for index in &self.unfiltered {
            candidates[*index] = true;
        }
        if let Some(texts) = texts {
            for found in texts.find_overlapping_iter(line) {
                candidates[self.owners[found.pattern().as_usize()]] = true;
            }
        }
        true
    }
}

impl Tally {
    fn add(&mut self, reading: &Reading) {
        self.matches += reading.values.len() as u64;
        self.not_numbers += reading.not_numbers;
        if self.example.is_none() {
            self.example.clone_from(&reading.example);
        }
    }
}

#[cfg(test)]
mod tests;
