//! A range and the unit interval, one onto the other, under the range's scaling.
//!
//! Invariant: `at` answers a value of the range whatever it is given (bounds are never passed, not even by rounding), and a
//! uniform argument gives the distribution that the scaling promises. Transcendental functions come from `libm` alone, so
//! that the answer is the same on every machine. Categories lie side by side in their order; whoever needs another
//! encoding of them makes it.
//!
//! | scaling            | uniform is            | for                               |
//! |--------------------|-----------------------|-----------------------------------|
//! | Linear             | x                     | any range                         |
//! | Logarithmic        | ln x                  | 0 < min                           |
//! | `ReverseLogarithmic` | -ln(1 - x)            | continuous, 0 <= min and max < 1  |
//!
//! `Auto` is Logarithmic where the range is positive and spans three orders of magnitude or more, else `ReverseLogarithmic`
//! where a continuous range within [0, 1) has a 1 - x that does, else Linear.
//!
//! An integer i stands for the cell [i - 1/2, i + 1/2) of the scaled line: under Linear all integers are equally likely,
//! the ends too.

use crate::domain::space::{Range, Value};
use crate::domain::status::Scaling;

/// Three orders of magnitude, less what a division of decimal bounds may round away.
const WIDE: f64 = 999.999_999;

/// The scaling that a range is searched under: never `Auto`, and one that the range can have.
#[must_use]
pub fn effective(range: &Range) -> Scaling {
    match *range {
        Range::Categorical { .. } => Scaling::Linear,
        Range::Integer { min, max, scaling } => match scaling {
            Scaling::Logarithmic if min > 0 => Scaling::Logarithmic,
            Scaling::Auto if min > 0 && max as f64 / min as f64 >= WIDE => Scaling::Logarithmic,
            _ => Scaling::Linear,
        },
        Range::Continuous { min, max, scaling } => {
            let (positive, unit) = (min > 0.0, min >= 0.0 && max < 1.0);
            match scaling {
                Scaling::Logarithmic if positive => Scaling::Logarithmic,
                Scaling::ReverseLogarithmic if unit => Scaling::ReverseLogarithmic,
                Scaling::Auto if positive && max / min >= WIDE => Scaling::Logarithmic,
                Scaling::Auto if unit && (1.0 - min) / (1.0 - max) >= WIDE => Scaling::ReverseLogarithmic,
                _ => Scaling::Linear,
            }
        }
    }
}

/// The value at `unit` in [0, 1); what lies outside is taken as the nearest end.
#[must_use]
pub fn at(range: &Range, unit: f64) -> Value {
    let unit = if unit.is_nan() { 0.0 } else { unit.clamp(0.0, 1.0) };
    match range {
        Range::Categorical { values } => Value::Category(cell(unit, values.len())),
        Range::Integer { min, max, .. } => Value::Int(integer_at(*min, *max, effective(range), unit)),
        Range::Continuous { min, max, .. } => {
            let scaling = effective(range);
            let (low, high) = (forward(scaling, *min), forward(scaling, *max));
            // Adding zero makes a negative zero positive: they would be told apart as texts.
            Value::Real(inverse(scaling, low + unit * (high - low)).clamp(*min, *max) + 0.0)
        }
    }
}

/// Where a value stands in the unit interval: the middle of its cell for integers and categories.
/// 1/2 for a value of another kind and for the one value of a range.
#[must_use]
pub fn unit_of(range: &Range, value: Value) -> f64 {
    match (range, value) {
        (Range::Categorical { values }, Value::Category(i)) if !values.is_empty() => {
            ((i as f64 + 0.5) / values.len() as f64).clamp(0.0, 1.0)
        }
        (Range::Integer { min, max, .. }, Value::Int(i)) => {
            let scaling = effective(range);
            let at = |x: f64| forward(scaling, x);
            let (low, high) = (at(*min as f64 - 0.5), at(*max as f64 + 0.5));
            ratio(f64::midpoint(at(i as f64 - 0.5), at(i as f64 + 0.5)), low, high)
        }
        (Range::Continuous { min, max, .. }, Value::Real(x)) => {
            let scaling = effective(range);
            ratio(forward(scaling, x), forward(scaling, *min), forward(scaling, *max))
        }
        _ => 0.5,
    }
}

fn ratio(x: f64, low: f64, high: f64) -> f64 {
    let ratio = (x - low) / (high - low);
    if ratio.is_nan() { 0.5 } else { ratio.clamp(0.0, 1.0) }
}

