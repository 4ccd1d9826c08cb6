//! What every strategy owes, whichever it is: `strategy_suite!` makes one test module for each.
//!
//! A new strategy joins by its line at the end. What only one strategy promises stands in that strategy's own tests.

use std::collections::HashSet;

use crate::domain::space::{Parameter, Range, Space, Value};
use crate::domain::status::{Direction, Scaling, Strategy, WarmStart};
use crate::search::{Study, Suggestions, Trial, TrialState, suggest};

const FAR_BUDGET: u32 = 10_000;

fn int(min: i64, max: i64, scaling: Scaling) -> Range {
    Range::Integer { min, max, scaling }
}

fn real(min: f64, max: f64, scaling: Scaling) -> Range {
    Range::Continuous { min, max, scaling }
}

fn texts(n: usize) -> Range {
    Range::Categorical { values: (0..n).map(|i| format!("v{i}")).collect() }
}

fn space(ranges: impl IntoIterator<Item = Range>) -> Space {
    let named = |(i, range)| Parameter { name: format!("p{i:02}"), range };
    Space { parameters: ranges.into_iter().enumerate().map(named).collect() }
}

fn study(strategy: Strategy, space: Space) -> Study {
    Study {
        space,
        direction: Direction::Minimize,
        strategy,
        seed: 42,
        definition: 0,
        budget: FAR_BUDGET,
        trials: vec![],
        parents: vec![],
        warm_start: None,
        resource: None,
        early_stopping: false,
    }
}

/// Spaces of every kind; those that the strategy can't search are left out by what the service itself allows.
fn spaces(strategy: Strategy) -> Vec<Space> {
    let discrete = vec![
        space([texts(3), texts(2), texts(30)]),
        space([texts(1)]),
        space([texts(1), texts(7), texts(1)]),
        space((0..30).map(|i| texts(2 + i % 3))),
    ];
    let numeric = vec![
        space([real(0.0, 1.0, Scaling::Linear)]),
        space([real(1e-6, 1.0, Scaling::Logarithmic), real(0.0, 0.999, Scaling::ReverseLogarithmic), texts(2)]),
        space([real(-1e300, 1e300, Scaling::Auto), int(-(1 << 53), 1 << 53, Scaling::Linear)]),
        space([int(1, 20, Scaling::Logarithmic), int(0, 3, Scaling::Linear)]),
        space([real(0.25, 0.25, Scaling::Linear), int(7, 7, Scaling::Linear), texts(1)]),
        space([real(1.0, 1.0 + f64::EPSILON, Scaling::Linear), int(1, 3, Scaling::Auto)]),
        space((0..30).map(|i| match i % 3 {
            0 => real(f64::from(i), f64::from(i) + 1.0, Scaling::Auto),
            1 => int(1, 10_000, Scaling::Auto),
            _ => texts(30),
        })),
    ];
    if strategy == Strategy::Grid { discrete } else { discrete.into_iter().chain(numeric).collect() }
}

/// State, value and curve of a trial.
type Outcome = (TrialState, Option<f64>, Vec<(u32, f64)>);

/// A history in which each trial came to something else, hostile values among them.
fn came_to(i: u32) -> Outcome {
    let curve = vec![(1, f64::NAN), (2, f64::INFINITY), (3, f64::from(i))];
    match i % 6 {
        0 => (TrialState::Failed, None, vec![]),
        1 => (TrialState::Completed, Some(1e300), curve),
        2 => (TrialState::Completed, Some(-1e300), vec![]),
        3 => (TrialState::Completed, None, vec![(1, f64::NEG_INFINITY)]),
        4 => (TrialState::Stopped, Some(0.0), curve),
        _ => (TrialState::Pending, None, curve),
    }
}

fn ask(study: &Study, first: u32, n: u32) -> Suggestions {
    suggest(study, first, n).unwrap()
}

