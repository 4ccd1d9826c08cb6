//! Who goes on: successive halving without waiting, by stopping.
//!
//! Invariant: a trial is judged once per rung, at its first report there; the best at a rung goes on, and so do at most
//! one in eta of those who came, rounded down but for that one. Trials that failed are not counted.
//!
//! | symbol  | here       | meaning                                  |
//! |---------|------------|------------------------------------------|
//! | r, R    | min, max   | `MinResource`, `MaxResource`             |
//! | eta     | `ETA`      | one in eta goes on                       |
//! | r eta^k | `levels`   | where trials are judged, as far as below R|
//!
//! Li et al., "A System for Massively Parallel Hyperparameter Tuning" (`MLSys` 2020), algorithm 2, in the variant that
//! stops instead of pausing (the service cannot resume a training job); one bracket, the most eager one: more do not help
//! where early values tell anything.

use crate::search::{Resource, Study, Trial, TrialState, Verdict};

/// One trial in so many goes on at a rung.
pub(super) const ETA: u32 = 3;

/// The epochs at which trials are judged, ascending; below the maximum.
pub(super) fn levels(resource: Resource) -> impl Iterator<Item = u32> {
    let next = |level: &u32| level.checked_mul(ETA);
    std::iter::successors(Some(resource.min.max(1)), next).take_while(move |level| *level < resource.max)
}

/// A trial's loss at a level: that of its first report there or later. What is not finite is as bad as can be.
pub(super) fn loss_at(study: &Study, trial: &Trial, level: u32) -> Option<f64> {
    let (_, value) = trial.curve.iter().find(|(epoch, _)| *epoch >= level)?;
    Some(study.direction.loss(*value))
}

/// See [`crate::search::verdict`]. A trial that outruns `MaxResource` is stopped: one that merely reaches it is let to
/// end by itself, which is when it writes its model.
pub(in crate::search) fn verdict(study: &Study, trial: &Trial) -> Verdict {
    let (Some(resource), Some((epoch, _))) = (study.resource, trial.curve.last()) else { return Verdict::Continue };
    if *epoch >= resource.max {
        return if *epoch > resource.max { Verdict::Stop } else { Verdict::Continue };
    }
    let before = trial.curve.len().checked_sub(2).map_or(0, |i| trial.curve[i].0);
    let Some(level) = levels(resource).filter(|level| (before + 1..=*epoch).contains(level)).last() else {
        return Verdict::Continue;
    };
    if goes_on(study, trial, level) { Verdict::Continue } else { Verdict::Stop }
}

/// Whether a trial is among the best one in eta of those that came to a level.
fn goes_on(study: &Study, trial: &Trial, level: u32) -> bool {
    let Some(own) = loss_at(study, trial, level) else { return true };
    let others =
        study.trials.iter().filter(|other| other.state != TrialState::Failed && other.ordinal != trial.ordinal);
    let (came, better) = others
        .filter_map(|other| loss_at(study, other, level))
        .fold((1, 0_usize), |(n, better), loss| (n + 1, better + usize::from(loss < own)));
    better < (came / ETA as usize).max(1)
}
