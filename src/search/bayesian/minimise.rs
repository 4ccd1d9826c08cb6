//! Minimisation of smooth functions of a few dozen variables.
//!
//! | symbol | meaning                              | shape |
//! |--------|--------------------------------------|-------|
//! | x, g   | point and gradient                   | p     |
//! | H      | approximation of the inverse Hessian | p x p |
//! | s, y   | last step, and change of gradient    | p     |
//!
//! Invariant: at most `Steps::most` evaluations beside the first, and never a worse point than the start.
//!
//! BFGS with a backtracking line search: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.1 and 6.1.

use crate::search::bayesian::matrix::{add_scaled, dot};

/// Share of the promised decrease that a step must bring (Armijo; Nocedal and Wright, eq. 3.4).
const ARMIJO: f64 = 1e-4;
/// A step that gains less is the last one.
const LEAST_GAIN: f64 = 1e-5;
/// A direction that promises less is not followed.
const LEAST_SLOPE: f64 = 1e-9;

/// How far a minimisation may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// Evaluations beside the first.
    pub(super) most: usize,
    /// The longest move of any variable while nothing is known of the curvature.
    pub(super) first: f64,
    /// The longest move of any variable in a later step.
    pub(super) longest: f64,
}

/// The best point found and its value. `f` writes the gradient at the point; an infinite value refuses the point.
pub(super) fn minimise(start: &[f64], steps: &Steps, mut f: impl FnMut(&[f64], &mut [f64]) -> f64) -> (Vec<f64>, f64) {
    let mut x = start.to_vec();
    let mut gradient = vec![0.0; x.len()];
    let mut value = f(&x, &mut gradient);
    let (mut next, mut next_gradient) = (x.clone(), gradient.clone());
    let mut curvature = Curvature::unknown(x.len());
    let mut left = if value.is_finite() { steps.most } else { 0 };
    while left > 0 {
        let (direction, slope) = curvature.descent(&gradient);
        if slope > -LEAST_SLOPE {
            break;
        }
        let longest = direction.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let mut length = (if curvature.known { steps.longest } else { steps.first } / longest).min(1.0);
        let gain = loop {
            if left == 0 {
                break None;
            }
            left -= 1;
            next.copy_from_slice(&x);
            add_scaled(&mut next, length, &direction);
            let candidate = f(&next, &mut next_gradient);
            if candidate <= value + ARMIJO * length * slope {
                break Some(value - candidate);
            }
            length *= if candidate.is_finite() { 0.4 } else { 0.1 };
        };
        let Some(gain) = gain else { break };
        curvature.learn(&difference(&next, &x), &difference(&next_gradient, &gradient));
        std::mem::swap(&mut x, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value -= gain;
        if gain < LEAST_GAIN {
            break;
        }
    }
    (x, value)
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// H.
struct Curvature {
    p: usize,
    h: Vec<f64>,
    known: bool,
}

impl Curvature {
    fn unknown(p: usize) -> Self {
        let mut curvature = Self { p, h: vec![0.0; p * p], known: false };
        curvature.reset(1.0);
        curvature
    }

    fn reset(&mut self, scale: f64) {
        self.h.fill(0.0);
        for i in 0..self.p {
            self.h[i * self.p + i] = scale;
        }
    }

    fn times(&self, v: &[f64]) -> Vec<f64> {
        self.h.chunks_exact(self.p.max(1)).map(|row| dot(row, v)).collect()
    }

    /// -H g and its slope; the steepest descent where that does not descend.
    fn descent(&mut self, gradient: &[f64]) -> (Vec<f64>, f64) {
        let direction: Vec<f64> = self.times(gradient).into_iter().map(|x| -x).collect();
        let slope = dot(&direction, gradient);
        if slope < 0.0 {
            return (direction, slope);
        }
        self.reset(1.0);
        self.known = false;
        (gradient.iter().map(|g| -g).collect(), -dot(gradient, gradient))
    }

    /// Nocedal and Wright, eqs. 6.17 and 6.20; nothing is learned where the curvature is not positive.
    fn learn(&mut self, s: &[f64], y: &[f64]) {
        let sy = dot(s, y);
        if !(sy > 1e-10 && sy.is_finite()) {
            return;
        }
        if !self.known {
            self.known = true;
            self.reset(sy / dot(y, y));
        }
        let hy = self.times(y);
        let scale = (1.0 + dot(y, &hy) / sy) / sy;
        for (i, row) in self.h.chunks_exact_mut(self.p).enumerate() {
            for (j, h) in row.iter_mut().enumerate() {
                *h += scale * s[i] * s[j] - (hy[i] * s[j] + s[i] * hy[j]) / sy;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Steps, minimise};

    const STEPS: Steps = Steps { most: 200, first: 0.5, longest: 2.0 };

    #[test]
    fn a_curved_valley_is_followed_to_its_end() {
        let rosenbrock = |x: &[f64], g: &mut [f64]| {
            g[0] = -400.0 * x[0] * (x[1] - x[0] * x[0]) - 2.0 * (1.0 - x[0]);
            g[1] = 200.0 * (x[1] - x[0] * x[0]);
            100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)
        };
        let (x, value) = minimise(&[-1.2, 1.0], &STEPS, rosenbrock);
        assert!(value < 1e-4 && (x[0] - 1.0).abs() < 0.02, "{x:?} {value}");
        // Bounded, and no worse than the start.
        let mut calls = 0;
        let counted = |x: &[f64], g: &mut [f64]| {
            calls += 1;
            rosenbrock(x, g)
        };
        let (_, value) = minimise(&[-1.2, 1.0], &Steps { most: 5, ..STEPS }, counted);
        assert!(calls == 6 && value <= 24.2);
    }

    #[test]
    fn refused_points_and_hostile_values_end_it() {
        for bad in [f64::INFINITY, f64::NAN] {
            let (x, _) = minimise(&[0.5], &STEPS, |_, _| bad);
            assert_eq!(x, [0.5]);
            let wall = |x: &[f64], g: &mut [f64]| {
                g[0] = 1.0;
                if x[0] < 0.2 { bad } else { x[0] }
            };
            let (x, value) = minimise(&[0.5], &STEPS, wall);
            assert!((0.2..0.25).contains(&x[0]) && value <= 0.25, "{x:?}");
        }
        assert_eq!(minimise(&[], &STEPS, |_, _| 1.0), (vec![], 1.0));
    }
}
