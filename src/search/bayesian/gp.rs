//! A Gaussian process: what is known of the function at any point, given observations.
//!
//! | symbol | meaning                                                   | shape |
//! |--------|-----------------------------------------------------------|-------|
//! | X, y   | observations: vectors (see `features`) and targets        | n x d, n |
//! | k      | kernel (see `kernel`)                                     |       |
//! | σ²     | noise variance                                            |       |
//! | K      | k(X, X) + σ² I = L Lᵀ                                     | n x n |
//! | m      | constant mean by generalised least squares, 1ᵀK⁻¹y / 1ᵀK⁻¹1 |     |
//! | α      | K⁻¹ (y - m)                                               | n     |
//! | μ, v   | mean m + k(x, X) α and variance s² - k(x, X) K⁻¹ k(X, x)  |       |
//!
//! Invariant: the same observations and parameters give the same bits. Variances are those of the function, without the
//! noise, and positive.
//!
//! Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eqs. 2.25 and 2.26, algorithm 2.1.

use crate::search::bayesian::kernel::Kernel;
use crate::search::bayesian::matrix::{
    add_scaled, cholesky, dot, inverse, solve_lower, solve_lower_many, solve_lower_transposed,
};

/// Points are predicted so many at a time: a block's columns stay in the cache.
const BLOCK: usize = 32;
/// The least variance: points that are known exactly still have a deviation.
const LEAST_VARIANCE: f64 = 1e-12;

/// A kernel conditioned on observations.
#[derive(Debug, Clone)]
pub(super) struct Gp {
    kernel: Kernel,
    /// Scaled coordinates of the observations, d columns.
    columns: Vec<Vec<f64>>,
    /// L.
    factor: Vec<f64>,
    /// m.
    mean: f64,
    /// α.
    weights: Vec<f64>,
}

/// What is known at a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prediction {
    pub(super) mean: f64,
    pub(super) variance: f64,
}

/// A prediction and its gradients by the coordinates; 0 for categories.
pub(super) struct Gradient {
    pub(super) at: Prediction,
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
}

impl Gp {
    /// Conditions a kernel on targets `y` at `points`; `None` where K has no factor.
    pub(super) fn condition(kernel: Kernel, noise: f64, points: &[Vec<f64>], y: &[f64]) -> Option<Self> {
        let n = points.len();
        let columns = kernel.columns(points);
        let mut factor = vec![0.0; n * n];
        for i in 0..n {
            let row = &mut factor[i * n..i * n + i];
            kernel.squared_distances(|j| columns[j][i], &columns, row);
            kernel.values(row);
            factor[i * n + i] = kernel.signal + noise;
        }
        if !cholesky(&mut factor, n) {
            return None;
        }
        let (mean, weights) = mean_and_weights(&factor, y);
        Some(Self { kernel, columns, factor, mean, weights })
    }

    fn n(&self) -> usize {
        self.weights.len()
    }

    /// μ and v at each point.
    pub(super) fn predict(&self, points: &[Vec<f64>]) -> Vec<Prediction> {
        points.chunks(BLOCK).flat_map(|block| self.predict_block(block)).collect()
    }

    fn predict_block(&self, points: &[Vec<f64>]) -> Vec<Prediction> {
        let (n, m) = (self.n(), points.len());
        let columns = self.kernel.columns(points);
        let mut k = vec![0.0; n * m];
        let mut means = vec![self.mean; m];
        for (i, row) in k.chunks_exact_mut(m).enumerate() {
            self.kernel.squared_distances(|j| self.columns[j][i], &columns, row);
            self.kernel.values(row);
            add_scaled(&mut means, self.weights[i], row);
        }
        solve_lower_many(&self.factor, n, &mut k, m);
        let mut explained = vec![0.0; m];
        for row in k.chunks_exact(m) {
            for (explained, v) in explained.iter_mut().zip(row) {
                *explained += v * v;
            }
        }
        means.into_iter().zip(explained).map(|(mean, e)| Prediction { mean, variance: self.left_over(e) }).collect()
    }

    /// What the process expects at each observation by all the others, y - α / diag(K⁻¹) (eq. 5.12), of targets `y`.
    pub(super) fn left_out(&self, y: &[f64]) -> Vec<f64> {
        let n = self.n();
        let inverse = inverse(&self.factor, n);
        y.iter().zip(&self.weights).enumerate().map(|(i, (y, weight))| y - weight / inverse[i * n + i]).collect()
    }

    fn left_over(&self, explained: f64) -> f64 {
        (self.kernel.signal - explained).max(LEAST_VARIANCE)
    }

