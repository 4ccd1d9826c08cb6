//! Whether a tuning job is over before its budget: its target is reached, its best is not improving, or it has converged.
//!
//! Invariant: a function of the study alone; the order of its trials does not matter. A trial counts once it is over with a
//! value; pending and failed ones say nothing about what can be reached. The service's words for the numbers: a result
//! improves where it is 1 % or more better than the best before it, and a job has converged where an improvement of more
//! than 1 % over its best is unlikely. How it finds that out it does not say; the rule here:
//!
//! | symbol | here     | meaning                                                                                 |
//! |--------|----------|-----------------------------------------------------------------------------------------|
//! | y      | `losses` | of the trials that count, by ordinal                                                    |
//! | r      |          | reference: the last loss that improved on the one before; small steps add up against it |
//! | k      | `streak` | how many results there are since r                                                      |
//! | g      | `goal`   | the lowest loss, less 1 % of its size                                                   |
//! | μ, σ   |          | what the Gaussian process of `bayesian` expects of a point x, without the noise         |
//! | P(x)   |          | probability of improvement, Φ((g - μ(x)) / σ(x))                                        |
//!
//! Converged where k is at least `PATIENCE` and two more for each coordinate, and P(x) < `UNLIKELY` wherever it is looked:
//! all over the space, and around the best points. Either alone would be wrong: a search may find nothing for a while
//! though there is something to be found, and a model of few results is too sure of itself. It is the model that has to
//! be convinced, whatever the strategy: a random search that has left much of the space unseen goes on to its budget. So
//! does one whose best value is 0, where any improvement is more than 1 %.
//!
//! P: Kushner, A new method of locating the maximum point of an arbitrary multipeak curve in the presence of noise (1964).
//! A model's bound on what is left as the reason to stop: Makarova et al., Automatic Termination for Hyperparameter
//! Optimization (2022), whose threshold is the noise of cross-validation, not known here; the service's 1 % serves.

use crate::search::bayesian::Expectation;
use crate::search::features::Features;
use crate::search::rng::Stream;
use crate::search::targets::targets;
use crate::search::{Study, normal};

/// The share of the best value that counts as an improvement, less what a division of decimal values may round away.
const IMPROVEMENT: f64 = 0.01 - 1e-12;
/// Results without an improvement before convergence is looked for, whatever the space.
const PATIENCE: usize = 10;
/// A smaller probability of improvement is none.
const UNLIKELY: f64 = 0.02;
/// Results that the process is conditioned on at most.
const MOST: usize = 300;
/// Points that are looked at: all over the space, and around each of the best ones at each of these deviations.
const EVERYWHERE: u32 = 512;
const BEST: usize = 5;
const AROUND: usize = 20;
const REACH: [f64; 3] = [0.2, 0.05, 0.01];

/// When a tuning job is over before its budget (`TuningJobCompletionCriteria`); the first criterion met counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Criteria {
    /// `TargetObjectiveMetricValue`: the objective value to reach.
    pub target: Option<f64>,
    /// `MaxNumberOfTrainingJobsNotImproving`: results in a row without an improvement; the service allows 3 or more.
    pub not_improving: Option<u32>,
    /// `CompleteOnConvergence`: whether convergence ends the job.
    pub on_convergence: bool,
}

/// Why a tuning job is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A trial is as good as the target or better.
    TargetReached,
    /// Too many results in a row did not improve the best one.
    NotImproving,
    /// An improvement is unlikely.
    Converged,
}

/// Whether the study is over by its criteria, and why; asked when a trial has ended.
#[must_use]
pub fn completion(study: &Study, criteria: &Criteria) -> Option<Reason> {
    let losses = losses(study);
    let target = criteria.target.filter(|target| target.is_finite()).map(|target| study.direction.loss(target));
    if target.is_some_and(|target| losses.iter().any(|loss| *loss <= target)) {
        return Some(Reason::TargetReached);
    }
    if criteria.not_improving.is_some_and(|most| !losses.is_empty() && streak(&losses) >= most as usize) {
        return Some(Reason::NotImproving);
    }
    (criteria.on_convergence && converged(study)).then_some(Reason::Converged)
}

/// How many results there are since the last that improved the best by 1 % or more
/// (`NumberOfTrainingJobsObjectiveNotImproving`).
#[must_use]
pub fn not_improving(study: &Study) -> u32 {
    u32::try_from(streak(&losses(study))).unwrap_or(u32::MAX)
}

/// Whether an improvement of more than 1 % is unlikely; see the module.
#[must_use]
pub fn converged(study: &Study) -> bool {
    let losses = losses(study);
    let features = Features::of(&study.space);
    streak(&losses) >= PATIENCE + 2 * features.len() && !may_improve(study, &features, &losses)
}

