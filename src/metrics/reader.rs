//! One definition and one line: which numbers it reads.
//!
//! Invariant: the work is bounded by a constant times the line's length (plus a constant). A search for one match is linear,
//! but a search for all of them need not be: each may look to the end of the line and come back with one character. So the
//! searches of a line share a budget, and where it is spent only the last number is looked for, by halving.

use regex::{CaptureLocations, Regex};

use crate::domain::request::MetricDefinition;
use crate::metrics::{InvalidRegex, dialect};

/// Matches of a definition in one line that are all kept.
const MOST: usize = 256;
/// Bytes that a line's searches may look at: a bonus that lets lines of some kilobytes match anywhere, and some passes
/// over longer ones.
const BONUS: usize = 1 << 20;
const PASSES: usize = 32;
/// How closely the place of the last number is found by halving, and how far beyond it a match may look, in bytes.
const NEAR: usize = 1024;
const FAR: usize = 16 * 1024;
/// Characters of a group that are told when it was no number.
const TOLD: usize = 40;

/// One metric definition, compiled.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    /// As the user wrote it.
    pub(super) expression: String,
    pub(super) regex: Regex,
}

impl Definition {
    pub(super) fn new(definition: &MetricDefinition) -> Result<Self, InvalidRegex> {
        let regex =
            dialect::compile(&definition.regex).map_err(|why| InvalidRegex { name: definition.name.clone(), why })?;
        Ok(Self { name: definition.name.clone(), expression: definition.regex.clone(), regex })
    }
}

/// What a definition read from a line, and buffers to be used again.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// The numbers, in the order of the line.
    pub(super) values: Vec<f64>,
    /// How many groups were no number.
    pub(super) not_numbers: u64,
    /// The first of them, shortened.
    pub(super) example: Option<String>,
    escaped: String,
}

/// A match and what it means.
struct Step {
    value: Option<f64>,
    /// Where to search on.
    next: usize,
}

impl Reading {
    /// Reads a line as it is, then, where that gave no number, with `#011` for its tabs.
    pub(super) fn read(&mut self, definition: &Definition, line: &str) {
        self.values.clear();
        self.not_numbers = 0;
        self.example = None;
        let mut groups = definition.regex.capture_locations();
        self.find_all(&definition.regex, line, &mut groups);
        if self.values.is_empty() && line.contains('\t') {
            let mut escaped = std::mem::take(&mut self.escaped);
            escaped.clear();
            for (i, part) in line.split('\t').enumerate() {
                escaped.push_str(if i == 0 { "" } else { "#011" });
                escaped.push_str(part);
            }
            // A group that was no number counts once for a line, in its last form.
            let raw = (std::mem::take(&mut self.not_numbers), self.example.take());
            self.find_all(&definition.regex, &escaped, &mut groups);
            if self.values.is_empty() && self.not_numbers == 0 {
                (self.not_numbers, self.example) = raw;
            }
            self.escaped = escaped;
        }
    }

    fn find_all(&mut self, regex: &Regex, line: &str, groups: &mut CaptureLocations) {
        let mut budget = BONUS.saturating_add(line.len().saturating_mul(PASSES));
        let mut at = 0;
        while at <= line.len() {
            let left = line.len() - at;
            if left > budget || self.values.len() >= MOST {
                return self.find_last(regex, line, at, groups);
            }
            budget -= left;
            let Some(step) = self.step(regex, line, at, groups) else { return };
            self.values.extend(step.value);
            at = step.next;
        }
    }

