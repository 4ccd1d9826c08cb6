//! Who goes on: successive halving without waiting, by stopping.
//!
//! Invariant: the best at a rung goes on, and so does each trial that is among the best one in so many of those who came
//! there, rounded up. Trials that failed are not counted.
//!
//! | symbol  | here        | meaning                                                              |
//! |---------|-------------|----------------------------------------------------------------------|
//! | r, R    | min, max    | `MinResource`, `MaxResource`                                         |
//! | eta     | `ETA`       | from rung to rung trials use so many times as much                   |
//! | r eta^k | `levels`    | where trials are judged, as far as below R                           |
//! | c       | `ONE_IN`    | one in c goes on, by rung: the first is strict, for coming there is cheap |
//! |         | `LENIENCE`  | between rungs so many times the share go on, as a fraction           |
//!
//! A trial is judged at each report, by its loss at the last rung that it came to: whoever came first to a rung came without
//! rivals, and is stopped on the way to the next one when they have come and left it behind. There the share that goes on is
//! the larger, so that what was begun is not given up for a little.
//!
//! Li et al., "A System for Massively Parallel Hyperparameter Tuning" (`MLSys` 2020), algorithm 2, in the variant that
//! stops instead of pausing (the service cannot resume a training job); one bracket, the most eager one: more do not help
//! where early values tell anything.

use crate::search::{Resource, Study, Trial, TrialState, Verdict};

/// The factor between rungs.
const ETA: u32 = 3;
/// One trial in so many goes on, at the first rung, the second, and the later ones.
const ONE_IN: [u64; 3] = [5, 2, 3];
/// How many times that share go on on the way to the next rung: 5/3.
const LENIENCE: (u64, u64) = (5, 3);

/// The epochs at which trials are judged, ascending; below the maximum.
pub(super) fn levels(resource: Resource) -> impl Iterator<Item = u32> {
    let next = |level: &u32| level.checked_mul(ETA);
    std::iter::successors(Some(resource.min.max(1)), next).take_while(move |level| *level < resource.max)
}

/// A trial's loss at a level: that of its first report there or later. What is not finite is as bad as can be.
pub(super) fn loss_at(study: &Study, trial: &Trial, level: u32) -> Option<f64> {
    let (_, value) = trial.curve.get(trial.curve.partition_point(|(epoch, _)| *epoch < level))?;
    Some(study.direction.loss(*value))
}

/// See [`crate::search::verdict`]. A trial that outruns `MaxResource` is stopped: one that merely reaches it is let to
/// end by itself, which is when it writes its model.
pub(in crate::search) fn verdict(study: &Study, trial: &Trial) -> Verdict {
    let (Some(resource), Some((epoch, _))) = (study.resource, trial.curve.last()) else { return Verdict::Continue };
    if *epoch >= resource.max {
        return if *epoch > resource.max { Verdict::Stop } else { Verdict::Continue };
    }
    let Some((rung, level)) = levels(resource).enumerate().take_while(|(_, level)| level <= epoch).last() else {
        return Verdict::Continue;
    };
    let before = trial.curve.len().checked_sub(2).map_or(0, |i| trial.curve[i].0);
    let (times, of) = if before < level { (1, 1) } else { LENIENCE };
    let share = (times, of * ONE_IN[rung.min(ONE_IN.len() - 1)]);
    if goes_on(study, trial, level, share) { Verdict::Continue } else { Verdict::Stop }
}

/// Whether a trial is among the best share, a fraction, of those that came to a level.
fn goes_on(study: &Study, trial: &Trial, level: u32, (times, of): (u64, u64)) -> bool {
    let Some(own) = loss_at(study, trial, level) else { return true };
    let others =
        study.trials.iter().filter(|other| other.state != TrialState::Failed && other.ordinal != trial.ordinal);
    let (came, better) = others
        .filter_map(|other| loss_at(study, other, level))
        .fold((1_u64, 0_u64), |(n, better), loss| (n + 1, better + u64::from(loss < own)));
    better < (came * times).div_ceil(of)
}
