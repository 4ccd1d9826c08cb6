//! What a search is for: every strategy that learns comes nearer to the best point than random search, for most seeds.
//!
//! And what keeps jobs replayable: known seeds give known suggestions, in debug and release builds, on every machine.

use crate::domain::space::{Parameter, Range, Space, Value};
use crate::domain::status::{Direction, Scaling, Strategy};
use crate::search::{Study, Trial, TrialState, WarmStart, suggest};

const SEEDS: u64 = 8;
const TRIALS: u32 = 40;
/// Trials of a run without parents.
const COLD: u32 = 20;

fn study(strategy: Strategy, direction: Direction, seed: u64) -> Study {
    let ranges = [
        Range::Integer { min: 1, max: 50, scaling: Scaling::Linear },
        Range::Continuous { min: -5.0, max: 5.0, scaling: Scaling::Linear },
        Range::Continuous { min: 1e-5, max: 1.0, scaling: Scaling::Logarithmic },
        Range::Categorical { values: ["a", "b", "c", "d"].map(String::from).to_vec() },
    ];
    let named = |(i, range)| Parameter { name: format!("p{i}"), range };
    Study {
        space: Space { parameters: ranges.into_iter().enumerate().map(named).collect() },
        direction,
        strategy,
        seed,
        definition: 0,
        budget: TRIALS,
        trials: vec![],
        parents: vec![],
        warm_start: None,
        resource: None,
        early_stopping: false,
    }
}

/// Distances of a point from (12, 1.5, 1e-3, "c") by coordinate, in shares of the ranges.
fn distances(point: &[Value]) -> [f64; 4] {
    let [Value::Int(i), Value::Real(x), Value::Real(y), Value::Category(c)] = *point else { panic!("{point:?}") };
    [(i as f64 - 12.0) / 50.0, (x - 1.5) / 10.0, (libm::log10(y) + 3.0) / 5.0, f64::from(u8::from(c != 2))]
}

fn bowl(point: &[Value]) -> f64 {
    distances(point).iter().map(|t| t * t).sum()
}

/// Steep near the best point, with a wave over it, and a trial now and then that diverges.
fn rough(point: &[Value]) -> f64 {
    let d = distances(point);
    let value: f64 = d.iter().map(|t| t.abs() + 0.02 * (1.0 - libm::cos(40.0 * t))).sum();
    if d[2] > 0.3 { 1e6 } else { value }
}

/// The lowest of a function after `TRIALS` trials; a trial in nine fails.
fn lowest(strategy: Strategy, direction: Direction, seed: u64, f: fn(&[Value]) -> f64) -> f64 {
    let mut study = study(strategy, direction, seed);
    let sign = if direction == Direction::Maximize { -1.0 } else { 1.0 };
    let mut lowest = f64::INFINITY;
    for ordinal in 1..=TRIALS {
        let values = suggest(&study, ordinal, 1).unwrap().points.remove(0);
        let failed = ordinal % 9 == 0;
        let value = (!failed).then(|| sign * f(&values));
        lowest = value.map_or(lowest, |value| lowest.min(sign * value));
        let state = if failed { TrialState::Failed } else { TrialState::Completed };
        study.trials.push(Trial { ordinal, values, state, curve: vec![], value });
    }
    lowest
}

fn comes_nearer_than_random_search(strategy: Strategy) {
    for (f, direction) in [(bowl as fn(&[Value]) -> f64, Direction::Minimize), (rough, Direction::Maximize)] {
        let nearer =
            |seed: &u64| lowest(strategy, direction, *seed, f) < 0.7 * lowest(Strategy::Random, direction, *seed, f);
        let wins = (0..SEEDS).filter(nearer).count();
        assert!(wins >= 6, "{strategy} is clearly nearer for {wins} of {SEEDS} seeds");
    }
}

/// An earlier study of some function, over.
fn parent(seed: u64, f: impl Fn(&[Value]) -> f64) -> Study {
    let mut study = study(Strategy::Bayesian, Direction::Minimize, 1_000 + seed);
    go_on(&mut study, TRIALS, f);
    study
}

