//! Hyperband as the service runs it, asynchronously: every trial starts, and those that fall behind are stopped at rungs.
//!
//! Invariant: what is suggested and what is stopped is a function of the study alone. No trial is stopped below
//! `MinResource`, none that is the best at its rung; without a resource none at all. `rungs` decides who goes on.

mod rungs;

use crate::search::{Study, Suggestions, random};

pub(super) use rungs::verdict;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    random::suggest(study, first_ordinal, n)
}
