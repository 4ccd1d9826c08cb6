//! Proposals by a forest: the point that may be far better than the best one.
//!
//! Invariant: a proposal is a function of the rows, the taken points and the stream.
//!
//! | symbol   | here         | meaning                                                                |
//! |----------|--------------|------------------------------------------------------------------------|
//! | s        | `Row::target`| a trial's standing                                                     |
//! | m, sigma | `predict`    | what the forest expects at a point                                     |
//! | s*       | best         | the best standing                                                      |
//! | xi       | `REACH`      | how much better than s* is asked for                                   |
//! | EI       | `improvement`| E max(s* - xi - s, 0), as ln: s ~ N(m, sigma^2) (Lizotte, 2008)        |
//! |          | `ELITE`      | the trials around which candidates are made                            |
//!
//! Candidates are partly random, mostly the elite crossed with each other and moved along a few axes, far or near (after
//! `SMAC`'s local search: Hutter, Hoos and Leyton-Brown, LION 2011). A trial that has not reported counts as a middling one,
//! which keeps parallel proposals apart.

use std::f64::consts::PI;

use crate::domain::space::Value;
use crate::search::features::{Features, Kind};
use crate::search::forest::{Forest, Row};
use crate::search::normal;
use crate::search::rng::Stream;
use crate::search::taken::Taken;

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

/// What the trials that stand teach.
pub(super) struct ByForest {
    rows: Vec<Row>,
    /// The best points, best first.
    elite: Vec<Vec<f64>>,
    /// The best standing of all.
    best: f64,
}

impl ByForest {
    /// Learns from points and how they stand; `None` where there are none.
    pub(super) fn of(points: &[Vec<f64>], standings: &[f64]) -> Option<Self> {
        let rows = points.iter().zip(standings).map(|(point, target)| Row { point: point.clone(), target: *target });
        let rows: Vec<Row> = rows.collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| rows[*a].target.total_cmp(&rows[*b].target).then(a.cmp(b)));
        let best = rows[*order.first()?].target;
        let elite = order.iter().take(ELITE).map(|i| rows[*i].point.clone()).collect();
        Some(Self { rows, elite, best })
    }

    /// The most promising free candidate; `silent` are the points of trials that have said nothing yet.
    pub(super) fn propose(
        &self,
        features: &Features,
        silent: &[Vec<f64>],
        taken: &Taken,
        stream: &mut Stream,
    ) -> Option<Vec<Value>> {
        let silent = silent.iter().map(|point| Row { point: point.clone(), target: MIDDLING });
        let rows: Vec<Row> = self.rows.iter().cloned().chain(silent).collect();
        let forest = Forest::grow(&features.kinds, &rows, stream);
        let mut most = f64::NEG_INFINITY;
        let mut found = None;
        for _ in 0..CANDIDATES {
            let x = self.candidate(features, stream);
            let (mean, sigma) = forest.predict(&x);
            let promise = improvement(self.best - REACH, mean, sigma.max(SIGMA_MIN));
            if promise > most {
                let point = features.decode(&x);
                if !taken.contains(&point) {
                    (found, most) = (Some(point), promise);
                }
            }
        }
        found
    }

    fn candidate(&self, features: &Features, stream: &mut Stream) -> Vec<f64> {
        if stream.unit() < RANDOM_SHARE {
            return features.at_units((0..features.len()).map(|_| stream.unit()));
        }
        let (one, other) = (self.member(stream), self.member(stream));
        let crossed = stream.unit() < CROSSED_SHARE;
        let sigma = FAR_NEAR[usize::from(stream.unit() < 0.5)];
        let odds = MOVES / features.len() as f64;
        let mut x = one.to_vec();
        for (k, kind) in features.kinds.iter().enumerate() {
            if crossed && stream.unit() < 0.5 {
                x[k] = other[k];
            }
            if stream.unit() < odds {
                x[k] = match kind {
                    Kind::Category(n) => stream.below(*n as u64) as f64,
                    Kind::Real | Kind::Whole(_) => reflect(x[k] + sigma * normal::draw(stream)),
                };
            }
        }
        features.snap(&mut x);
        x
    }

    fn member(&self, stream: &mut Stream) -> &[f64] {
        let i = usize::try_from(stream.below(self.elite.len() as u64)).unwrap_or(0);
        &self.elite[i]
    }
}

/// ln EI. Far below zero the formula cancels to nothing, and the leading term of its tail stands in.
fn improvement(best: f64, mean: f64, sigma: f64) -> f64 {
    let z = (best - mean) / sigma;
    let ln_density = -0.5 * (z * z + libm::log(2.0 * PI));
    if z < -6.0 {
        return libm::log(sigma) + ln_density - 2.0 * libm::log(-z);
    }
    libm::log(sigma) + libm::log(z * normal::distribution(z) + libm::exp(ln_density))
}

/// Back into the unit interval, once from either end.
fn reflect(unit: f64) -> f64 {
    let unit = unit.abs();
    if unit > 1.0 { (2.0 - unit).max(0.0) } else { unit }
}