/// The lowest values so far after each of some further trials.
fn go_on(study: &mut Study, trials: u32, f: impl Fn(&[Value]) -> f64) -> Vec<f64> {
    let mut lowest = f64::INFINITY;
    let first = study.trials.iter().map(|t| t.ordinal).max().unwrap_or(0) + 1;
    let mut step = |ordinal| {
        let values = suggest(study, ordinal, 1).unwrap().points.remove(0);
        let value = f(&values);
        lowest = lowest.min(value);
        study.trials.push(Trial { ordinal, values, state: TrialState::Completed, curve: vec![], value: Some(value) });
        lowest
    };
    (first..first + trials).map(&mut step).collect()
}

/// Trials until a warm run comes within a hundredth of the way to what the cold one has after `COLD`, in the middle of the
/// seeds; one that does not get there counts as `TRIALS`.
fn trials_of_a_warm_run(warm_start: WarmStart, parent_f: fn(&[Value]) -> f64) -> usize {
    let mut needed: Vec<usize> = (0..SEEDS)
        .map(|seed| {
            let cold = go_on(&mut study(Strategy::Bayesian, Direction::Minimize, seed), COLD, bowl);
            let mut warm = study(Strategy::Bayesian, Direction::Minimize, seed);
            warm.parents = vec![parent(seed, parent_f)];
            warm.warm_start = Some(warm_start);
            let warm = go_on(&mut warm, TRIALS, bowl);
            let goal = cold[COLD as usize - 1] + 0.01 * (cold[0] - cold[COLD as usize - 1]);
            let there = |lowest: &f64| *lowest <= goal;
            warm.iter().position(there).map_or(TRIALS as usize, |nth| nth + 1)
        })
        .collect();
    needed.sort_unstable();
    needed[needed.len() / 2]
}

/// The bowl, somewhat elsewhere.
fn shifted(point: &[Value]) -> f64 {
    let [i, x, y, c] = distances(point);
    (i + 0.06).powi(2) + (x - 0.06).powi(2) + (y + 0.06).powi(2) + c * c
}

/// Best where the bowl is worst.
fn misleading(point: &[Value]) -> f64 {
    -bowl(point)
}

#[test]
fn a_good_parent_saves_trials_and_a_misleading_one_costs_few() {
    let identical = trials_of_a_warm_run(WarmStart::IdenticalDataAndAlgorithm, bowl);
    assert!(identical <= COLD as usize / 4, "{identical} trials");
    let good = trials_of_a_warm_run(WarmStart::TransferLearning, shifted);
    assert!(good <= COLD as usize / 2, "{good} trials");
    let bad = trials_of_a_warm_run(WarmStart::TransferLearning, misleading);
    assert!(bad <= COLD as usize + COLD as usize / 10 + 1, "{bad} trials");
}

/// These texts are stored in databases: a change here breaks the replay of every job begun before it.
fn gives_known_suggestions(strategy: Strategy, expected: [&str; 4]) {
    let mut study = study(strategy, Direction::Minimize, 2024);
    for ordinal in 1..=25 {
        let values = suggest(&study, ordinal, 1).unwrap().points.remove(0);
        let value = (ordinal % 7 != 0).then(|| bowl(&values));
        let state = if value.is_some() { TrialState::Completed } else { TrialState::Pending };
        study.trials.push(Trial { ordinal, values, state, curve: vec![], value });
    }
    let point = &suggest(&study, 26, 1).unwrap().points[0];
    let texts: Vec<String> = study.space.format(point).into_values().collect();
    assert_eq!(texts, expected, "{strategy}");
}

macro_rules! convergence_suite {
    ($($module:ident: $strategy:ident),+ $(,)?) => {$(
        #[test]
        fn $module() {
            comes_nearer_than_random_search(Strategy::$strategy);
        }
    )+};
}

// Hyperband's own tests say what it promises where trials report on their way.
convergence_suite! { anneal: Anneal, bayesian: Bayesian, smac: SMAC, tpe: TPE }

#[test]
fn known_seeds_give_known_suggestions() {
    gives_known_suggestions(Strategy::Anneal, ["20", "-1.3288920153439987", "3.96915859155669e-5", "d"]);
    gives_known_suggestions(Strategy::Bayesian, ["12", "1.4073243854414788", "0.0010605498574378955", "c"]);
    gives_known_suggestions(Strategy::Hyperband, ["9", "1.2646783349159527", "0.00021867929884057587", "c"]);
    gives_known_suggestions(Strategy::SMAC, ["4", "2.1663422619034014", "0.014562824080789748", "c"]);
    gives_known_suggestions(Strategy::TPE, ["12", "4.85567630753693", "0.0001657126558779854", "c"]);
}
