//! The parameters under which observations are most plausible.
//!
//! | symbol | meaning                                                                   |
//! |--------|---------------------------------------------------------------------------|
//! | θ      | ln l of each coordinate, ln s², ln σ², then ln a and ln b of each number   |
//! | W      | K⁻¹ - α αᵀ: the derivative of the negative log likelihood by a parameter t is ½ Σ W ∘ ∂K/∂t |
//!
//! The objective is the negative log posterior ½ (y - m)ᵀ α + ½ ln |K| - Σ ln p(θ), minimised from near the priors' modes.
//!
//! Invariant: the work is bounded by `STEPS` evaluations of at most `model::MOST_FITTED` observations, and the same observations give the
//! same θ, bit for bit.
//!
//! Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eqs. 5.8 and 5.9; the prior of the length scales,
//! which grows with the dimension: Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions (2024),
//! eq. 8.

use crate::search::bayesian::gp::mean_and_weights;
use crate::search::bayesian::kernel::{Coordinate, Kernel, Warp, same};
use crate::search::bayesian::matrix::{cholesky, inverse};
use crate::search::bayesian::minimise::{Steps, minimise};
use crate::search::features::Kind;

/// Evaluations beside the first.
const STEPS: usize = 30;
/// Added to the noise, so that K has a factor whatever the fit says.
const JITTER: f64 = 1e-8;
/// Logarithms beyond it are no parameters of anything.
const BEYOND: f64 = 40.0;

/// Kernel and noise variance.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) kernel: Kernel,
    pub(super) noise: f64,
}

/// A prior that is normal in the parameter's logarithm.
#[derive(Debug, Clone, Copy)]
struct Prior {
    mu: f64,
    sigma: f64,
    /// Whether the density is over the parameter itself: its mode then lies at exp(mu - sigma²), not at exp(mu).
    of_value: bool,
}

impl Prior {
    fn mode(self) -> f64 {
        if self.of_value { self.mu - self.sigma * self.sigma } else { self.mu }
    }

    /// Negative log density at a logarithm, and its derivative.
    fn penalty(self, t: f64) -> (f64, f64) {
        let z = (t - self.mu) / self.sigma;
        let (own, slope) = if self.of_value { (t, 1.0) } else { (0.0, 0.0) };
        (0.5 * z * z + own, z / self.sigma + slope)
    }
}

fn length_prior(d: usize) -> Prior {
    Prior { mu: std::f64::consts::SQRT_2 + 0.5 * libm::log(d as f64), sigma: 1.732_050_807_568_877_2, of_value: true }
}

/// Of how alike two studies are: the mode is a correlation of 0.8 between their values at one point.
const STUDY_PRIOR: Prior = Prior { mu: 0.55, sigma: 1.0, of_value: false };
const SIGNAL_PRIOR: Prior = Prior { mu: 0.0, sigma: 1.0, of_value: true };
const NOISE_PRIOR: Prior = Prior { mu: -4.0, sigma: 2.0, of_value: true };
const WARP_PRIOR: Prior = Prior { mu: 0.0, sigma: 0.5, of_value: false };

/// Where the fit of signal and noise begins: the modes of their priors lie further out than data usually do.
const SIGNAL_START: f64 = -0.5;
const NOISE_START: f64 = -6.0;

/// What the coordinates of points stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coordinates<'a> {
    pub(super) kinds: &'a [Kind],
    /// Whether one more, the last, says which study a result is from.
    pub(super) studies: bool,
}

impl Coordinates<'_> {
    fn len(self) -> usize {
        self.kinds.len() + usize::from(self.studies)
    }

    fn is_number(self, j: usize) -> bool {
        self.kinds.get(j).is_some_and(|kind| kind.is_number())
    }

    fn length_prior(self, j: usize) -> Prior {
        if j < self.kinds.len() { length_prior(self.kinds.len()) } else { STUDY_PRIOR }
    }
}

/// Fits kernel and noise to targets `y` at `points`; `None` where not even the start has a factor.
pub(super) fn fit(of: Coordinates, points: &[Vec<f64>], y: &[f64]) -> Option<Fit> {
    let mut evaluator = Evaluator::new(of, points, y);
    let steps = Steps { most: STEPS, first: 0.5, longest: 2.0 };
    let (theta, value) = minimise(&start(of), &steps, |theta, gradient| evaluator.evaluate(theta, gradient));
    value.is_finite().then(|| read(of, &theta))
}

/// Kernel and noise where the fit begins, for when there is nothing to fit to.
pub(super) fn prior(of: Coordinates) -> Fit {
    read(of, &start(of))
}

