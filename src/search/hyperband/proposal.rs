//! What to try next: the point that promises most by a model of how all trials stand.
//!
//! Invariant: a proposal is a function of the study's seed, the ordinal, and the trials; it is no point that is taken.
//! The model is behind [`Proposer::propose`] alone: another one changes nothing elsewhere.
//!
//! | symbol   | here         | meaning                                                                 |
//! |----------|--------------|-------------------------------------------------------------------------|
//! | s        | `standings`  | the targets: shares of the trials that stand better, from all rungs     |
//! | m, sigma | `predict`    | what the forest expects at a point                                      |
//! | s*       | best         | the best standing                                                       |
//! | xi       | `REACH`      | how much better than s* is asked for                                    |
//! | EI       | `improvement`| E max(s* - xi - s, 0), as ln: s ~ N(m, sigma^2) (Lizotte, 2008)        |
//! |          | `ELITE`      | the trials around which candidates are made                             |
//!
//! The first `START` trials, and a share `EXPLORE` of the others, are drawn at random, so that no region is given up for
//! what some early epochs said. Candidates are partly random, mostly the elite crossed with each other and moved along a
//! few axes, far or near (after `SMAC`'s local search: Hutter, Hoos and Leyton-Brown, LION 2011). A trial that has not
//! reported counts as a middling one, which keeps parallel proposals apart.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::domain::space::Value;
use crate::search::hyperband::forest::{Axis, Forest, Row};
use crate::search::hyperband::standing::standings;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::{Study, scale};

/// Trials that are drawn before any is proposed.
const START: usize = 20;
/// The share of random draws after that.
const EXPLORE: f64 = 0.1;
const CANDIDATES: usize = 300;
const RANDOM_SHARE: f64 = 0.3;
const CROSSED_SHARE: f64 = 0.3;
const ELITE: usize = 10;
/// How many axes a candidate is moved along, on average.
const MOVES: f64 = 2.0;
/// Standard deviations of a far and a near move, in units of the scaled range.
const FAR_NEAR: [f64; 2] = [0.2, 0.05];
/// How far beyond the best standing an improvement begins. From the best itself the search gathers around the first good
/// trials and now and then never leaves them; from far beyond, what is unsure is worth a trial.
const REACH: f64 = 1.0;
/// What a trial is taken to come to before it says anything.
const MIDDLING: f64 = 0.5;
/// Keeps the improvement defined where all trees agree.
const SIGMA_MIN: f64 = 1e-3;

/// What a study teaches, ready to propose from.
pub(super) struct Proposer<'a> {
    study: &'a Study,
    axes: Vec<Axis>,
    /// Trials that stand, by ordinal, and then those that have said nothing yet.
    rows: Vec<Row>,
    /// The best points, best first.
    elite: Vec<Vec<f64>>,
    /// The best standing of all; `None` where too few trials stand.
    best: Option<f64>,
}

impl<'a> Proposer<'a> {
    /// Learns from a study.
    pub(super) fn of(study: &'a Study) -> Self {
        let standings = standings(study);
        let place = |values: &[Value]| place(study, values);
        let mut rows: Vec<Row> =
            standings.iter().map(|(trial, target)| Row { point: place(&trial.values), target: *target }).collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| rows[*a].target.total_cmp(&rows[*b].target).then(a.cmp(b)));
        let elite: Vec<Vec<f64>> = order.iter().take(ELITE).map(|i| rows[*i].point.clone()).collect();
        let best = order.first().filter(|_| rows.len() >= START).map(|i| rows[*i].target);
        let mut silent: Vec<_> = study
            .trials
            .iter()
            .filter(|trial| standings.binary_search_by_key(&trial.ordinal, |(seen, _)| seen.ordinal).is_err())
            .collect();
        silent.sort_by_key(|trial| trial.ordinal);
        rows.extend(silent.iter().map(|trial| Row { point: place(&trial.values), target: MIDDLING }));
        Self { study, axes: Axis::of(&study.space), rows, elite, best }
    }

    /// A point that is not taken; `None` where it is better, or left, to draw one.
    pub(super) fn propose(&self, stream: &mut Stream, taken: &Taken) -> Option<Vec<Value>> {
        let best = self.best?;
        if stream.unit() < EXPLORE {
            return None;
        }
        let asked = taken.suggested.iter().map(|point| Row { point: place(self.study, point), target: MIDDLING });
        let rows: Vec<Row> = self.rows.iter().cloned().chain(asked).collect();
        let forest = Forest::grow(&self.axes, &rows, stream);
        let mut most = f64::NEG_INFINITY;
        let mut found = None;
        for _ in 0..CANDIDATES {
            let unit = self.candidate(stream);
            let point: Vec<Value> =
                self.study.space.parameters.iter().zip(unit).map(|(p, unit)| scale::at(&p.range, unit)).collect();
            // At the point as it will be, rounded, rather than where the candidate fell.
            let (mean, sigma) = forest.predict(&place(self.study, &point));
            let promise = improvement(best - REACH, mean, sigma.max(SIGMA_MIN));
            if promise > most && !taken.contains(&point) {
                (found, most) = (Some(point), promise);
            }
        }
        found
    }

    fn candidate(&self, stream: &mut Stream) -> Vec<f64> {
        if stream.unit() < RANDOM_SHARE {
            return self.axes.iter().map(|_| stream.unit()).collect();
        }
        let (one, other) = (self.member(stream), self.member(stream));
        let crossed = stream.unit() < CROSSED_SHARE;
        let sigma = FAR_NEAR[usize::from(stream.unit() < 0.5)];
        let odds = MOVES / self.axes.len() as f64;
        let mut unit = one.to_vec();
        for (k, axis) in self.axes.iter().enumerate() {
            if crossed && stream.unit() < 0.5 {
                unit[k] = other[k];
            }
            if stream.unit() < odds {
                unit[k] = match axis {
                    Axis::Categories(_) => stream.unit(),
                    Axis::Ordered => reflect(unit[k] + sigma * normal(stream)),
                };
            }
        }
        unit
    }

    fn member(&self, stream: &mut Stream) -> &[f64] {
        let i = usize::try_from(stream.below(self.elite.len() as u64)).unwrap_or(0);
        &self.elite[i]
    }
}

/// Where a point lies in the unit cube.
pub(super) fn place(study: &Study, values: &[Value]) -> Vec<f64> {
    study.space.parameters.iter().zip(values).map(|(p, value)| scale::unit_of(&p.range, *value)).collect()
}

/// ln EI. Far below zero the formula cancels to nothing, and the leading term of its tail stands in.
fn improvement(best: f64, mean: f64, sigma: f64) -> f64 {
    let z = (best - mean) / sigma;
    let ln_density = -0.5 * (z * z + libm::log(2.0 * PI));
    if z < -6.0 {
        return libm::log(sigma) + ln_density - 2.0 * libm::log(-z);
    }
    let below = 0.5 * libm::erfc(-z * FRAC_1_SQRT_2);
    libm::log(sigma) + libm::log(z * below + libm::exp(ln_density))
}

/// Back into the unit interval, once from either end.
fn reflect(unit: f64) -> f64 {
    let unit = unit.abs();
    if unit > 1.0 { (2.0 - unit).max(0.0) } else { unit }
}

/// A standard normal number (Box and Muller, 1958).
fn normal(stream: &mut Stream) -> f64 {
    let radius = (-2.0 * libm::log(1.0 - stream.unit())).sqrt();
    radius * libm::cos(2.0 * PI * stream.unit())
}