fn losses(study: &Study) -> Vec<f64> {
    study.results().map(|(_, loss)| loss).collect()
}

/// k; 0 where there is no result.
fn streak(losses: &[f64]) -> usize {
    let Some((first, rest)) = losses.split_first() else { return 0 };
    let improve = |(reference, k), loss: &f64| {
        let improves = *loss < reference && reference - loss >= IMPROVEMENT * reference.abs();
        if improves { (*loss, 0) } else { (reference, k + 1) }
    };
    rest.iter().fold((*first, 0), improve).1
}

/// Whether P(x) is worth a trial anywhere; so it is where there is no model to tell.
fn may_improve(study: &Study, features: &Features, losses: &[f64]) -> bool {
    let y = targets(losses);
    let Some(goal) = goal(losses, &y) else { return false };
    let points: Vec<Vec<f64>> = study.results().map(|(trial, _)| features.encode(&trial.values)).collect();
    let Some(expectation) = Expectation::of(features, &points, &y, MOST) else { return true };
    let mut stream = Stream::new(study.seed, study.definition, 0);
    let mut candidates = features.sobol(EVERYWHERE, &mut stream);
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|a, b| y[*a].total_cmp(&y[*b]));
    for best in order.into_iter().take(BEST) {
        for reach in REACH {
            candidates.extend((0..AROUND).map(|_| features.near(&points[best], reach, &mut stream)));
        }
    }
    let mut expected = expectation.at(&candidates);
    expected.any(|(mean, deviation)| normal::distribution((goal - mean) / deviation) >= UNLIKELY)
}

