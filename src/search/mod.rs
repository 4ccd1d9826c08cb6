//! Search strategies: what to try next, as pure functions of a study.
//!
//! Invariant: a suggestion is a function of (study, ordinal) alone: trials are ordered by ordinal, the generator is
//! seeded from (seed, definition, ordinal), and `suggest(n)` equals n calls of one with the earlier ones pending. So
//! every stored suggestion replays byte for byte. Running trials and keeping their history belong to the scheduler.

mod anneal;
pub mod autotune;
mod bayesian;
mod completion;
#[cfg(test)]
mod convergence;
mod each;
mod early_stopping;
mod features;
mod forest;
mod grid;
mod hyperband;
mod importance;
pub mod lattice;
mod normal;
mod parents;
mod random;
pub mod rng;
pub mod scale;
mod smac;
#[cfg(test)]
mod suite;
mod taken;
mod targets;
mod tpe;

use crate::domain::space::{Space, Value};
use crate::domain::status::{Direction, Strategy, WarmStart};
pub use completion::{Criteria, Reason, completion, converged, not_improving};
pub use importance::importance;

/// All that a strategy may know.
#[derive(Debug, Clone)]
pub struct Study {
    /// What may be tried.
    pub space: Space,
    /// Which objective values are better.
    pub direction: Direction,
    /// How to search.
    pub strategy: Strategy,
    /// The tuning job's seed.
    pub seed: u64,
    /// The index of the training-job definition that the study belongs to.
    pub definition: u32,
    /// How many trials there will be at most.
    pub budget: u32,
    /// The history, ordered by ordinal.
    pub trials: Vec<Trial>,
    /// Earlier studies to learn from.
    pub parents: Vec<Study>,
    /// How to learn from them; not at all where absent.
    pub warm_start: Option<WarmStart>,
    /// What one trial may use at least and at most, where trials report on their way.
    pub resource: Option<Resource>,
    /// Whether the median rule may stop a trial (`TrainingJobEarlyStoppingType: Auto`).
    pub early_stopping: bool,
}

impl Study {
    /// The trials in the order of their ordinals, whatever order they came in.
    fn in_order(&self) -> Vec<&Trial> {
        let mut trials: Vec<&Trial> = self.trials.iter().collect();
        trials.sort_unstable_by_key(|trial| trial.ordinal);
        trials
    }

    /// The trials that are over with a value, in the order of their ordinals, and their losses.
    fn results(&self) -> impl Iterator<Item = (&Trial, f64)> {
        let over = self.in_order().into_iter().filter(|trial| trial.state != TrialState::Pending);
        over.filter_map(|trial| Some((trial, self.direction.loss(trial.value.filter(|value| value.is_finite())?))))
    }
}

/// How far a trial runs, in reports of its objective (epochs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// No trial is stopped before.
    pub min: u32,
    /// A trial that reaches it has run in full.
    pub max: u32,
}

/// The answer to [`verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let the trial go on.
    Continue,
    /// The trial is not worth its resource any more.
    Stop,
}

/// One training job as the search sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// 1-based place in the order of suggestions.
    pub ordinal: u32,
    /// One value for each parameter of the space.
    pub values: Vec<Value>,
    /// Whether it is over, and how.
    pub state: TrialState,
    /// Objective values by resource (epoch), in order.
    pub curve: Vec<(u32, f64)>,
    /// The final objective value; always finite.
    pub value: Option<f64>,
}

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialState {
    /// Suggested, not over.
    Pending,
    /// Over, with or without a value.
    Completed,
    /// Over without a value to learn from.
    Failed,
    /// Stopped before its end; its value is the last one seen.
    Stopped,
}

/// The answer to [`suggest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestions {
    /// Values for ordinals `first_ordinal`, `first_ordinal + 1`, …; at most as many as asked for.
    pub points: Vec<Vec<Value>>,
    /// Whether the space has nothing left after these: no later call will give any more.
    pub exhausted: bool,
}

/// A strategy that this version does not have, or not for the ranges of the study.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this version has no {0} search for these hyperparameter ranges")]
pub struct Unsupported(pub Strategy);

/// Suggests up to `n` points for the ordinals from `first_ordinal` (1-based) on; fewer only where the space has no more.
///
/// `study.trials` has every trial before them, pending ones too; its order does not matter.
pub fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Result<Suggestions, Unsupported> {
    let suggest = match study.strategy {
        Strategy::Bayesian => bayesian::suggest,
        Strategy::Random => random::suggest,
        Strategy::Hyperband => hyperband::suggest,
        Strategy::Grid => return grid::suggest(study, first_ordinal, n),
        Strategy::TPE => tpe::suggest,
        Strategy::SMAC => smac::suggest,
        Strategy::Anneal => anneal::suggest,
    };
    Ok(suggest(study, first_ordinal, n))
}

/// Whether a pending trial is worth its next epoch; asked after each report on it.
///
/// `study.trials` has every trial with its curve so far. A trial that the study does not know goes on.
#[must_use]
pub fn verdict(study: &Study, ordinal: u32) -> Verdict {
    let Some(trial) = study.trials.iter().find(|trial| trial.ordinal == ordinal) else { return Verdict::Continue };
    match study.strategy {
        Strategy::Hyperband => hyperband::verdict(study, trial),
        _ if study.early_stopping => early_stopping::verdict(study, trial),
        _ => Verdict::Continue,
    }
}