fn forward(scaling: Scaling, x: f64) -> f64 {
    match scaling {
        Scaling::Logarithmic => libm::log(x),
        Scaling::ReverseLogarithmic => -libm::log1p(-x),
        Scaling::Linear | Scaling::Auto => x,
    }
}

fn inverse(scaling: Scaling, y: f64) -> f64 {
    match scaling {
        Scaling::Logarithmic => libm::exp(y),
        Scaling::ReverseLogarithmic => -libm::expm1(-y),
        Scaling::Linear | Scaling::Auto => y,
    }
}

fn integer_at(min: i64, max: i64, scaling: Scaling, unit: f64) -> i64 {
    if scaling == Scaling::Linear {
        // By count, not by position on the line: exact for every range of up to 2^53 values.
        let count = max.abs_diff(min).saturating_add(1);
        return min.saturating_add_unsigned(floor_below(unit * count as f64, count));
    }
    let (low, high) = (forward(scaling, min as f64 - 0.5), forward(scaling, max as f64 + 0.5));
    let x = libm::floor(inverse(scaling, low + unit * (high - low)) + 0.5);
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates and the bounds are kept by the clamp")]
    (x as i64).clamp(min, max)
}

fn cell(unit: f64, count: usize) -> usize {
    usize::try_from(floor_below(unit * count as f64, count as u64)).unwrap_or(0)
}