/// g among the targets; `None` where all losses are equal, so that nothing says what could be better.
///
/// Targets are linear in the losses from the best one to the median (see `targets`); where all of these are equal, the next
/// worse one says what a target is worth.
fn goal(losses: &[f64], y: &[f64]) -> Option<f64> {
    let mut pairs: Vec<(f64, f64)> = losses.iter().copied().zip(y.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (best, best_y) = *pairs.first()?;
    let (better, worse) = pairs.split_at(pairs.len().div_ceil(2));
    let differs = |(_, y): &&(f64, f64)| *y > best_y;
    let (other, other_y) = *better.iter().rev().find(differs).or_else(|| worse.iter().find(differs))?;
    Some(best_y - IMPROVEMENT * best.abs() * ((other_y - best_y) / (other - best)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PATIENCE, streak};
    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::{Direction, Scaling, Strategy as Search};
    use crate::search::{
        Criteria, Reason, Study, Trial, TrialState, completion, converged, not_improving, scale, suggest,
    };

    const CONVERGENCE: Criteria = Criteria { target: None, not_improving: None, on_convergence: true };

    /// Of one real, one real on a logarithmic scale, one whole number and one category.
    fn study(search: Search, direction: Direction, seed: u64) -> Study {
        let ranges = [
            Range::Continuous { min: -1.0, max: 1.0, scaling: Scaling::Linear },
            Range::Continuous { min: 1e-5, max: 1.0, scaling: Scaling::Logarithmic },
            Range::Integer { min: 1, max: 40, scaling: Scaling::Linear },
            Range::Categorical { values: ["a", "b", "c"].map(String::from).to_vec() },
        ];
        let named = |(i, range)| Parameter { name: format!("p{i}"), range };
        Study {
            space: Space { parameters: ranges.into_iter().enumerate().map(named).collect() },
            direction,
            strategy: search,
            seed,
            definition: 0,
            budget: 100,
            trials: vec![],
            parents: vec![],
            warm_start: None,
            resource: None,
            early_stopping: false,
        }
    }

    fn add(study: &mut Study, values: Vec<Value>, state: TrialState, value: Option<f64>) {
        let ordinal = u32::try_from(study.trials.len()).unwrap() + 1;
        study.trials.push(Trial { ordinal, values, state, curve: vec![], value });
    }

    /// Trials at one point of the space, which the criteria that do not look at points accept.
    fn with_values(direction: Direction, values: &[f64]) -> Study {
        let mut study = study(Search::Random, direction, 1);
        let point: Vec<Value> = study.space.parameters.iter().map(|p| scale::at(&p.range, 0.5)).collect();
        for value in values {
            add(&mut study, point.clone(), TrialState::Completed, Some(*value));
        }
        study
    }

    /// One more trial of a function of the place in the unit cube; its value.
    fn step(study: &mut Study, f: impl Fn(&[f64], u32) -> f64) -> f64 {
        let ordinal = u32::try_from(study.trials.len()).unwrap() + 1;
        let values = suggest(study, ordinal, 1).unwrap().points.remove(0);
        let ranges = study.space.parameters.iter().map(|parameter| &parameter.range);
        let units: Vec<f64> = ranges.zip(&values).map(|(range, value)| scale::unit_of(range, *value)).collect();
        let value = f(&units, ordinal);
        add(study, values, TrialState::Completed, Some(value));
        value
    }

    /// Runs up to 100 trials until the study has converged; the best value then, where it has.
    fn run(study: &mut Study, f: impl Fn(&[f64], u32) -> f64) -> Option<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..study.budget {
            best = best.min(step(study, &f));
            if completion(study, &CONVERGENCE) == Some(Reason::Converged) {
                return Some(best);
            }
        }
        None
    }

    /// 0 at a point off the middle, about 0.6 at the farthest.
    fn bowl(u: &[f64]) -> f64 {
        u.iter().zip([0.3, 0.6, 0.4, 0.5]).map(|(u, c)| (u - c) * (u - c)).sum()
    }

    fn wavy(u: &[f64]) -> f64 {
        let wave = |(u, c): (&f64, f64)| 0.05 * (1.0 - libm::cos(15.0 * (u - c)));
        bowl(u) + u.iter().zip([0.3, 0.6, 0.4, 0.5]).map(wave).sum::<f64>()
    }

    /// A basin that is easily found, and a deeper one in a corner.
    fn two_basins(u: &[f64]) -> f64 {
        let corner: f64 = u[..2].iter().map(|u| (u - 0.9) * (u - 0.9)).sum();
        0.3 + bowl(u) - libm::exp(-20.0 * corner)
    }

    #[test]
    fn a_simple_function_is_not_given_up_before_its_best_is_found() {
        for search in [Search::Bayesian, Search::TPE, Search::Random] {
            for seed in 0..4 {
                let best = run(&mut study(search, Direction::Minimize, seed), |u, _| 1.0 + bowl(u));
                assert!(best.unwrap_or(1.0) < 1.01, "{search} {seed}: given up at {best:?}, though 1 can be had");
                assert!(search != Search::Bayesian || best.is_some(), "{seed}: found, and never given up");
            }
        }
    }

    #[test]
    fn a_search_that_goes_on_finds_little_more() {
        for search in [Search::Bayesian, Search::TPE] {
            for seed in 0..3 {
                let mut study = study(search, Direction::Minimize, seed);
                let Some(then) = run(&mut study, |u, _| 1.0 + wavy(u)) else { continue };
                let mut best = then;
                while study.trials.len() < 100 {
                    best = best.min(step(&mut study, |u, _| 1.0 + wavy(u)));
                }
                assert!(best > then * 0.99, "{search} {seed}: given up at {then}, and then found {best}");
            }
        }
    }

    #[test]
    fn a_basin_that_random_search_has_not_found_yet_keeps_it_going() {
        for seed in 0..3 {
            let best = run(&mut study(Search::Random, Direction::Minimize, seed), |u, _| 1.0 + two_basins(u));
            assert!(best.unwrap_or(0.0) < 1.25, "{seed}: given up in the shallow basin, at {best:?}");
        }
    }

    #[test]
    fn a_plateau_ends_the_search() {
        let noise = |ordinal: u32| 0.005 * f64::from(ordinal.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        for search in [Search::Bayesian, Search::TPE, Search::Random] {
            let mut flat = study(search, Direction::Minimize, 3);
            assert_eq!(run(&mut flat, |_, _| 0.7), Some(0.7));
            assert_eq!(flat.trials.len(), 1 + PATIENCE + 8, "as soon as patience ends");
            let mut rough = study(search, Direction::Minimize, 3);
            assert!(run(&mut rough, |_, ordinal| 0.7 + noise(ordinal)).is_some());
            assert!(rough.trials.len() < 30, "{search} took {} trials", rough.trials.len());
        }
        let mut floor = study(Search::Bayesian, Direction::Minimize, 3);
        assert_eq!(run(&mut floor, |u, _| (0.1 + bowl(u)).max(0.2)), Some(0.2), "the floor of a bowl");
    }

    #[test]
    fn results_of_one_corner_do_not_tell_that_there_is_nothing_elsewhere() {
        let mut study = study(Search::Random, Direction::Maximize, 1);
        for i in 0..40 {
            let unit = 0.3 - 0.007 * f64::from(i);
            let point: Vec<Value> = study.space.parameters.iter().map(|p| scale::at(&p.range, unit)).collect();
            add(&mut study, point, TrialState::Completed, Some(0.5 + unit));
        }
        assert_eq!(not_improving(&study), 39);
        assert!(!converged(&study));
    }

    #[test]
    fn a_target_is_reached_from_its_side() {
        let over = |direction, target, values: &[f64]| {
            completion(&with_values(direction, values), &Criteria { target: Some(target), ..Criteria::default() })
        };
        assert_eq!(over(Direction::Maximize, 0.9, &[0.5, 0.9]), Some(Reason::TargetReached));
        assert_eq!(over(Direction::Maximize, 0.9, &[0.5, 0.89]), None);
        assert_eq!(over(Direction::Minimize, -1.0, &[0.5, -1.5, 3.0]), Some(Reason::TargetReached));
        assert_eq!(over(Direction::Minimize, -1.0, &[0.5, -0.5]), None);
        assert_eq!(over(Direction::Minimize, f64::NAN, &[0.5]), None);
        assert_eq!(over(Direction::Maximize, f64::NEG_INFINITY, &[0.5]), None);
        assert_eq!(over(Direction::Minimize, 1.0, &[]), None);
    }

    #[test]
    fn one_per_cent_is_an_improvement_and_small_steps_add_up() {
        let count = |values: &[f64]| not_improving(&with_values(Direction::Maximize, values));
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[0.9]), 0);
        assert_eq!(count(&[0.9, 0.909]), 0, "1 % to the digit");
        assert_eq!(count(&[0.9, 0.908]), 1);
        assert_eq!(count(&[0.9, 0.905, 0.91]), 0, "two steps of half a per cent");
        assert_eq!(count(&[0.9, 0.5, 0.92, 0.92, 0.1]), 2);
        assert_eq!(count(&[-1.0, -0.995, -0.98, -0.98]), 1);
        assert_eq!(count(&[0.0, 0.0, 1e-9]), 0, "anything is more than 1 % of nothing");
    }

    #[test]
    fn trials_without_a_value_do_not_count_and_those_stopped_early_do() {
        let mut study = with_values(Direction::Minimize, &[1.0, 2.0, 2.0]);
        let values = study.trials[0].values.clone();
        let criteria = Criteria { not_improving: Some(3), ..Criteria::default() };
        add(&mut study, values.clone(), TrialState::Failed, None);
        add(&mut study, values.clone(), TrialState::Pending, None);
        assert_eq!((not_improving(&study), completion(&study, &criteria)), (2, None));
        add(&mut study, values, TrialState::Stopped, Some(1.5));
        assert_eq!((not_improving(&study), completion(&study, &criteria)), (3, Some(Reason::NotImproving)));
        assert_eq!(completion(&study, &Criteria::default()), None);
        let both = Criteria { target: Some(1.0), ..criteria };
        assert_eq!(completion(&study, &both), Some(Reason::TargetReached));
    }

    fn hostile() -> impl Strategy<Value = Option<f64>> {
        let value = prop_oneof![
            3 => -10.0..10.0_f64, 1 => Just(0.0), 1 => Just(1e300), 1 => Just(-1e300), 1 => Just(f64::NAN),
            1 => Just(f64::INFINITY), 1 => Just(f64::MAX), 1 => Just(f64::MIN_POSITIVE),
        ];
        prop::option::weighted(0.9, value)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_history_is_judged_and_its_order_does_not_matter(
            values in prop::collection::vec(hostile(), 0..60), seed in 0..100_u64, target in hostile()
        ) {
            let mut study = study(Search::Random, Direction::Maximize, seed);
            let points = suggest(&study, 1, 60).unwrap().points;
            for (point, value) in points.into_iter().zip(&values) {
                let state = if value.is_some() { TrialState::Completed } else { TrialState::Failed };
                add(&mut study, point, state, *value);
            }
            let criteria = Criteria { target, not_improving: Some(20), on_convergence: true };
            let verdict = completion(&study, &criteria);
            prop_assert_eq!(verdict, completion(&study, &criteria));
            prop_assert!(not_improving(&study) as usize <= values.len());
            prop_assert!(verdict != Some(Reason::NotImproving) || not_improving(&study) >= 20);
            study.trials.reverse();
            prop_assert_eq!(verdict, completion(&study, &criteria));
        }

        #[test]
        fn the_unit_of_the_objective_does_not_matter(
            losses in prop::collection::vec(-10.0..10.0_f64, 1..60), exponent in -20..20_i32
        ) {
            let scaled: Vec<f64> = losses.iter().map(|loss| loss * libm::exp2(f64::from(exponent))).collect();
            prop_assert_eq!(streak(&losses), streak(&scaled));
        }

        #[test]
        fn results_that_do_not_improve_are_counted_one_by_one(
            losses in prop::collection::vec(0.0..10.0_f64, 1..30), more in 0..30_usize
        ) {
            let worst = losses.iter().copied().fold(0.0, f64::max);
            let longer: Vec<f64> = losses.iter().copied().chain(std::iter::repeat_n(worst, more)).collect();
            prop_assert_eq!(streak(&longer), streak(&losses) + more);
        }
    }
}
