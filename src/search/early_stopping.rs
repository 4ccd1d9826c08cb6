//! The median rule of `TrainingJobEarlyStoppingType: Auto`: a trial worse than the usual one at its epoch is stopped.
//!
//! Invariant: a function of the study alone; the order of its trials does not matter, and a trial at or below the median
//! goes on. Which strategy proposed the trial does not matter either.
//!
//! | symbol | meaning                                                        |
//! |--------|----------------------------------------------------------------|
//! | e      | the epoch of the trial's last report                           |
//! | m(e)   | the trial's best value up to e                                 |
//! | a(e)   | running average of an ended trial up to e, where it reached e  |
//! | n      | how many a(e) there are                                        |
//!
//! Stop where n >= `PEERS_MIN`, e > `WARM_UP` and m(e) is worse than the median of the a(e). The service documents the
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

/// Of sorted numbers, at least one.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use crate::domain::space::Space;
    use crate::domain::status::{Direction, Strategy};
    use crate::search::{Study, Trial, TrialState, Verdict, verdict};

    fn trial(ordinal: u32, state: TrialState, values: &[f64]) -> Trial {
        let curve = (1..).zip(values.iter().copied()).collect();
        Trial { ordinal, values: vec![], state, curve, value: None }
    }

    /// `ended` trials and, as the last, one that has just reported.
    fn stops(direction: Direction, ended: &[&[f64]], own: &[f64]) -> bool {
        let last = u32::try_from(ended.len()).unwrap() + 1;
        let mut trials: Vec<Trial> =
            (1..).zip(ended).map(|(ordinal, values)| trial(ordinal, TrialState::Completed, values)).collect();
        trials.push(trial(last, TrialState::Pending, own));
        let study = Study {
            space: Space { parameters: vec![] },
            direction,
            strategy: Strategy::Random,
            seed: 1,
            definition: 0,
            budget: 100,
            trials,
            parents: vec![],
            warm_start: None,
            resource: None,
            early_stopping: true,
        };
        let stop = verdict(&study, last) == Verdict::Stop;
        let off = Study { early_stopping: false, ..study };
        assert_eq!(verdict(&off, last), Verdict::Continue);
        stop
    }

    #[test]
    fn the_best_value_so_far_is_held_against_the_median_of_running_averages() {
        // Averages up to epoch 4: 1, 2, 3.5, 4, 5.
        let ended: [&[f64]; 5] = [&[1.0; 4], &[2.0; 4], &[2.0, 3.0, 4.0, 5.0, 90.0], &[4.0; 9], &[5.0; 4]];
        assert!(stops(Direction::Minimize, &ended, &[9.0, 9.0, 9.0, 3.6]));
        assert!(!stops(Direction::Minimize, &ended, &[9.0, 3.4, 9.0, 9.0]));
        assert!(stops(Direction::Maximize, &ended, &[0.0, 0.0, 3.4, 0.0]));
        assert!(!stops(Direction::Maximize, &ended, &[0.0, 0.0, 0.0, 3.6]));
    }

    #[test]
    fn few_rivals_or_few_epochs_stop_nothing() {
        let ended: [&[f64]; 5] = [&[1.0; 9]; 5];
        assert!(stops(Direction::Minimize, &ended, &[2.0; 4]));
        assert!(!stops(Direction::Minimize, &ended, &[2.0; 3]));
        assert!(!stops(Direction::Minimize, &ended[..4], &[2.0; 4]));
        assert!(!stops(Direction::Minimize, &[[1.0; 3].as_slice(); 9], &[2.0; 4]), "none of them came so far");
        assert!(!stops(Direction::Minimize, &ended, &[]));
    }

    #[test]
    fn values_that_are_not_finite_are_the_worst() {
        let ended: [&[f64]; 5] = [&[1.0; 9]; 5];
        assert!(stops(Direction::Maximize, &ended, &[f64::NAN, f64::INFINITY, f64::NAN, f64::NEG_INFINITY]));
        assert!(
            !stops(Direction::Minimize, &[[f64::NAN; 9].as_slice(); 5], &[f64::NAN; 4]),
            "no worse than the others"
        );
        assert!(stops(Direction::Minimize, &[[1e308; 9].as_slice(); 5], &[1.1e308; 4]), "averages do not overflow");
    }
}
