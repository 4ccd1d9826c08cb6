//! How alike two points are: a Matérn 5/2 kernel over warped numbers and over categories.
//!
//! | symbol | meaning                                                                                | shape |
//! |--------|----------------------------------------------------------------------------------------|-------|
//! | u, v   | coordinates of two points (see `features`)                                             | d     |
//! | w      | the warp of a number, w(u) = 1 - (1 - u^a)^b; a, b > 0, the identity at a = b = 1      |       |
//! | l      | length scales                                                                          | d     |
//! | r²     | sum over numbers of ((w(u) - w(v)) / l)², and over categories that differ of 1 / l²    |       |
//! | s²     | signal variance                                                                        |       |
//! | k      | s² (1 + √5 r + 5/3 r²) exp(-√5 r)                                                      |       |
//!
//! Invariant: the arithmetic is the same on every machine. Fitting the parameters belongs to `fit`.
//!
//! Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. 4.17; the warp: Snoek et al., Input Warping
//! for Bayesian Optimization of Non-stationary Functions (2014), eq. 7, with the distribution function of Kumaraswamy in
//! the place of the beta's; the categories: Hutter et al., Algorithm Runtime Prediction (2014), eq. 5.

/// Warps are steep at the ends of the interval; they are taken at most this near to them.
const EDGE: f64 = 1e-6;

/// The kernel's parameters.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) coordinates: Vec<Coordinate>,
    /// s².
    pub(super) signal: f64,
}

/// The part of one coordinate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coordinate {
    /// 1 / l.
    pub(super) inverse_length: f64,
    /// `None` for categories.
    pub(super) warp: Option<Warp>,
}

/// The Kumaraswamy distribution function as a change of scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Warp {
    pub(super) a: f64,
    pub(super) b: f64,
}

/// The derivatives of a warped coordinate.
pub(super) struct Slopes {
    /// ∂w / ∂ ln a.
    pub(super) ln_a: f64,
    /// ∂w / ∂ ln b.
    pub(super) ln_b: f64,
    /// ∂w / ∂u.
    pub(super) u: f64,
}

impl Warp {
    pub(super) fn apply(self, u: f64) -> f64 {
        let u = u.clamp(EDGE, 1.0 - EDGE);
        1.0 - libm::exp(self.b * libm::log1p(-libm::exp(self.a * libm::log(u))))
    }

    pub(super) fn slopes(self, u: f64) -> Slopes {
        let Self { a, b } = self;
        let u = u.clamp(EDGE, 1.0 - EDGE);
        let ln_u = libm::log(u);
        let power = libm::exp(a * ln_u);
        let ln_rest = libm::log1p(-power);
        let rest = libm::exp(b * ln_rest);
        let slope = b * rest / (1.0 - power) * power * a;
        Slopes { ln_a: slope * ln_u, ln_b: -rest * ln_rest * b, u: slope / u }
    }
}

impl Coordinate {
    /// A coordinate as distances are taken of it: warped and divided by the length scale; a category stays.
    pub(super) fn scale(self, u: f64) -> f64 {
        self.warp.map_or(u, |warp| warp.apply(u) * self.inverse_length)
    }
}

impl Kernel {
    /// Points' coordinates as columns of scaled values, d of them.
    pub(super) fn columns(&self, points: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let column = |(j, c): (usize, &Coordinate)| points.iter().map(|x| c.scale(x[j])).collect();
        self.coordinates.iter().enumerate().map(column).collect()
    }

    /// r² between one point and the first `out.len()` points of scaled columns.
    pub(super) fn squared_distances(&self, at: impl Fn(usize) -> f64, columns: &[Vec<f64>], out: &mut [f64]) {
        out.fill(0.0);
        for (j, (coordinate, column)) in self.coordinates.iter().zip(columns).enumerate() {
            let at = at(j);
            if coordinate.warp.is_some() {
                for (out, other) in out.iter_mut().zip(column) {
                    *out += (other - at) * (other - at);
                }
            } else {
                let apart = coordinate.inverse_length * coordinate.inverse_length;
                for (out, other) in out.iter_mut().zip(column) {
                    *out += if same(*other, at) { 0.0 } else { apart };
                }
            }
        }
    }