fn start(of: Coordinates) -> Vec<f64> {
    let mut theta: Vec<f64> = (0..of.len()).map(|j| of.length_prior(j).mode()).collect();
    theta.extend([SIGNAL_START, NOISE_START]);
    theta.extend(of.kinds.iter().filter(|kind| kind.is_number()).flat_map(|_| [0.0, 0.0]));
    theta
}

/// θ as parameters.
fn read(of: Coordinates, theta: &[f64]) -> Fit {
    let d = of.len();
    let mut warps = theta[d + 2..].chunks_exact(2).map(|ab| Warp { a: libm::exp(ab[0]), b: libm::exp(ab[1]) });
    let coordinate = |(j, ln_length): (usize, &f64)| Coordinate {
        inverse_length: libm::exp(-ln_length),
        warp: if of.is_number(j) { warps.next() } else { None },
    };
    let coordinates = theta[..d].iter().enumerate().map(coordinate).collect();
    Fit { kernel: Kernel { coordinates, signal: libm::exp(theta[d]) }, noise: libm::exp(theta[d + 1]) + JITTER }
}

/// The objective, with memory that its evaluations share.
struct Evaluator<'a> {
    of: Coordinates<'a>,
    points: &'a [Vec<f64>],
    y: &'a [f64],
    /// k(X, X), lower triangle.
    kernel: Vec<f64>,
    /// -2 dk / d(r²), then times W.
    slopes: Vec<f64>,
    factor: Vec<f64>,
}

impl<'a> Evaluator<'a> {
    fn new(of: Coordinates<'a>, points: &'a [Vec<f64>], y: &'a [f64]) -> Self {
        let square = vec![0.0; y.len() * y.len()];
        Self { of, points, y, kernel: square.clone(), slopes: square.clone(), factor: square }
    }

    /// The negative log posterior and its gradient; infinite where K has no factor.
    fn evaluate(&mut self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        // Written so that NaN fails too.
        if !theta.iter().all(|t| t.abs() < BEYOND) {
            return f64::INFINITY;
        }
        let (n, d) = (self.y.len(), self.of.len());
        let Fit { kernel, noise } = read(self.of, theta);
        let columns = kernel.columns(self.points);
        self.fill(&kernel, noise, &columns);
        if !cholesky(&mut self.factor, n) {
            return f64::INFINITY;
        }
        let (mean, weights) = mean_and_weights(&self.factor, self.y);
        let misfit: f64 = self.y.iter().zip(&weights).map(|(y, a)| (y - mean) * a).sum();
        let ln_det: f64 = (0..n).map(|i| libm::log(self.factor[i * n + i])).sum();
        let (by_signal, trace) = self.weigh(&weights);
        gradient[d] = by_signal + 0.5 * trace * kernel.signal;
        gradient[d + 1] = 0.5 * trace * (noise - JITTER);
        let mut warps = d + 2;
        for (j, coordinate) in kernel.coordinates.iter().enumerate() {
            gradient[j] = self.by_length(*coordinate, &columns[j]);
            if let Some(warp) = coordinate.warp {
                let (by_a, by_b) = self.by_warp(warp, j, coordinate.inverse_length, &columns[j]);
                gradient[warps] = by_a;
                gradient[warps + 1] = by_b;
                warps += 2;
            }
        }
        0.5 * misfit + ln_det + add_priors(self.of, theta, gradient)
    }

    fn fill(&mut self, kernel: &Kernel, noise: f64, columns: &[Vec<f64>]) {
        let n = self.y.len();
        for i in 0..n {
            let row = i * n..i * n + i;
            kernel.squared_distances(|j| columns[j][i], columns, &mut self.kernel[row.clone()]);
            kernel.values_and_slopes(&mut self.kernel[row.clone()], &mut self.slopes[row.clone()]);
            self.factor[row.clone()].copy_from_slice(&self.kernel[row]);
            self.factor[i * n + i] = kernel.signal + noise;
        }
    }

    /// Multiplies the slopes by W; returns Σ W ∘ k over the lower triangle, and the trace of W.
    fn weigh(&mut self, weights: &[f64]) -> (f64, f64) {
        let n = weights.len();
        let inverse = inverse(&self.factor, n);
        let (mut sum, mut trace) = (0.0, 0.0);
        for i in 0..n {
            let row = i * n..i * n + i;
            let entries = inverse[row.clone()].iter().zip(weights).zip(&self.kernel[row.clone()]);
            for (((inverse, weight), k), slope) in entries.zip(&mut self.slopes[row]) {
                let w = inverse - weights[i] * weight;
                sum += w * k;
                *slope *= w;
            }
            trace += inverse[i * n + i] - weights[i] * weights[i];
        }
        (sum, trace)
    }