    /// μ and v at a point with their gradients.
    pub(super) fn predict_gradient(&self, x: &[f64]) -> Gradient {
        let (n, d) = (self.n(), x.len());
        let scaled: Vec<f64> = self.kernel.coordinates.iter().zip(x).map(|(c, u)| c.scale(*u)).collect();
        let (mut k, mut slopes) = (vec![0.0; n], vec![0.0; n]);
        self.kernel.squared_distances(|j| scaled[j], &self.columns, &mut k);
        self.kernel.values_and_slopes(&mut k, &mut slopes);
        let mean = self.mean + dot(&self.weights, &k);
        solve_lower(&self.factor, n, &mut k);
        let at = Prediction { mean, variance: self.left_over(dot(&k, &k)) };
        solve_lower_transposed(&self.factor, n, &mut k);
        let mut gradient = Gradient { at, mean: vec![0.0; d], variance: vec![0.0; d] };
        for (j, coordinate) in self.kernel.coordinates.iter().enumerate() {
            let Some(warp) = coordinate.warp else { continue };
            let (mut by_mean, mut by_explained) = (0.0, 0.0);
            for (i, other) in self.columns[j].iter().enumerate() {
                let slope = slopes[i] * (other - scaled[j]);
                by_mean += self.weights[i] * slope;
                by_explained += k[i] * slope;
            }
            let inner = warp.slopes(x[j]).u * coordinate.inverse_length;
            gradient.mean[j] = by_mean * inner;
            gradient.variance[j] = -2.0 * by_explained * inner;
        }
        gradient
    }
}

/// m and α from the factor of K.
pub(super) fn mean_and_weights(factor: &[f64], y: &[f64]) -> (f64, Vec<f64>) {
    let n = y.len();
    if n == 0 {
        return (0.0, Vec::new());
    }
    let (mut ones, mut weights) = (vec![1.0; n], y.to_vec());
    solve_lower(factor, n, &mut ones);
    solve_lower(factor, n, &mut weights);
    let mean = dot(&ones, &weights) / dot(&ones, &ones);
    add_scaled(&mut weights, -mean, &ones);
    solve_lower_transposed(factor, n, &mut weights);
    (mean, weights)
}

#[cfg(test)]
mod tests {
    use super::{Gp, Prediction};
    use crate::search::bayesian::kernel::{Coordinate, Kernel, Warp};

    fn gp() -> Gp {
        let warp = Some(Warp { a: 1.3, b: 0.8 });
        let coordinates = vec![
            Coordinate { inverse_length: 3.0, warp },
            Coordinate { inverse_length: 1.0, warp: None },
            Coordinate { inverse_length: 2.0, warp },
        ];
        let points: Vec<Vec<f64>> =
            (0..9).map(|i| f64::from(i) / 9.0).map(|t| vec![t, (7.0 * t).floor() % 3.0, (3.7 * t).fract()]).collect();
        let y: Vec<f64> = points.iter().map(|x| x[0] - 0.5 * x[1] + x[2] * x[2]).collect();
        Gp::condition(Kernel { coordinates, signal: 1.5 }, 1e-9, &points, &y).unwrap()
    }

    #[test]
    fn observations_are_met_and_far_points_are_open() {
        let gp = gp();
        let [known, open] = gp.predict(&[vec![0.0, 0.0, 0.0], vec![1.0, 1.0, 0.0]]).try_into().unwrap();
        assert!((known.mean - 0.0).abs() < 1e-6 && known.variance < 1e-6, "{known:?}");
        assert!(open.variance > 0.3 && open.variance < 1.5, "{open:?}");
    }

    #[test]
    fn one_by_one_and_by_the_block_are_the_same_and_gradients_are_derivatives() {
        let gp = gp();
        let x = vec![0.31, 1.0, 0.62];
        let at = |x: &[f64]| -> Prediction { gp.predict(&[x.to_vec()])[0] };
        let gradient = gp.predict_gradient(&x);
        let many = gp.predict(&vec![x.clone(); 130]);
        for one in [many[0], many[129]] {
            assert!((one.mean - at(&x).mean).abs() < 1e-12 && (one.variance - at(&x).variance).abs() < 1e-12);
        }
        assert!(
            (gradient.at.mean - at(&x).mean).abs() < 1e-12 && (gradient.at.variance - at(&x).variance).abs() < 1e-12
        );
        for j in [0, 2] {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[j] += 1e-6;
            down[j] -= 1e-6;
            let numeric = |f: fn(Prediction) -> f64| (f(at(&up)) - f(at(&down))) / 2e-6;
            assert!((numeric(|p| p.mean) - gradient.mean[j]).abs() < 1e-5);
            assert!((numeric(|p| p.variance) - gradient.variance[j]).abs() < 1e-5);
        }
        assert_eq!((gradient.mean[1], gradient.variance[1]), (0.0, 0.0));
    }
}