/// Takes suggestions one by one until `n` or the end of the space, recording what `outcome` makes of each.
///
/// Of a long history only every tenth is the strategy's own, and the last ones; the others are random, which is quick.
/// Grid's are its own throughout: they follow no history.
fn run(study: &mut Study, n: u32, outcome: impl Fn(u32) -> Outcome) -> bool {
    let strategy = study.strategy;
    for ordinal in 1..=n {
        let own = strategy == Strategy::Grid || n - ordinal < 5 || ordinal <= 5 || ordinal % 10 == 0;
        study.strategy = if own { strategy } else { Strategy::Random };
        let answer = ask(study, ordinal, 1);
        study.strategy = strategy;
        let Some(values) = answer.points.into_iter().next() else {
            assert!(answer.exhausted, "no suggestion, and the space is not exhausted");
            return true;
        };
        let (state, value, curve) = outcome(ordinal);
        study.trials.push(Trial { ordinal, values, state, curve, value });
        if answer.exhausted {
            return true;
        }
    }
    false
}

/// Right kind, in range, readable back from its text, and no two alike.
fn check(study: &Study) {
    let mut seen = HashSet::new();
    for trial in &study.trials {
        assert_eq!(trial.values.len(), study.space.parameters.len());
        for (parameter, value) in study.space.parameters.iter().zip(&trial.values) {
            let fits = match (&parameter.range, *value) {
                (Range::Continuous { min, max, .. }, Value::Real(x)) => (*min..=*max).contains(&x),
                (Range::Integer { min, max, .. }, Value::Int(i)) => (*min..=*max).contains(&i),
                (Range::Categorical { values }, Value::Category(i)) => i < values.len(),
                _ => false,
            };
            assert!(fits, "{value:?} is not of {parameter:?}");
        }
        let texts = study.space.format(&trial.values);
        assert_eq!(study.space.read(&texts).as_deref(), Some(trial.values.as_slice()));
        assert!(seen.insert(texts), "trial {} repeats an earlier one: {:?}", trial.ordinal, trial.values);
    }
}

fn values_fit_and_differ(strategy: Strategy) {
    for space in spaces(strategy) {
        let points = space.cardinality();
        let mut study = study(strategy, space);
        let exhausted = run(&mut study, 120, came_to);
        check(&study);
        if let Some(points) = points.filter(|n| *n <= 120) {
            assert!(exhausted, "a space of {points} points still has some after {}", study.trials.len());
            assert_eq!(study.trials.len() as u64, points, "every point is suggested before the end");
        }
    }
}

/// Parents of hostile values, of one value, of few trials, and of another space.
fn parents(space: &Space) -> Vec<Study> {
    let of = |space: &Space, trials, outcome: fn(u32) -> Outcome| {
        let mut parent = study(Strategy::Random, space.clone());
        run(&mut parent, trials, outcome);
        parent
    };
    let constant = |_| (TrialState::Completed, Some(2.0), vec![]);
    let other = self::space([real(0.0, 1.0, Scaling::Linear), texts(3)]);
    vec![of(space, 60, came_to), of(space, 40, constant), of(space, 2, constant), of(&other, 20, constant)]
}

fn parents_of_any_kind_derail_nothing(strategy: Strategy) {
    for space in spaces(strategy) {
        for warm_start in [WarmStart::IdenticalDataAndAlgorithm, WarmStart::TransferLearning] {
            let mut study = study(strategy, space.clone());
            study.parents = parents(&space);
            study.warm_start = Some(warm_start);
            run(&mut study, 20, came_to);
            check(&study);
        }
    }
}

fn a_long_history_is_searched_on(strategy: Strategy) {
    let mut study = study(strategy, spaces(strategy).pop().unwrap());
    assert!(!run(&mut study, 500, came_to));
    check(&study);
    assert_eq!(study.trials.len(), 500);
}

fn failures_alone_do_not_stop_it(strategy: Strategy) {
    for space in spaces(strategy) {
        let mut study = study(strategy, space);
        run(&mut study, 40, |_| (TrialState::Failed, None, vec![]));
        check(&study);
    }
}

fn constant_values_do_not_stop_it(strategy: Strategy) {
    for space in spaces(strategy) {
        let mut study = study(strategy, space);
        run(&mut study, 40, |_| (TrialState::Completed, Some(0.5), vec![(1, 0.5)]));
        check(&study);
    }
}