    fn by_length(&self, coordinate: Coordinate, column: &[f64]) -> f64 {
        let n = column.len();
        let mut total = 0.0;
        for (i, at) in column.iter().enumerate() {
            let slopes = self.slopes[i * n..i * n + i].iter().zip(column);
            let sum: f64 = if coordinate.warp.is_some() {
                slopes.map(|(slope, other)| slope * (other - at) * (other - at)).sum()
            } else {
                let apart = coordinate.inverse_length * coordinate.inverse_length;
                slopes.map(|(slope, other)| if same(*other, *at) { 0.0 } else { slope * apart }).sum()
            };
            total += sum;
        }
        total
    }

    fn by_warp(&self, warp: Warp, j: usize, inverse_length: f64, column: &[f64]) -> (f64, f64) {
        let n = column.len();
        let scaled = |x: &Vec<f64>| {
            let slopes = warp.slopes(x[j]);
            (slopes.ln_a * inverse_length, slopes.ln_b * inverse_length)
        };
        let (by_a, by_b): (Vec<f64>, Vec<f64>) = self.points.iter().map(scaled).unzip();
        let (mut sum_a, mut sum_b) = (0.0, 0.0);
        for i in 0..n {
            for (k, slope) in self.slopes[i * n..i * n + i].iter().enumerate() {
                let g = slope * (column[i] - column[k]);
                sum_a += g * (by_a[i] - by_a[k]);
                sum_b += g * (by_b[i] - by_b[k]);
            }
        }
        (-sum_a, -sum_b)
    }
}

/// Adds the priors' slopes to the gradient; returns their sum.
fn add_priors(of: Coordinates, theta: &[f64], gradient: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for (i, (t, gradient)) in theta.iter().zip(gradient).enumerate() {
        let prior = match i.checked_sub(of.len()) {
            None => of.length_prior(i),
            Some(0) => SIGNAL_PRIOR,
            Some(1) => NOISE_PRIOR,
            Some(_) => WARP_PRIOR,
        };
        let (penalty, slope) = prior.penalty(*t);
        sum += penalty;
        *gradient += slope;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{Coordinates, Evaluator, fit, start};
    use crate::search::features::Kind;
    use crate::search::rng::Stream;

    fn data() -> (Vec<Kind>, Vec<Vec<f64>>, Vec<f64>) {
        let kinds = vec![Kind::Real, Kind::Category(3), Kind::Whole(5), Kind::Real];
        let mut stream = Stream::new(3, 0, 1);
        let mut point = || vec![stream.unit(), stream.below(3) as f64, stream.below(5) as f64 / 5.0, stream.unit()];
        let points: Vec<Vec<f64>> = (0..40).map(|_| point()).collect();
        // The last coordinate does nothing; the first does much.
        let y = points.iter().map(|x| (6.0 * x[0]).sin() + 0.3 * x[1] + 0.2 * x[2]).collect();
        (kinds, points, y)
    }

    fn of(kinds: &[Kind]) -> Coordinates<'_> {
        Coordinates { kinds, studies: false }
    }

    #[test]
    fn the_gradient_is_the_derivative() {
        let (kinds, points, y) = data();
        let mut evaluator = Evaluator::new(of(&kinds), &points, &y);
        let theta: Vec<f64> = start(of(&kinds)).iter().enumerate().map(|(i, t)| t + 0.1 * (i as f64 - 4.0)).collect();
        let mut gradient = vec![0.0; theta.len()];
        evaluator.evaluate(&theta, &mut gradient);
        let mut ignored = gradient.clone();
        for i in 0..theta.len() {
            let mut at = |h: f64| {
                let mut moved = theta.clone();
                moved[i] += h;
                evaluator.evaluate(&moved, &mut ignored)
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((numeric - gradient[i]).abs() < 1e-4 * (1.0 + numeric.abs()), "{i}: {numeric} {}", gradient[i]);
        }
    }

    #[test]
    fn what_matters_gets_a_short_length_scale() {
        let (kinds, points, y) = data();
        let fit = fit(of(&kinds), &points, &y).unwrap();
        let lengths: Vec<f64> = fit.kernel.coordinates.iter().map(|c| 1.0 / c.inverse_length).collect();
        assert!(lengths[0] < 0.5 * lengths[3], "{lengths:?}");
    }

    #[test]
    fn constant_targets_and_repeated_points_have_a_fit() {
        let (kinds, mut points, mut y) = data();
        y.fill(0.0);
        assert!(fit(of(&kinds), &points, &y).is_some());
        points.fill(vec![0.5, 1.0, 0.5, 0.0]);
        assert!(fit(of(&kinds), &points, &y).is_some());
    }
}
