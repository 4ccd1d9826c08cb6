//! What strategies other than Bayesian search take from parents.
//!
//! - `IdenticalDataAndAlgorithm`: parents' results are data, as if they were the study's own ([`joined`]).
//! - `TransferLearning`: the first trials are at parents' best points ([`Guides`]), and only what they come to is believed,
//!   so that a parent that misleads costs `MOST` trials.
//!
//! Invariant: without parents, or with none whose points fit the study's space, nothing changes. What is taken is decided
//! by the study's own trials: a parent's point may be tried again.

use std::borrow::Cow;

use crate::domain::space::Value;
use crate::domain::status::WarmStart;
use crate::search::features::Features;
use crate::search::{Study, Trial, TrialState};

/// Trials at parents' points.
const MOST: usize = 3;
/// How far apart they are at least, in the coordinate that differs most.
const APART: f64 = 0.1;

/// A study with the results of parents that are data before its own trials.
pub(super) fn joined(study: &Study) -> Cow<'_, Study> {
    if study.warm_start != Some(WarmStart::IdenticalDataAndAlgorithm) || study.parents.is_empty() {
        return Cow::Borrowed(study);
    }
    let known = study.parents.iter().flat_map(|parent| results(parent, study));
    let mut trials: Vec<Trial> = (1..)
        .zip(known)
        .map(|(ordinal, (values, value))| Trial {
            ordinal,
            values,
            state: TrialState::Completed,
            curve: vec![],
            value: Some(value),
        })
        .collect();
    let before = u32::try_from(trials.len()).unwrap_or(u32::MAX);
    let own = study.trials.iter().cloned();
    trials.extend(own.map(|trial| Trial { ordinal: trial.ordinal.saturating_add(before), ..trial }));
    Cow::Owned(Study { trials, parents: vec![], ..study.clone() })
}

/// Points for the first trials.
pub(super) struct Guides(Vec<Vec<Value>>);

impl Guides {
    /// The best points of parents that guide, in turn, none near another.
    pub(super) fn of(study: &Study, features: &Features) -> Self {
        if study.warm_start != Some(WarmStart::TransferLearning) {
            return Self(vec![]);
        }
        Self::best(study, features)
    }

    /// The best points of parents, whatever kind they are.
    pub(super) fn best(study: &Study, features: &Features) -> Self {
        let mut ranked: Vec<(usize, usize, Vec<Value>)> = Vec::new();
        let parents = if study.warm_start.is_some() { study.parents.as_slice() } else { &[] };
        for (nth, parent) in parents.iter().enumerate() {
            let mut results: Vec<_> = results(parent, study).collect();
            results.sort_by(|(_, a), (_, b)| study.direction.loss(*a).total_cmp(&study.direction.loss(*b)));
            ranked.extend(results.into_iter().enumerate().map(|(rank, (values, _))| (rank, nth, values)));
        }
        ranked.sort_by_key(|(rank, nth, _)| (*rank, *nth));
        let mut chosen: Vec<(Vec<f64>, Vec<Value>)> = Vec::new();
        for (_, _, values) in ranked {
            let x = features.encode(&values);
            if chosen.len() < MOST && chosen.iter().all(|(other, _)| features.distance(other, &x) > APART) {
                chosen.push((x, values));
            }
        }
        Self(chosen.into_iter().map(|(_, values)| values).collect())
    }

    /// The point for a trial; `None` where parents say nothing about it.
    pub(super) fn point(&self, ordinal: u32) -> Option<Vec<Value>> {
        self.0.get((ordinal as usize).checked_sub(1)?).cloned()
    }
}

/// A parent's points that are of the study's space, in the order of their ordinals, and their finite values.
fn results<'a>(parent: &'a Study, study: &'a Study) -> impl Iterator<Item = (Vec<Value>, f64)> + 'a {
    let translated = |trial: &Trial| study.space.read(&parent.space.format(&trial.values));
    parent.results().filter_map(move |(trial, _)| Some((translated(trial)?, trial.value?)))
}

#[cfg(test)]
mod tests {
    use super::Guides;
    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::{Direction, Scaling, Strategy, WarmStart};
    use crate::search::features::Features;
    use crate::search::{Study, Trial, TrialState, suggest};

    fn study(strategy: Strategy, max: f64) -> Study {
        let range = Range::Continuous { min: 0.0, max, scaling: Scaling::Linear };
        Study {
            space: Space { parameters: vec![Parameter { name: "x".to_owned(), range }] },
            direction: Direction::Maximize,
            strategy,
            seed: 5,
            definition: 0,
            budget: 20,
            trials: vec![],
            parents: vec![],
            warm_start: None,
            resource: None,
            early_stopping: false,
        }
    }

    fn parent(max: f64, told: &[(f64, f64)]) -> Study {
        let trial = |(ordinal, (x, value)): (u32, &(f64, f64))| Trial {
            ordinal,
            values: vec![Value::Real(*x)],
            state: TrialState::Completed,
            curve: vec![],
            value: Some(*value),
        };
        Study { trials: (1..).zip(told).map(trial).collect(), ..study(Strategy::Random, max) }
    }

    #[test]
    fn guides_are_the_best_of_each_parent_in_turn_and_apart() {
        let mut child = study(Strategy::TPE, 1.0);
        child.warm_start = Some(WarmStart::TransferLearning);
        child.parents = vec![
            parent(1.0, &[(0.1, 9.0), (0.12, 8.0), (0.5, 7.0), (0.9, 1.0)]),
            parent(2.0, &[(1.5, 5.0), (0.7, 4.0)]),
        ];
        let features = Features::of(&child.space);
        let guides = Guides::of(&child, &features);
        let points: Vec<_> = (0..5).map(|ordinal| guides.point(ordinal)).collect();
        let at = |x: f64| Some(vec![Value::Real(x)]);
        assert_eq!(points, [None, at(0.1), at(0.7), at(0.5), None], "1.5 is outside, 0.12 near 0.1");
        for strategy in [Strategy::TPE, Strategy::SMAC, Strategy::Anneal, Strategy::Hyperband] {
            child.strategy = strategy;
            let tried = suggest(&child, 1, 3).unwrap().points;
            assert_eq!(tried, [at(0.1), at(0.7), at(0.5)].map(Option::unwrap), "{strategy}");
        }
    }

    #[test]
    fn identical_parents_are_data() {
        let told: Vec<(f64, f64)> = (0..40_u32).map(|i| f64::from(i) / 40.0).map(|x| (x, -(x - 0.7).abs())).collect();
        for strategy in [Strategy::TPE, Strategy::SMAC, Strategy::Anneal] {
            let mut child = study(strategy, 1.0);
            child.parents = vec![parent(1.0, &told)];
            let near = |child: &Study| {
                let points = suggest(child, 1, 8).unwrap().points;
                let is_near = |point: &&Vec<Value>| matches!(point[0], Value::Real(x) if (x - 0.7).abs() < 0.15);
                points.iter().filter(is_near).count()
            };
            assert!(near(&child) < 5, "{strategy}: parents without a warm start are nothing");
            child.warm_start = Some(WarmStart::IdenticalDataAndAlgorithm);
            assert!(near(&child) >= 5, "{strategy}: {} of 8 near the parent's best", near(&child));
        }
    }
}
