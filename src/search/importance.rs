//! Which parameters matter: how much of what the objective does over the space goes with each of them.
//!
//! Invariant: a function of the study alone; the order of its trials does not matter. Shares are at least 0 and sum to 1.
//! They say what the results so far bear out, and there are none where these bear out nothing: where the model cannot tell
//! results that it was not shown (R² over `FOLDS`). Where a search has only looked at good points, what matters far from
//! them is not seen.
//!
//! | symbol  | meaning                                                                                        |
//! |---------|------------------------------------------------------------------------------------------------|
//! | f(x)    | what the Gaussian process of `bayesian` expects of a point                                     |
//! | a, b    | `SAMPLES` quasi-random points of the unit cube each: a uniform draw under each range's scaling |
//! | a(j)    | a with coordinate j of b                                                                       |
//! | T(j)    | total effect of coordinate j: mean of (f(a) - f(a(j)))² / 2                                    |
//!
//! A parameter's share is its T of the sum of all. What two parameters do together counts for both.
//!
//! T: Jansen, Analysis of variance designs for model output (1999), as in Saltelli et al., Variance based sensitivity
//! analysis of model output (2010), table 2 (f). On a surrogate of the search: Hutter, Hoos and Leyton-Brown, An Efficient
//! Approach for Assessing Hyperparameter Importance (2014), whose forest needs more results than the process to tell a
//! parameter that does nothing, and sees less of what two do together.

use crate::search::Study;
use crate::search::bayesian::Expectation;
use crate::search::features::Features;
use crate::search::rng::Stream;
use crate::search::targets;

/// Fewer results, or fewer than two more than there are coordinates, tell nothing.
const LEAST: usize = 5;
/// Results that the process is conditioned on at most.
const MOST: usize = 200;
const SAMPLES: u32 = 512;
/// Where bad values are cut, of how far from the best one nine in ten are: the one that f tells most of counts. The wide one
/// keeps what a search saw before it came to good points, the narrow one keeps out what diverged without a pattern.
const CAPS: [f64; 2] = [4.0, 1.2];
const FOLDS: usize = 5;
/// The least R² at which f tells something.
const LEAST_TOLD: f64 = 0.25;

/// One share for each parameter of the space, in its order; `None` where there are too few results to tell, or where none
/// of it goes with any parameter.
#[must_use]
pub fn importance(study: &Study) -> Option<Vec<f64>> {
    let features = Features::of(&study.space);
    let (points, losses): (Vec<Vec<f64>>, Vec<f64>) =
        study.results().map(|(trial, loss)| (features.encode(&trial.values), loss)).unzip();
    if features.len() == 0 || losses.len() < LEAST.max(features.len() + 2) {
        return None;
    }
    let judged = CAPS.iter().filter_map(|cap| {
        let y = targets::capped(&losses, *cap);
        Some((told(&features, &points, &y)?, y))
    });
    let (_, y) = judged.filter(|(told, _)| *told >= LEAST_TOLD).max_by(|a, b| a.0.total_cmp(&b.0))?;
    let expectation = Expectation::of(&features, &points, &y, MOST)?;
    let mut stream = Stream::new(study.seed, study.definition, 0);
    let effects = total_effects(&features, |x| expectation.at(x).map(|(mean, _)| mean).collect(), &mut stream);
    let sum: f64 = effects.iter().sum();
    let shares: Vec<f64> = effects.iter().map(|effect| effect / sum).collect();
    (sum > 0.0).then(|| features.by_parameter(&shares))
}

/// R²: the share of the targets' variance, which is 1, that the process tells of results that it was not shown.
fn told(features: &Features, points: &[Vec<f64>], y: &[f64]) -> Option<f64> {
    let mut missed = 0.0;
    for fold in 0..FOLDS {
        let of = |held: bool| {
            let chosen = (0..y.len()).filter(move |i| (i % FOLDS == fold) == held);
            chosen.map(|i| (points[i].clone(), y[i])).unzip::<_, _, Vec<Vec<f64>>, Vec<f64>>()
        };
        let ((shown, shown_y), (held, held_y)) = (of(false), of(true));
        let expectation = Expectation::of(features, &shown, &shown_y, MOST)?;
        missed += expectation.at(&held).zip(held_y).map(|((mean, _), y)| (y - mean) * (y - mean)).sum::<f64>();
    }
    Some(1.0 - missed / y.len() as f64)
}