    /// The last number at or after `from`: halves the line until the number's place is known to a kilobyte, then reads
    /// that much of it match by match.
    fn find_last(&mut self, regex: &Regex, line: &str, from: usize, groups: &mut CaptureLocations) {
        let told = (self.not_numbers, self.example.clone());
        let (mut low, mut high) = (from, line.len());
        while high - low > NEAR {
            let middle = floor_char_boundary(line, low.midpoint(high));
            if self.first(regex, line, middle, groups).is_some() {
                low = middle;
            } else {
                high = middle;
            }
        }
        // From a little before, so that no number is cut in two, and not to the far end, which each match might look at.
        let mut at = floor_char_boundary(line, low.saturating_sub(NEAR)).max(from);
        let line = &line[..floor_char_boundary(line, line.len().min(high + FAR))];
        let mut last = None;
        while at <= line.len() {
            let Some(step) = self.step(regex, line, at, groups) else { break };
            last = step.value.or(last);
            at = step.next;
        }
        self.values.extend(last);
        (self.not_numbers, self.example) = told;
    }

    /// The first number at or after `at`, among the next few matches.
    fn first(&mut self, regex: &Regex, line: &str, mut at: usize, groups: &mut CaptureLocations) -> Option<f64> {
        for _ in 0..4 {
            let step = if at <= line.len() { self.step(regex, line, at, groups)? } else { return None };
            if step.value.is_some() {
                return step.value;
            }
            at = step.next;
        }
        None
    }

    fn step(&mut self, regex: &Regex, line: &str, at: usize, groups: &mut CaptureLocations) -> Option<Step> {
        let found = regex.captures_read_at(groups, line, at)?;
        let value = (1..groups.len()).find_map(|group| groups.get(group)).and_then(|(from, to)| {
            let text = &line[from..to];
            let value = number(text);
            if value.is_none() {
                self.not_numbers += 1;
                self.example.get_or_insert_with(|| text.chars().take(TOLD).collect());
            }
            value
        });
        // A match of nothing must not be found again.
        let next = if found.is_empty() { after_char(line, found.end()) } else { found.end() };
        Some(Step { value, next })
    }
}

/// Reads a number as Python's `float` does, save underscores between digits.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn floor_char_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn after_char(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::{Definition, Reading, number};
    use crate::domain::request::MetricDefinition;

    fn read(regex: &str, line: &str) -> Reading {
        let definition = MetricDefinition { name: "m".to_owned(), regex: regex.to_owned() };
        let mut reading = Reading::default();
        reading.read(&Definition::new(&definition).unwrap(), line);
        reading
    }

    #[test]
    fn numbers_are_what_pythons_float_reads() {
        for (text, value) in [
            ("1.", 1.0),
            (".5", 0.5),
            ("+3", 3.0),
            (" -2e-3\t", -2e-3),
            ("1E5", 1e5),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
            ("-1e400", f64::NEG_INFINITY),
            ("1e-400", 0.0),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan() && number("-nan").unwrap().is_nan());
        for text in ["", " ", ".", "-", "0,5", "93%", "1_000", "0x10", "1e", "e5", "1.2.3", "0.5.", "1 2", "١"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn a_line_with_very_many_matches_keeps_the_first_and_the_last() {
        let line = (0..150_000).map(|i| format!("v={i};")).collect::<Vec<_>>().concat();
        assert!(line.len() > 1_000_000);
        let values = read(r"v=(\d+);", &line).values;
        assert!(values.len() < 300, "{}", values.len());
        assert_eq!((values[0], values.last().copied()), (0.0, Some(149_999.0)));
    }

    #[test]
    fn the_last_of_very_many_is_found_far_from_the_end() {
        let mut line = (0..1000).map(|i| format!("v={i};")).collect::<Vec<_>>().concat();
        line.push_str(&"é".repeat(500_000));
        let values = read(r"v=(\d+);", &line).values;
        assert_eq!(values.last().copied(), Some(999.0));
        assert!(values.is_sorted());
    }

    #[test]
    fn matches_that_each_look_to_the_end_are_bounded() {
        // Without a budget this is a search to the end of the line for each of its million characters.
        let start = std::time::Instant::now();
        let values = read("(?:(1)|.*[^1 ])", &"1 ".repeat(500_000)).values;
        assert_eq!(values.last().copied(), Some(1.0));
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