fn a_hundred_pending_trials_differ(strategy: Strategy) {
    let mut study = study(strategy, spaces(strategy).pop().unwrap());
    run(&mut study, 100, |_| (TrialState::Pending, None, vec![]));
    check(&study);
    assert_eq!(study.trials.len(), 100);
}

fn the_same_study_gives_the_same_suggestion(strategy: Strategy) {
    for space in spaces(strategy) {
        let mut study = study(strategy, space);
        run(&mut study, 20, came_to);
        let next = u32::try_from(study.trials.len()).unwrap() + 1;
        assert_eq!(ask(&study, next, 3), ask(&study.clone(), next, 3));
    }
}

fn several_at_once_are_one_by_one(strategy: Strategy) {
    for space in spaces(strategy) {
        let mut study = study(strategy, space);
        run(&mut study, 10, came_to);
        are_one_by_one(study, 25);
    }
}

/// So many at once are those of one call each, the earlier ones pending.
fn are_one_by_one(mut study: Study, n: u32) {
    let first = u32::try_from(study.trials.len()).unwrap() + 1;
    let batch = ask(&study, first, n);
    let mut exhausted = ask(&study, first, 0).exhausted;
    for ordinal in first..first + n {
        let answer = ask(&study, ordinal, 1);
        exhausted = answer.exhausted;
        let Some(values) = answer.points.into_iter().next() else { break };
        study.trials.push(Trial { ordinal, values, state: TrialState::Pending, curve: vec![], value: None });
    }
    let singly = study.trials.iter().filter(|trial| trial.ordinal >= first).map(|trial| &trial.values);
    assert!(batch.points.iter().eq(singly));
    assert_eq!(batch.exhausted, exhausted);
}

/// More trials than models are made of.
#[test]
fn several_at_once_are_one_by_one_after_very_many_trials() {
    for strategy in [Strategy::SMAC, Strategy::TPE, Strategy::Anneal] {
        let mut study = study(Strategy::Random, space([real(0.0, 1.0, Scaling::Linear), int(1, 50, Scaling::Linear)]));
        // Trials that are pending stand among the latest ones.
        let outcome = |i: u32| match i {
            1005.. => (TrialState::Pending, None, vec![]),
            _ => (TrialState::Completed, Some(f64::from(i * 7919 % 1009)), vec![]),
        };
        run(&mut study, 1010, outcome);
        study.strategy = strategy;
        are_one_by_one(study, 3);
    }
}

fn the_order_of_arrival_does_not_matter(strategy: Strategy) {
    for space in spaces(strategy) {
        let mut study = study(strategy, space);
        run(&mut study, 30, came_to);
        let next = u32::try_from(study.trials.len()).unwrap() + 1;
        let in_order = ask(&study, next, 5);
        study.trials.reverse();
        assert_eq!(ask(&study, next, 5), in_order);
    }
}

fn asking_for_none_gives_none(strategy: Strategy) {
    let answer = ask(&study(strategy, space([texts(3)])), 1, 0);
    assert_eq!(answer, Suggestions { points: vec![], exhausted: false });
}

macro_rules! strategy_suite {
    ($($module:ident: $strategy:ident),+ $(,)?) => {$(
        mod $module {
            use crate::domain::status::Strategy;

            strategy_suite!(@tests $strategy:
                values_fit_and_differ, a_long_history_is_searched_on, failures_alone_do_not_stop_it,
                constant_values_do_not_stop_it, a_hundred_pending_trials_differ, parents_of_any_kind_derail_nothing,
                the_same_study_gives_the_same_suggestion, several_at_once_are_one_by_one,
                the_order_of_arrival_does_not_matter, asking_for_none_gives_none,
            );
        }
    )+};
    (@tests $strategy:ident: $($test:ident),+ $(,)?) => {$(
        #[test]
        fn $test() {
            super::$test(Strategy::$strategy);
        }
    )+};
}

strategy_suite! {
    anneal: Anneal,
    bayesian: Bayesian,
    smac: SMAC,
    tpe: TPE,
    random: Random,
    grid: Grid,
    hyperband: Hyperband,
}