    /// k at each r².
    pub(super) fn values(&self, squared_distances: &mut [f64]) {
        for x in squared_distances {
            *x = self.signal * profile(*x).0;
        }
    }

    /// k at each r², and into `slopes` -2 dk / d(r²), the factor of every derivative by a coordinate.
    pub(super) fn values_and_slopes(&self, squared_distances: &mut [f64], slopes: &mut [f64]) {
        for (x, slope) in squared_distances.iter_mut().zip(slopes) {
            let (value, minus_twice_derivative) = profile(*x);
            *x = self.signal * value;
            *slope = self.signal * minus_twice_derivative;
        }
    }
}

/// Whether two categories are one.
#[expect(clippy::float_cmp, reason = "categories are small whole numbers")]
pub(super) fn same(a: f64, b: f64) -> bool {
    a == b
}

/// Beyond so many √5 r a kernel is 0: exp(-50) is far below any noise.
const FAR: f64 = 50.0;

/// k / s² and -2 d(k / s²) / d(r²) at r².
#[inline]
fn profile(r2: f64) -> (f64, f64) {
    const SQRT_5: f64 = 2.236_067_977_499_79;
    let s = SQRT_5 * r2.sqrt();
    // What is so far has nothing to say; its tiny products would be subnormal numbers, which are slow.
    let e = if s < FAR { exp_of_minus(s) } else { 0.0 };
    ((1.0 + s + 5.0 / 3.0 * r2) * e, 5.0 / 3.0 * (1.0 + s) * e)
}

/// exp(-s) for s >= 0, to a relative 1e-15: -s = k ln 2 + t with whole k and |t| <= ln 2 / 2, and the Taylor polynomial of
/// exp(t). Without branches and table, which `libm` has, it is several times as fast in a loop.
#[inline]
fn exp_of_minus(s: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to a whole number, which the low bits of the sum then hold.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts, the first with trailing zeros enough to be multiplied exactly.
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const FACTORIALS: [f64; 12] =
        [39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0];
    let x = -(if s < 700.0 { s } else { 700.0 });
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let t = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mut sum = 1.0 / 479_001_600.0;
    for factorial in FACTORIALS {
        sum = sum * t + 1.0 / factorial;
    }
    sum * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Warp, exp_of_minus, profile};

    #[test]
    fn a_point_is_like_itself_and_unlike_what_is_far() {
        assert!((profile(0.0).0 - 1.0).abs() < 1e-15);
        assert!(profile(1e12).0 < 1e-200 && profile(1e300).0 >= 0.0);
    }

    proptest! {
        #[test]
        fn the_exponential_is_exact(s in 0.0..700.0_f64) {
            let exact = libm::exp(-s);
            prop_assert!((exp_of_minus(s) - exact).abs() <= 2e-15 * exact);
        }

        #[test]
        fn slopes_are_derivatives(r2 in 1e-3..50.0_f64, u in 0.01..0.99_f64, a in 0.3..3.0_f64, b in 0.3..3.0_f64) {
            let h = 1e-6;
            let numeric = -(profile(r2 + h).0 - profile(r2 - h).0) / h;
            prop_assert!((numeric - profile(r2).1).abs() < 1e-5);
            let slopes = Warp { a, b }.slopes(u);
            let difference = |f: &dyn Fn(f64) -> f64| (f(h) - f(-h)) / (2.0 * h);
            let by_u = difference(&|h| Warp { a, b }.apply(u + h));
            let by_ln_a = difference(&|h| Warp { a: a * h.exp(), b }.apply(u));
            let by_ln_b = difference(&|h| Warp { a, b: b * h.exp() }.apply(u));
            for (numeric, exact) in [(by_u, slopes.u), (by_ln_a, slopes.ln_a), (by_ln_b, slopes.ln_b)] {
                prop_assert!((numeric - exact).abs() < 1e-5 * (1.0 + exact.abs()), "{numeric} {exact}");
            }
        }
    }
}
