//! SMAC: a forest says what to expect of any point, and the one of the largest expected improvement is tried.
//!
//! | symbol | meaning                                                             |
//! |--------|---------------------------------------------------------------------|
//! | μ, σ   | mean and deviation of what the trees say of a point (see `forest`)  |
//! | f*     | the best target                                                     |
//! | EI     | E max(f* - f, 0) for f ~ N(μ, σ²)                                   |
//!
//! Some candidates are drawn from all over the space, most are found by local search from the best trials. Now and then a
//! point is random, so that no region is given up for what a few trials said. Failed trials count as the worst target, and
//! pending ones as what the forest expects of them.
//!
//! Invariant: the answer depends on the study, the ordinal and the set of taken points alone.
//!
//! Hutter, Hoos and Leyton-Brown, Sequential Model-Based Optimization for General Algorithm Configuration (2011); Lindauer
//! et al., SMAC3 (2022).

use std::f64::consts::TAU;

use crate::domain::space::Value;
use crate::search::each::suggest_each;
use crate::search::features::Features;
use crate::search::forest::{Forest, Row};
use crate::search::normal;
use crate::search::parents::{self, Guides};
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::targets::targets;
use crate::search::{Study, Suggestions, Trial, TrialState};

/// The share of random trials after the start.
const EXPLORE: f64 = 0.05;
const EVERYWHERE: u32 = 300;
/// Local searches, their rounds, and the neighbours that a round looks at.
const CLIMBERS: usize = 6;
const ROUNDS: usize = 6;
const AROUND: usize = 20;
/// Deviations of the moves, round by round.
const REACH: [f64; ROUNDS] = [0.2, 0.15, 0.1, 0.07, 0.05, 0.03];
/// Trials that the forest is grown from: the latest ones that are over.
const MOST_ROWS: usize = 1000;
/// Keeps the improvement defined where all trees agree.
const LEAST_DEVIATION: f64 = 1e-3;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    let features = Features::of(&study.space);
    let knowledge = Knowledge::of(&parents::joined(study), &features);
    let guides = Guides::of(study, &features);
    suggest_each(study, first_ordinal, n, |ordinal, taken, stream| {
        if features.len() == 0 {
            return None;
        }
        if let Some(point) = guides.point(ordinal) {
            return Some(point);
        }
        if knowledge.results < start(&features) {
            return Some(features.decode(&features.sobol_point(ordinal.saturating_sub(1), study.seed)));
        }
        if stream.unit() < EXPLORE {
            return None;
        }
        knowledge.propose(&features, taken, stream)
    })
}

/// Quasi-random trials at the start.
fn start(features: &Features) -> usize {
    features.len() + 4
}

struct Knowledge {
    /// Trials that are over.
    rows: Vec<Row>,
    /// Points whose result is not known yet.
    pending: Vec<Vec<f64>>,
    results: usize,
}

impl Knowledge {
    fn of(study: &Study, features: &Features) -> Self {
        // Parted first: what is pending must not move the window, or several suggestions at once would not be those of
        // one call each.
        let (pending, over): (Vec<&Trial>, Vec<&Trial>) =
            study.in_order().into_iter().partition(|trial| trial.state == TrialState::Pending);
        let over = &over[over.len().saturating_sub(MOST_ROWS)..];
        let (valued, failed): (Vec<&Trial>, Vec<&Trial>) = over.iter().partition(|trial| trial.value.is_some());
        let losses: Vec<f64> = valued.iter().filter_map(|t| t.value).map(|v| study.direction.loss(v)).collect();
        let y = targets(&losses);
        let worst = y.iter().copied().fold(0.0, f64::max);
        let mut rows: Vec<Row> =
            valued.iter().zip(y).map(|(t, target)| Row { point: features.encode(&t.values), target }).collect();
        rows.extend(failed.iter().map(|trial| Row { point: features.encode(&trial.values), target: worst }));
        let pending = pending.iter().map(|trial| features.encode(&trial.values)).collect();
        Self { rows, pending, results: losses.len() }
    }

    fn propose(&self, features: &Features, taken: &Taken, stream: &mut Stream) -> Option<Vec<Value>> {
        let forest = self.forest(features, taken, stream);
        let mut ranked: Vec<&Row> = self.rows.iter().collect();
        ranked.sort_by(|a, b| a.target.total_cmp(&b.target));
        let best = ranked.first()?.target;
        let promise = |x: &[f64]| {
            let (mean, deviation) = forest.predict(x);
            improvement(best, mean, deviation.max(LEAST_DEVIATION))
        };
        let mut found: Option<(f64, Vec<Value>)> = None;
        let mut offer = |x: &[f64], value: f64| {
            if found.as_ref().is_none_or(|(most, _)| value > *most) {
                let point = features.decode(x);
                if !taken.contains(&point) {
                    found = Some((value, point));
                }
            }
        };
        let mut tops: Vec<(f64, Vec<f64>)> =
            features.sobol(EVERYWHERE, stream).into_iter().map(|x| (promise(&x), x)).collect();
        for (value, x) in &tops {
            offer(x, *value);
        }
        tops.sort_by(|a, b| b.0.total_cmp(&a.0));
        tops.truncate(CLIMBERS / 2);
        tops.extend(ranked.iter().take(CLIMBERS / 2).map(|row| (promise(&row.point), row.point.clone())));
        for (mut top, mut at) in tops {
            for reach in REACH {
                for _ in 0..AROUND {
                    let x = features.near(&at, reach, stream);
                    let value = promise(&x);
                    offer(&x, value);
                    if value > top {
                        (top, at) = (value, x);
                    }
                }
            }
        }
        found.map(|(_, point)| point)
    }

    /// The forest over all trials, those without a result as it expects them itself.
    fn forest(&self, features: &Features, taken: &Taken, stream: &mut Stream) -> Forest {
        let forest = Forest::grow(&features.kinds, &self.rows, stream);
        let asked = taken.suggested.iter().map(|point| features.encode(point));
        let unknown: Vec<Vec<f64>> = self.pending.iter().cloned().chain(asked).collect();
        if unknown.is_empty() {
            return forest;
        }
        let believed = unknown.into_iter().map(|point| Row { target: forest.predict(&point).0, point });
        let rows: Vec<Row> = self.rows.iter().cloned().chain(believed).collect();
        Forest::grow(&features.kinds, &rows, stream)
    }
}

/// EI (Jones, Schonlau and Welch, 1998, eq. 15).
fn improvement(best: f64, mean: f64, deviation: f64) -> f64 {
    let z = (best - mean) / deviation;
    deviation * (z * normal::distribution(z) + libm::exp(-0.5 * z * z) / TAU.sqrt())
}