/// The whole part of a number that is not negative, at most `count - 1`.
fn floor_below(x: f64, count: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates; x is not negative")]
    (x as u64).min(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{at, effective, unit_of};
    use crate::domain::space::{Range, Value};
    use crate::domain::status::Scaling;
    use crate::search::rng::Stream;

    fn real(min: f64, max: f64, scaling: Scaling) -> Range {
        Range::Continuous { min, max, scaling }
    }

    fn int(min: i64, max: i64, scaling: Scaling) -> Range {
        Range::Integer { min, max, scaling }
    }

    fn as_real(value: Value) -> f64 {
        match value {
            Value::Real(x) => x,
            other => panic!("{other:?} is not a real"),
        }
    }

    /// The largest distance between the draws' distribution and `cdf`, times the root of their number; above 1.95 for
    /// one correct distribution in a thousand (Kolmogorov, Smirnov). The seed is fixed.
    fn kolmogorov(range: &Range, cdf: impl Fn(f64) -> f64) -> f64 {
        let mut stream = Stream::new(11, 0, 1);
        let n = 20_000;
        let mut draws: Vec<f64> = (0..n).map(|_| as_real(at(range, stream.unit()))).collect();
        draws.sort_by(f64::total_cmp);
        let distance = draws.iter().enumerate().map(|(i, x)| {
            let (below, above, expected) = (i as f64 / f64::from(n), (i + 1) as f64 / f64::from(n), cdf(*x));
            (expected - below).abs().max((above - expected).abs())
        });
        distance.fold(0.0, f64::max) * f64::from(n).sqrt()
    }

    /// Pearson's statistic over the integers of a range, and its degrees of freedom.
    fn chi_square(range: &Range, probabilities: &[f64], min: i64) -> f64 {
        let mut stream = Stream::new(12, 0, 1);
        let n = 50_000;
        let mut counts = vec![0.0; probabilities.len()];
        for _ in 0..n {
            let Value::Int(i) = at(range, stream.unit()) else { panic!("not an integer") };
            counts[usize::try_from(i - min).unwrap()] += 1.0;
        }
        counts.iter().zip(probabilities).map(|(o, p)| (o - p * f64::from(n)).powi(2) / (p * f64::from(n))).sum()
    }

    #[test]
    fn reals_are_uniform_on_the_scaled_line() {
        let linear = kolmogorov(&real(-3.0, 5.0, Scaling::Linear), |x| (x + 3.0) / 8.0);
        let log = kolmogorov(&real(1e-5, 1.0, Scaling::Logarithmic), |x| (x / 1e-5).ln() / 1e5_f64.ln());
        let reverse = kolmogorov(&real(0.5, 0.9999, Scaling::ReverseLogarithmic), |x| {
            ((1.0 - x) / 0.5).ln() / (0.0001_f64 / 0.5).ln()
        });
        assert!(linear < 1.95 && log < 1.95 && reverse < 1.95, "{linear} {log} {reverse}");
        // The test itself can tell: a uniform draw is far from a logarithmic one.
        assert!(kolmogorov(&real(1.0, 10.0, Scaling::Linear), |x| x.ln() / 10_f64.ln()) > 10.0);
    }

    #[test]
    fn integers_are_drawn_by_the_width_of_their_cells() {
        // 99.9 % quantiles of the chi-square distribution with 9 degrees of freedom: 27.9.
        let linear = chi_square(&int(-4, 5, Scaling::Linear), &[0.1; 10], -4);
        assert!(linear < 27.9, "{linear}");
        let cells: Vec<f64> =
            (1..=10).map(|i| ((f64::from(i) + 0.5) / (f64::from(i) - 0.5)).ln() / (10.5_f64 / 0.5).ln()).collect();
        let log = chi_square(&int(1, 10, Scaling::Logarithmic), &cells, 1);
        assert!(log < 27.9, "{log}");
    }

    #[test]
    fn categories_are_equally_likely() {
        let range = Range::Categorical { values: ["a", "b", "c"].map(String::from).to_vec() };
        let mut stream = Stream::new(13, 0, 1);
        let mut counts = [0_u32; 3];
        for _ in 0..30_000 {
            let Value::Category(i) = at(&range, stream.unit()) else { panic!("not a category") };
            counts[i] += 1;
        }
        assert!(counts.iter().all(|n| n.abs_diff(10_000) < 300), "{counts:?}");
    }

    #[test]
    fn auto_follows_the_span_of_the_range() {
        let auto = |min, max| effective(&real(min, max, Scaling::Auto));
        assert_eq!(auto(1e-4, 0.1), Scaling::Logarithmic);
        assert_eq!(auto(1e-3, 0.5), Scaling::Linear);
        assert_eq!(auto(0.0, 1000.0), Scaling::Linear);
        assert_eq!(auto(-1.0, 1000.0), Scaling::Linear);
        assert_eq!(auto(0.9, 0.9999), Scaling::ReverseLogarithmic);
        assert_eq!(auto(0.0, 0.9), Scaling::Linear);
        assert_eq!(effective(&int(1, 1000, Scaling::Auto)), Scaling::Logarithmic);
        assert_eq!(effective(&int(1, 999, Scaling::Auto)), Scaling::Linear);
        assert_eq!(effective(&int(0, 1_000_000, Scaling::Auto)), Scaling::Linear);
    }

    #[test]
    fn the_ends_of_the_unit_interval_are_the_ends_of_the_range() {
        let below_one = 1.0 - f64::EPSILON / 2.0;
        for scaling in Scaling::ALL {
            let r = real(0.1, 0.7, *scaling);
            assert!((as_real(at(&r, 0.0)) - 0.1).abs() < 1e-12);
            assert!((as_real(at(&r, below_one)) - 0.7).abs() < 1e-12);
            let r = int(3, 900_000, *scaling);
            assert_eq!(at(&r, 0.0), Value::Int(3));
            assert_eq!(at(&r, below_one), Value::Int(900_000));
        }
        let huge = int(-(1 << 53), 1 << 53, Scaling::Linear);
        assert_eq!(at(&huge, 0.0), Value::Int(-(1 << 53)));
        assert_eq!(at(&real(-1e300, 1e300, Scaling::Linear), 0.5), Value::Real(0.0));
        assert_eq!(at(&real(-0.0, 1.0, Scaling::Linear), 0.0), Value::Real(0.0));
    }

    fn any_scaling() -> impl Strategy<Value = Scaling> {
        prop::sample::select(Scaling::ALL)
    }

    proptest! {
        #[test]
        fn a_real_stays_in_its_range(
            a in -1e300..1e300_f64, b in -1e300..1e300_f64, u in any::<f64>(), scaling in any_scaling()
        ) {
            let (min, max) = (a.min(b), a.max(b));
            let x = as_real(at(&real(min, max, scaling), u));
            prop_assert!((min..=max).contains(&x), "{x} of {min}..={max}");
        }

        #[test]
        fn a_narrow_real_range_is_kept_exactly(
            min in 1e-12..0.5_f64, span in 0.0..0.4_f64, u in 0.0..1.0_f64, scaling in any_scaling()
        ) {
            let range = real(min, min + span, scaling);
            let x = as_real(at(&range, u));
            prop_assert!((min..=min + span).contains(&x));
            let back = unit_of(&range, Value::Real(x));
            prop_assert!(span < 1e-9 || (back - u).abs() < 1e-5, "{u} came back as {back}");
        }

        #[test]
        fn an_integer_comes_back_from_the_middle_of_its_cell(
            min in -1000..1000_i64, span in 0..100_000_i64, u in 0.0..1.0_f64, scaling in any_scaling()
        ) {
            let range = int(min, min + span, scaling);
            let value = at(&range, u);
            let Value::Int(i) = value else { panic!("not an integer") };
            prop_assert!((min..=min + span).contains(&i));
            prop_assert_eq!(at(&range, unit_of(&range, value)), value);
        }
    }
}
