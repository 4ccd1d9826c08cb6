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
//! The first trials, until `START` of them stand, are quasi-random, and a share `EXPLORE` of the others is random, so that no region is given up for
//! what some early epochs said. Candidates are partly random, mostly the elite crossed with each other and moved along a
//! few axes, far or near (after `SMAC`'s local search: Hutter, Hoos and Leyton-Brown, LION 2011). A trial that has not
//! reported counts as a middling one, which keeps parallel proposals apart.

use std::f64::consts::PI;

use crate::domain::space::Value;
use crate::search::Study;
use crate::search::features::{Features, Kind};
use crate::search::hyperband::forest::{Forest, Row};
use crate::search::hyperband::standing::standings;
use crate::search::normal;
use crate::search::rng::Stream;
use crate::search::taken::Taken;

/// Trials with a standing before there is a model.
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
    seed: u64,
    features: Features<'a>,
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
        let features = Features::of(&study.space);
        let standings = standings(study);
        let mut rows: Vec<Row> = standings
            .iter()
            .map(|(trial, target)| Row { point: features.encode(&trial.values), target: *target })
            .collect();
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
        rows.extend(silent.iter().map(|trial| Row { point: features.encode(&trial.values), target: MIDDLING }));
        Self { seed: study.seed, features, rows, elite, best }
    }

    /// A point to try; `None` where one had better be drawn.
    pub(super) fn propose(&self, ordinal: u32, taken: &Taken, stream: &mut Stream) -> Option<Vec<Value>> {
        if self.features.len() == 0 {
            return None;
        }
        let Some(best) = self.best else {
            return Some(self.features.decode(&self.features.sobol_point(ordinal.saturating_sub(1), self.seed)));
        };
        if stream.unit() < EXPLORE {
            return None;
        }
        let asked = taken.suggested.iter().map(|point| Row { point: self.features.encode(point), target: MIDDLING });
        let rows: Vec<Row> = self.rows.iter().cloned().chain(asked).collect();
        let forest = Forest::grow(&self.features.kinds, &rows, stream);
        let mut most = f64::NEG_INFINITY;
        let mut found = None;
        for _ in 0..CANDIDATES {
            let x = self.candidate(stream);
            let (mean, sigma) = forest.predict(&x);
            let promise = improvement(best - REACH, mean, sigma.max(SIGMA_MIN));
            if promise > most {
                let point = self.features.decode(&x);
                if !taken.contains(&point) {
                    (found, most) = (Some(point), promise);
                }
            }
        }
        found
    }

    fn candidate(&self, stream: &mut Stream) -> Vec<f64> {
        if stream.unit() < RANDOM_SHARE {
            return self.features.at_units((0..self.features.len()).map(|_| stream.unit()));
        }
        let (one, other) = (self.member(stream), self.member(stream));
        let crossed = stream.unit() < CROSSED_SHARE;
        let sigma = FAR_NEAR[usize::from(stream.unit() < 0.5)];
        let odds = MOVES / self.features.len() as f64;
        let mut x = one.to_vec();
        for (k, kind) in self.features.kinds.iter().enumerate() {
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
        self.features.snap(&mut x);
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
