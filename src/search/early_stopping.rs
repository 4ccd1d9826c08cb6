//! The median rule of `TrainingJobEarlyStoppingType: Auto`: a trial worse than the usual one at its epoch is stopped.
//!
//! Invariant: a function of the study alone; the order of its trials does not matter, and a trial at or below the median
//! goes on. Which strategy proposed the trial does not matter either.
//!
//! | symbol | meaning                                                                      |
//! |--------|------------------------------------------------------------------------------|
//! | e      | the epoch of the trial's last report                                         |
//! | m(e)   | the trial's best value up to e                                               |
//! | a_j(e) | running average of an ended trial j up to e, if j reached e                  |
//! | n      | how many a_j(e) there are                                                    |
//!
//! Stop where n >= `PEERS_MIN`, e > `WARM_UP` and m(e) is worse than the median of a_j(e). The service documents the
//! averages and the median; it compares the current value, here the best one as in Vizier (Golovin et al., "Google
//! Vizier", KDD 2017, section 3.5.1), so that one bad epoch of a good trial does not end it. It publishes no warm-up.

use crate::domain::status::Direction;
use crate::search::{Resource, Study, Trial, TrialState, Verdict};

/// Fewer ended trials say too little about what is usual.
const PEERS_MIN: usize = 5;
/// Epochs that a trial has in any case: the first ones tell how a trial begins rather than where it ends.
const WARM_UP: u32 = 3;

/// See [`crate::search::verdict`].
pub(super) fn verdict(study: &Study, trial: &Trial) -> Verdict {
    let Some((epoch, _)) = trial.curve.last() else { return Verdict::Continue };
    if *epoch <= WARM_UP || study.resource.is_some_and(|Resource { min, .. }| *epoch < min) {
        return Verdict::Continue;
    }
    let losses = |trial: &Trial| losses(study.direction, trial, *epoch);
    let mut averages: Vec<f64> = study
        .trials
        .iter()
        .filter(|other| other.ordinal != trial.ordinal && other.state != TrialState::Pending)
        .filter(|other| other.curve.last().is_some_and(|(last, _)| last >= epoch))
        .map(|other| average(&losses(other)))
        .collect();
    if averages.len() < PEERS_MIN {
        return Verdict::Continue;
    }
    averages.sort_by(f64::total_cmp);
    let best = losses(trial).into_iter().fold(f64::INFINITY, f64::min);
    if best > median(&averages) { Verdict::Stop } else { Verdict::Continue }
}

/// Values up to an epoch, the smaller the better; what is not finite is as bad as can be.
fn losses(direction: Direction, trial: &Trial, epoch: u32) -> Vec<f64> {
    let upto = trial.curve.iter().take_while(|(at, _)| *at <= epoch);
    upto.map(|(_, value)| direction.loss(*value)).collect()
}

/// Adds shares rather than dividing the sum, which could be beyond every double.
fn average(losses: &[f64]) -> f64 {
    losses.iter().map(|loss| loss / losses.len() as f64).sum()
}

/// The lower middle of sorted numbers, or the mean of both middles.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    if low == high { low } else { f64::midpoint(low, high) }
}
