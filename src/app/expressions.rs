//! Whether the expressions of metric definitions compile, remembered.
//!
//! Invariant: only what was compiled is remembered, and compiling is a function of the text, so an answer never ages.
//! Compiling costs more than all the rest of a Create, and users send the same expressions again and again.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::domain::request::MetricDefinition;
use crate::metrics::{InvalidRegex, Scraper};

/// How many sets of expressions are remembered; then all are forgotten. A set has at most some 20 kB.
const REMEMBERED: usize = 64;

static COMPILED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Refuses expressions that cannot be used.
pub(super) fn check(definitions: &[MetricDefinition]) -> Result<(), InvalidRegex> {
    // No text of a request holds U+0000, so sets that differ have keys that differ.
    let key = definitions.iter().map(|definition| definition.regex.as_str()).collect::<Vec<_>>().join("\0");
    if COMPILED.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
        return Ok(());
    }
    Scraper::new(definitions)?;
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if compiled.len() >= REMEMBERED {
        compiled.clear();
    }
    compiled.insert(key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions(regexes: &[&str]) -> Vec<MetricDefinition> {
        regexes.iter().map(|regex| MetricDefinition { name: "loss".into(), regex: (*regex).into() }).collect()
    }

    #[test]
    fn an_answer_is_the_same_the_second_time() {
        for _ in 0..2 {
            assert_eq!(check(&definitions(&["loss=(\\S+)", "auc=(\\S+)"])), Ok(()));
            assert!(check(&definitions(&["loss=(\\S+)", "(("])).is_err());
        }
        for n in 0..2 * REMEMBERED {
            assert_eq!(check(&definitions(&[&format!("loss{n}=(.*)")])), Ok(()));
        }
        assert!(COMPILED.lock().unwrap().len() <= REMEMBERED);
    }
}
