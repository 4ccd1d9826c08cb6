//! Tree-structured Parzen estimator, multivariate: trials are drawn where good ones are dense and others are not.
//!
//! | symbol | meaning                                                                             | shape |
//! |--------|-------------------------------------------------------------------------------------|-------|
//! | n      | trials with a result                                                                |       |
//! | γ      | how many of them are good: a tenth, at most `MOST_GOOD`                              |       |
//! | l, g   | densities of the good trials and of the others: mixtures of one kernel a trial, and a wide one | |
//! | h      | bandwidth, `BANDWIDTH` k^(-1/(d + 4)) for k kernels, but at least `LEAST_BANDWIDTH`                 |       |
//! | x      | candidates, drawn from l; the one of the largest l(x) / g(x) is suggested           | d     |
//!
//! A kernel is a product over the coordinates: of a number a normal density cut off at the ends of the unit interval, of a
//! category a distribution that leans to the trial's own. Trials that failed or are pending count as others: failures are
//! avoided, and parallel suggestions keep apart.
//!
//! Invariant: the answer depends on the study, the ordinal and the set of taken points alone.
//!
//! Bergstra et al., Algorithms for Hyper-Parameter Optimization (2011), section 4; the product kernels: Falkner, Klein and
//! Hutter, BOHB (2018), section 4.1; what of it matters: Watanabe, Tree-Structured Parzen Estimator: Understanding Its
//! Algorithm Components (2023).

use crate::domain::space::Value;
use crate::search::each::suggest_each;
use crate::search::features::{Features, Kind};
use crate::search::normal;
use crate::search::parents::{self, Guides};
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::{Study, Suggestions};

/// Quasi-random trials at the start.
const START: usize = 10;
/// γ at most.
const MOST_GOOD: usize = 25;
const CANDIDATES: usize = 64;
const BANDWIDTH: f64 = 0.12;
const LEAST_BANDWIDTH: f64 = 0.03;
/// Trials that a density is made of at most: the latest ones.
const MOST_KERNELS: usize = 1000;
/// Newest trials of equal weight; older ones of the others fade.
const FRESH: usize = 25;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    let features = Features::of(&study.space);
    let split = Split::of(&parents::joined(study), &features);
    let guides = Guides::of(study, &features);
    suggest_each(study, first_ordinal, n, |ordinal, taken, stream| {
        if features.len() == 0 {
            return None;
        }
        if let Some(point) = guides.point(ordinal) {
            return Some(point);
        }
        if split.results < START {
            return Some(features.decode(&features.sobol_point(ordinal.saturating_sub(1), study.seed)));
        }
        split.propose(&features, taken, stream)
    })
}

/// The trials, parted.
struct Split {
    good: Vec<Vec<f64>>,
    others: Vec<Vec<f64>>,
    results: usize,
}

impl Split {
    fn of(study: &Study, features: &Features) -> Self {
        let trials = study.in_order();
        let mut losses: Vec<(f64, usize)> =
            trials.iter().enumerate().filter_map(|(i, trial)| Some((study.direction.loss(trial.value?), i))).collect();
        losses.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let results = losses.len();
        let is_good: Vec<usize> = losses.iter().take(results.div_ceil(10).min(MOST_GOOD)).map(|(_, i)| *i).collect();
        let (mut good, mut others) = (Vec::new(), Vec::new());
        for (i, trial) in trials.iter().enumerate() {
            if is_good.contains(&i) { &mut good } else { &mut others }.push(features.encode(&trial.values));
        }
        Self { good, others, results }
    }

    fn propose(&self, features: &Features, taken: &Taken, stream: &mut Stream) -> Option<Vec<Value>> {
        let mut others = self.others.clone();
        others.extend(taken.suggested.iter().map(|point| features.encode(point)));
        let good = Density::of(features, self.good.clone());
        let others = Density::of(features, others);
        let mut best: Option<(f64, Vec<Value>)> = None;
        for _ in 0..CANDIDATES {
            let x = good.draw(features, stream);
            let ratio = good.log(&x) - others.log(&x);
            if best.as_ref().is_none_or(|(most, _)| ratio > *most) {
                let point = features.decode(&x);
                if !taken.contains(&point) {
                    best = Some((ratio, point));
                }
            }
        }
        best.map(|(_, point)| point)
    }
}

