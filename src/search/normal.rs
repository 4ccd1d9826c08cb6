//! The standard normal distribution.
//!
//! Invariant: arguments outside the domain are moved to its edge; every answer is finite.

use std::f64::consts::FRAC_1_SQRT_2;

use crate::search::rng::Stream;

/// Smallest probability whose quantile is told apart from that of 0.
const EDGE: f64 = 1e-12;

/// The distribution function.
pub(super) fn distribution(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// The inverse of the distribution function, to about 1e-15 of p.
///
/// An approximation of the tail (Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.2.23: within 4.5e-4)
/// is improved by Halley's method, which triples the exact digits at each step.
pub(super) fn quantile(p: f64) -> f64 {
    let p = p.clamp(EDGE, 1.0 - EDGE);
    let tail = p.min(1.0 - p);
    let t = (-2.0 * libm::log(tail)).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    // Of the lower tail, so that the distribution function keeps its relative accuracy.
    let mut z = numerator / denominator - t;
    for _ in 0..2 {
        let error = (distribution(z) - tail) / density(z);
        z -= error / (1.0 + 0.5 * z * error);
    }
    if p < 0.5 { z } else { -z }
}

/// A draw.
pub(super) fn draw(stream: &mut Stream) -> f64 {
    quantile(stream.unit())
}

fn density(z: f64) -> f64 {
    const ONE_OVER_SQRT_2_PI: f64 = 0.398_942_280_401_432_7;
    ONE_OVER_SQRT_2_PI * libm::exp(-0.5 * z * z)
}

#[cfg(test)]
mod tests {
    use super::{distribution, quantile};

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.001, -3.090_232_306_167_813_6),
            (1e-9, -5.997_807_015_007_686),
        ] {
            assert!((quantile(p) - z).abs() < 1e-9, "{p}: {}", quantile(p));
        }
    }

    #[test]
    fn the_quantile_inverts_the_distribution_and_stays_finite() {
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            assert!((distribution(quantile(p)) - p).abs() < 1e-13);
        }
        assert!(quantile(0.0).is_finite() && quantile(1.0).is_finite() && quantile(0.0) < -6.0 && quantile(1.0) > 6.0);
    }
}
