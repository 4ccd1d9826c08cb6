//! One suggestion of each strategy that learns, on a mixed space of six parameters, by the length of the history.
//!
//! The baseline of the same run is random search, which does everything but learn. Hyperband's history is one of trials that
//! reported by the epoch, seven in eight of them stopped at a rung.
//!
//!     cargo bench --no-default-features --bench search

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tunesmith::domain::space::{Parameter, Range, Space, Value};
use tunesmith::domain::status::{Direction, Scaling, Strategy};
use tunesmith::search::{Resource, Study, Trial, TrialState, suggest};

/// Epochs of a trial that runs in full.
const FULL: u32 = 27;

fn study(strategy: Strategy, trials: u32) -> Study {
    let real = || Range::Continuous { min: -10.0, max: 10.0, scaling: Scaling::Linear };
    let whole = || Range::Integer { min: -10, max: 10, scaling: Scaling::Linear };
    let texts = |values: &[&str]| Range::Categorical { values: values.iter().map(ToString::to_string).collect() };
    let ranges = [real(), real(), whole(), whole(), texts(&["A", "B", "C", "D", "E"]), texts(&["u", "v", "w"])];
    let named = |(i, range)| Parameter { name: format!("p{i}"), range };
    let mut study = Study {
        space: Space { parameters: ranges.into_iter().enumerate().map(named).collect() },
        direction: Direction::Minimize,
        strategy: Strategy::Random,
        seed: 7,
        definition: 0,
        budget: 1000,
        trials: vec![],
        parents: vec![],
        warm_start: None,
        resource: None,
        early_stopping: false,
    };
    study.trials = (1..=trials)
        .map(|ordinal| {
            let values = suggest(&study, ordinal, 1).unwrap().points.remove(0);
            let value = Some(loss(&values));
            Trial { ordinal, values, state: TrialState::Completed, curve: vec![], value }
        })
        .collect();
    study.strategy = strategy;
    if strategy == Strategy::Hyperband {
        by_epochs(&mut study);
    }
    study
}

/// Makes the history one of epochs: half of the trials end at each rung, and what is seen of a trial comes nearer to its
/// value by the epoch.
fn by_epochs(study: &mut Study) {
    study.resource = Some(Resource { min: 1, max: FULL });
    for trial in &mut study.trials {
        let rung = (0..3).find(|rung| (trial.ordinal >> rung) % 2 != 0).map_or(FULL, |rung| 3_u32.pow(rung));
        let end = trial.value.unwrap();
        trial.curve = (1..=rung).map(|epoch| (epoch, end * (1.0 + 1.0 / f64::from(epoch)))).collect();
        trial.state = if rung < FULL { TrialState::Stopped } else { TrialState::Completed };
        trial.value = trial.curve.last().map(|(_, value)| *value);
    }
}

/// A bowl with a wave over it, and an offset for each category.
fn loss(values: &[Value]) -> f64 {
    let terms = values.iter().map(|value| match *value {
        Value::Real(x) => 0.1 * x * x + 1.0 - (3.0 * x).cos(),
        Value::Int(i) => 0.1 * (i as f64 - 2.0).powi(2),
        Value::Category(c) => c as f64,
    });
    terms.sum()
}

fn suggestions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("suggest");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let strategies =
        [Strategy::Random, Strategy::Bayesian, Strategy::TPE, Strategy::SMAC, Strategy::Anneal, Strategy::Hyperband];
    for strategy in strategies {
        for trials in [10, 50, 100, 200, 500] {
            let study = study(strategy, trials);
            // Once enough of Hyperband's trials ran in full, even ordinals are the forest's.
            let has_forest = strategy == Strategy::Hyperband && trials >= 100;
            let names = if has_forest { vec!["", "-forest"] } else { vec![""] };
            for (later, name) in (1..).zip(names) {
                let id = BenchmarkId::new(format!("{}{name}", strategy.as_str()), trials);
                group.bench_with_input(id, &study, |bencher, study| {
                    bencher.iter(|| suggest(black_box(study), trials + later, 1));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, suggestions);
criterion_main!(benches);
