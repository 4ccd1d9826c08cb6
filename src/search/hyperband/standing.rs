//! How trials that went differently far stand to each other.
//!
//! Invariant: a standing depends on the trials alone, not on their order of arrival, and is the same under any increasing
//! change of the losses; equal losses stand equal. What is not finite stands last, and so does a trial that failed.
//!
//! | symbol | here       | meaning                                                                      |
//! |--------|------------|------------------------------------------------------------------------------|
//! | k(i,j) |            | the highest level that trials i and j both came to                           |
//! | b(i)   | `beaten_by`| how many trials j have the smaller loss at k(i,j)                            |
//! | s(i)   | `standings`| middle rank of b(i) among all, as a share: near 0 the best, near 1 the worst |
//!
//! A rung's own ranks would not do: those who came to a high rung were chosen, those who came early were hardly chosen,
//! so that a bad trial promoted for want of rivals would pass for one of the best. Compared in pairs it falls behind all
//! who were stopped with a smaller loss. Successive halving compares in the same way, one level at a time (Li et al.,
//! "A System for Massively Parallel Hyperparameter Tuning", `MLSys` 2020); the ranks are those of `BOHB` and `MOBSTER`
//! without a choice of one level to learn from.

use crate::search::hyperband::rungs::{levels, loss_at};
use crate::search::{Study, Trial, TrialState};

/// The trials that something is known of, in the order of their ordinals, each with its standing.
pub(super) fn standings(study: &Study) -> Vec<(&Trial, f64)> {
    let mut levels: Vec<u32> = study.resource.map(|resource| levels(resource).collect()).unwrap_or_default();
    levels.extend(study.resource.map(|resource| resource.max));
    let mut seen: Vec<(&Trial, Vec<f64>)> =
        study.trials.iter().filter_map(|trial| Some((trial, losses(study, &levels, trial)?))).collect();
    seen.sort_by_key(|(trial, _)| trial.ordinal);
    let losses: Vec<&[f64]> = seen.iter().map(|(_, losses)| losses.as_slice()).collect();
    let shares = middle_ranks(&beaten_by(&losses));
    seen.iter().map(|(trial, _)| *trial).zip(shares).collect()
}

/// A trial's losses at the levels that it came to, never empty; `None` where nothing is known yet.
fn losses(study: &Study, levels: &[u32], trial: &Trial) -> Option<Vec<f64>> {
    if trial.state == TrialState::Failed {
        return Some(vec![f64::INFINITY]);
    }
    let along: Vec<f64> = levels.iter().map_while(|level| loss_at(study, trial, *level)).collect();
    if !along.is_empty() {
        return Some(along);
    }
    if trial.state == TrialState::Pending {
        return None;
    }
    // One without a report at any level ran in full, or was stopped from outside: its end is all that there is to compare.
    let end = trial.value.map_or(f64::INFINITY, |value| study.direction.loss(value));
    Some(vec![end; levels.len().max(1)])
}

/// Counts by level instead of by pair: rivals that went at least as far are met at a trial's last level, the others at
/// theirs.
fn beaten_by(losses: &[&[f64]]) -> Vec<usize> {
    let sorted = |level: usize, last: bool| {
        let there = losses.iter().filter(|own| own.len() > level && (!last || own.len() == level + 1));
        let mut there: Vec<f64> = there.map(|own| own[level]).collect();
        there.sort_by(f64::total_cmp);
        there
    };
    let levels = losses.iter().map(|own| own.len()).max().unwrap_or(0);
    let (came, ended): (Vec<_>, Vec<_>) = (0..levels).map(|level| (sorted(level, false), sorted(level, true))).unzip();
    let below = |sorted: &[f64], own: f64| sorted.partition_point(|loss| *loss < own);
    let count = |own: &&[f64]| {
        let last = own.len() - 1;
        let behind: usize = (0..last).map(|level| below(&ended[level], own[level])).sum();
        behind + below(&came[last], own[last])
    };
    losses.iter().map(count).collect()
}

/// Ranks as shares of their number, equal ones sharing the middle of their places.
fn middle_ranks(counts: &[usize]) -> Vec<f64> {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let share = |count: &usize| {
        let (low, high) = (sorted.partition_point(|c| c < count), sorted.partition_point(|c| c <= count));
        (low + high) as f64 / (2 * sorted.len()) as f64
    };
    counts.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::{beaten_by, middle_ranks};

    #[test]
    fn an_early_promotion_does_not_make_a_bad_trial_a_good_one() {
        // The first came before all others and ran in full; the third and fourth were better where they were stopped.
        let losses: [&[f64]; 5] = [&[9.0, 8.0, 7.0], &[3.0, 2.0, 1.0], &[4.0], &[5.0], &[10.0]];
        assert_eq!(beaten_by(&losses), [3, 0, 1, 2, 4]);
    }

    #[test]
    fn pairs_are_compared_at_their_highest_common_level() {
        let losses: [&[f64]; 6] =
            [&[1.0], &[2.0, 9.0], &[3.0, 1.0, 5.0], &[2.0, 2.0, 4.0], &[f64::INFINITY], &[f64::INFINITY]];
        let pairs = losses.iter().map(|own| {
            let beats = |other: &&&[f64]| {
                let common = own.len().min(other.len()) - 1;
                other[common] < own[common]
            };
            losses.iter().filter(beats).count()
        });
        assert_eq!(beaten_by(&losses), pairs.collect::<Vec<_>>());
    }

    #[test]
    fn equal_trials_share_a_rank() {
        assert_eq!(middle_ranks(&[0, 2, 2, 7]), [0.125, 0.5, 0.5, 0.875]);
        assert_eq!(middle_ranks(&[]), [0.0; 0]);
    }
}