/// T of each coordinate.
fn total_effects(features: &Features, f: impl Fn(&[Vec<f64>]) -> Vec<f64>, stream: &mut Stream) -> Vec<f64> {
    let (a, b) = (features.sobol(SAMPLES, stream), features.sobol(SAMPLES, stream));
    let of_a = f(&a);
    let effect = |j: usize| {
        let mut mixed = a.clone();
        for (mixed, b) in mixed.iter_mut().zip(&b) {
            mixed[j] = b[j];
        }
        let squares = f(&mixed).iter().zip(&of_a).map(|(mixed, a)| (mixed - a) * (mixed - a)).sum::<f64>();
        squares / f64::from(2 * SAMPLES)
    };
    (0..features.len()).map(effect).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::{Direction, Scaling, Strategy as Search};
    use crate::search::rng::Stream;
    use crate::search::{Study, Trial, TrialState, importance, scale, suggest};

    const KINDS: [&str; 6] = ["real", "logarithmic", "whole", "category", "other real", "other category"];

    /// Of one parameter of each of the `KINDS`, and one that has a single value.
    fn study(search: Search, direction: Direction, seed: u64) -> Study {
        let texts = |n: u32| Range::Categorical { values: (0..n).map(|i| format!("v{i}")).collect() };
        let ranges = [
            Range::Continuous { min: -1.0, max: 1.0, scaling: Scaling::Linear },
            Range::Continuous { min: 1e-5, max: 1.0, scaling: Scaling::Logarithmic },
            Range::Integer { min: 1, max: 40, scaling: Scaling::Linear },
            texts(3),
            Range::Continuous { min: -1.0, max: 1.0, scaling: Scaling::Linear },
            texts(4),
            texts(1),
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

    /// Shares after `n` trials of a function of the place in the unit cube and of noise in [0, 1).
    fn after(mut study: Study, n: u32, f: impl Fn(&[f64], f64) -> f64) -> Option<Vec<f64>> {
        let mut noise = Stream::new(study.seed, 1, 1);
        let sign = if study.direction == Direction::Maximize { -1.0 } else { 1.0 };
        for ordinal in 1..=n {
            let values = suggest(&study, ordinal, 1).unwrap().points.remove(0);
            let ranges = study.space.parameters.iter().map(|parameter| &parameter.range);
            let units: Vec<f64> = ranges.zip(&values).map(|(range, value)| scale::unit_of(range, *value)).collect();
            let value = f(&units, noise.unit());
            add(&mut study, values, TrialState::Completed, Some(sign * value));
        }
        importance(&study)
    }

    fn studies() -> impl Iterator<Item = Study> {
        let directions = [Direction::Minimize, Direction::Maximize];
        let kinds = [Search::Random, Search::Bayesian].into_iter().zip(directions);
        kinds.flat_map(|(search, direction)| (0..3).map(move |seed| study(search, direction, seed)))
    }

    #[test]
    fn the_one_parameter_that_matters_has_nearly_all_of_whatever_kind_it_is() {
        for (j, kind) in KINDS.iter().enumerate() {
            for study in studies() {
                let name = format!("{kind}, {} {}", study.strategy, study.seed);
                let shares = after(study, 30, |u, _| (u[j] - 0.4) * (u[j] - 0.4)).unwrap();
                assert!(shares[j] > 0.9, "{name}: {shares:?}");
            }
        }
    }

    #[test]
    fn shares_follow_the_effects() {
        for study in studies() {
            // Variances of the parts are as 4 to 1.
            let shares = after(study.clone(), 30, |u, _| 2.0 * u[0] + u[1]).unwrap();
            assert!((shares[0] - 0.8).abs() < 0.06 && (shares[1] - 0.2).abs() < 0.06, "{shares:?}");
            let shares = after(study.clone(), 60, |u, _| (u[1] - 0.5) * (u[4] - 0.5)).unwrap();
            assert!((shares[1] - 0.5).abs() < 0.15 && (shares[4] - 0.5).abs() < 0.15, "together: {shares:?}");
            let shares = after(study, 40, |u, _| f64::from(u8::from(u[3] < 0.5)) + (u[1] - 0.4).abs()).unwrap();
            assert!(shares[1] > 0.05 && shares[3] > 0.3 && shares[1] + shares[3] > 0.9, "{shares:?}");
        }
    }

    #[test]
    fn noise_is_not_taken_for_an_effect() {
        for study in studies() {
            assert_eq!(after(study, 40, |_, noise| noise), None);
        }
        for seed in 0..3 {
            let study = study(Search::Random, Direction::Minimize, seed);
            let shares = after(study, 40, |u, noise| 3.0 * (u[1] - 0.6) * (u[1] - 0.6) + 0.2 * noise).unwrap();
            assert!(shares[1] > 0.8, "{shares:?}");
        }
    }

    #[test]
    fn what_was_seen_before_the_search_came_to_good_points_counts() {
        let share = |seed| {
            let study = study(Search::Bayesian, Direction::Minimize, seed);
            after(study, 60, |u, noise| 3.0 * (u[1] - 0.6) * (u[1] - 0.6) + 0.2 * noise).map(|shares| shares[1])
        };
        let seen = (10..13).filter(|seed| share(*seed).is_some_and(|share| share > 0.9)).count();
        assert!(seen >= 1, "for none of the seeds");
    }

    #[test]
    fn a_few_diverged_trials_do_not_hide_the_rest() {
        for seed in 0..3 {
            let trial = std::cell::Cell::new(0);
            let f = |u: &[f64], _| {
                trial.set(trial.get() + 1);
                if trial.get() % 15 == 7 { 1e12 } else { u[1] }
            };
            let shares = after(study(Search::Random, Direction::Minimize, seed), 40, f).unwrap();
            assert!(shares[1] > 0.5, "{shares:?}");
        }
    }

    #[test]
    fn too_few_results_and_results_that_say_nothing_have_no_shares() {
        let fresh = || study(Search::Random, Direction::Minimize, 1);
        assert_eq!(after(fresh(), 0, |u, _| u[0]), None);
        assert_eq!(after(fresh(), 7, |u, _| u[0]), None);
        assert!(after(fresh(), 16, |u, _| u[0]).is_some());
        assert_eq!(after(fresh(), 20, |_, _| 0.5), None);
        let mut failed = fresh();
        for values in suggest(&failed, 1, 20).unwrap().points {
            add(&mut failed, values, TrialState::Failed, None);
        }
        assert_eq!(importance(&failed), None);
        let mut single = fresh();
        single.space.parameters.drain(..6);
        for i in 0..20 {
            add(&mut single, vec![Value::Category(0)], TrialState::Completed, Some(f64::from(i)));
        }
        assert_eq!(importance(&single), None, "a parameter of one value cannot matter");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shares_are_none_or_sum_to_one_whatever_the_values(
            values in prop::collection::vec(prop_oneof![
                4 => -10.0..10.0_f64, 1 => Just(1e300), 1 => Just(-1e300), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY),
                1 => Just(f64::MAX), 1 => Just(f64::MIN), 1 => Just(0.0), 1 => Just(f64::MIN_POSITIVE),
            ], 0..40),
            seed in 0..1000_u64,
        ) {
            let mut study = study(Search::Random, Direction::Maximize, seed);
            let points = suggest(&study, 1, 40).unwrap().points;
            for (point, value) in points.into_iter().zip(&values) {
                add(&mut study, point, TrialState::Completed, Some(*value));
            }
            let shares = importance(&study);
            if let Some(shares) = &shares {
                prop_assert_eq!(shares.len(), study.space.parameters.len());
                prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{:?}", shares);
                prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", shares);
                prop_assert!(shares[6].to_bits() == 0, "it has one value: {:?}", shares);
            }
            study.trials.reverse();
            prop_assert_eq!(importance(&study), shares);
        }
    }
}