/// A mixture of one kernel a trial, and one over the whole space.
struct Density<'a> {
    kinds: &'a [Kind],
    centres: Vec<Vec<f64>>,
    /// Weights of the kernels, the wide one's last; they sum to 1.
    weights: Vec<f64>,
    bandwidth: f64,
}

impl<'a> Density<'a> {
    fn of(features: &'a Features, mut centres: Vec<Vec<f64>>) -> Self {
        centres.drain(..centres.len().saturating_sub(MOST_KERNELS));
        let (n, d) = (centres.len(), features.len() as f64);
        let bandwidth = BANDWIDTH * libm::pow(n.max(1) as f64, -1.0 / (d + 4.0));
        let mut weights: Vec<f64> = (0..n).map(|i| weight(i, n)).collect();
        weights.push(1.0);
        let sum: f64 = weights.iter().sum();
        for w in &mut weights {
            *w /= sum;
        }
        let bandwidth = bandwidth.max(LEAST_BANDWIDTH);
        Self { kinds: &features.kinds, centres, weights, bandwidth }
    }

    fn draw(&self, features: &Features, stream: &mut Stream) -> Vec<f64> {
        let mut left = stream.unit();
        let chosen = self.weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        let centre = chosen.and_then(|i| self.centres.get(i));
        let mut x: Vec<f64> = self
            .kinds
            .iter()
            .enumerate()
            .map(|(j, kind)| match (*kind, centre) {
                (Kind::Category(n), Some(c)) if stream.unit() >= self.strays(n) => c[j],
                (Kind::Category(n), _) => stream.below(n as u64) as f64,
                (_, Some(c)) => cut_normal(c[j], self.bandwidth, stream),
                (_, None) => cut_normal(0.5, 1.0, stream),
            })
            .collect();
        features.snap(&mut x);
        x
    }

    /// How likely a kernel over n categories is to draw any of them rather than its own.
    fn strays(&self, n: usize) -> f64 {
        // One trial more, spread over the categories, as in a Dirichlet prior of weight 1.
        let kernels = self.centres.len() as f64 + 1.0;
        (n as f64 / (n as f64 + kernels)).min(1.0)
    }

    /// ln of the density at a point.
    fn log(&self, x: &[f64]) -> f64 {
        let logs: Vec<f64> = self
            .weights
            .iter()
            .enumerate()
            .map(|(i, weight)| libm::log(*weight) + self.log_kernel(self.centres.get(i).map(Vec::as_slice), x))
            .collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + libm::log(logs.iter().map(|l| libm::exp(l - most)).sum::<f64>())
    }

    fn log_kernel(&self, centre: Option<&[f64]>, x: &[f64]) -> f64 {
        let factor = |(j, kind): (usize, &Kind)| match (*kind, centre) {
            (Kind::Category(n), None) => -libm::log(n as f64),
            (Kind::Category(n), Some(c)) => {
                let strays = self.strays(n);
                let own = if (c[j] - x[j]).abs() < 0.5 { 1.0 - strays } else { 0.0 };
                libm::log(own + strays / n as f64)
            }
            (_, None) => log_cut_normal(x[j], 0.5, 1.0),
            (_, Some(c)) => log_cut_normal(x[j], c[j], self.bandwidth),
        };
        self.kinds.iter().enumerate().map(factor).sum()
    }
}

/// Older trials than the newest `FRESH` fade, the oldest to 1 / n.
fn weight(i: usize, n: usize) -> f64 {
    let old = n.saturating_sub(FRESH);
    if i >= old || old < 2 {
        return 1.0;
    }
    let (first, share) = (1.0 / n as f64, i as f64 / (old - 1) as f64);
    first + share * (1.0 - first)
}

/// A draw from the normal distribution within the unit interval.
fn cut_normal(mean: f64, deviation: f64, stream: &mut Stream) -> f64 {
    let (low, high) = (normal::distribution(-mean / deviation), normal::distribution((1.0 - mean) / deviation));
    (mean + deviation * normal::quantile(low + stream.unit() * (high - low))).clamp(0.0, 1.0)
}

/// ln of its density.
fn log_cut_normal(x: f64, mean: f64, deviation: f64) -> f64 {
    let mass = normal::distribution((1.0 - mean) / deviation) - normal::distribution(-mean / deviation);
    let z = (x - mean) / deviation;
    -0.5 * z * z - libm::log(deviation * mass)
}
