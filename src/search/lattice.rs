//! A space as a finite, ordered list of points.
//!
//! Every space is finite: integers and categories are, and a continuous range holds so many doubles, which is what tells
//! two suggestions apart once they are texts. So points have a rank in lexicographic order (the first parameter weighs
//! most), and "what is left" is arithmetic on ranks instead of a walk over the space.
//!
//! Invariant: `rank` and `point` are inverse on 0..size, for spaces of at most 2^64 - 1 points; larger ones have no lattice.

use crate::domain::space::{Parameter, Range, Space, Value};

/// The points of a space that are few enough to be counted.
#[derive(Debug, Clone)]
pub struct Lattice<'a> {
    parameters: &'a [Parameter],
    size: u64,
}

impl<'a> Lattice<'a> {
    /// `None` where the space has 2^64 points or more.
    #[must_use]
    pub fn of(space: &'a Space) -> Option<Self> {
        let size = space.parameters.iter().try_fold(1_u64, |product, p| product.checked_mul(count(&p.range)?))?;
        Some(Self { parameters: &space.parameters, size })
    }

    /// How many points there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The place of a point in lexicographic order, from 0; `None` where it is not of the space.
    #[must_use]
    pub fn rank(&self, point: &[Value]) -> Option<u64> {
        if point.len() != self.parameters.len() {
            return None;
        }
        self.parameters.iter().zip(point).try_fold(0_u64, |rank, (parameter, value)| {
            let n = count(&parameter.range)?;
            let index = index(&parameter.range, *value).filter(|i| *i < n)?;
            Some(rank * n + index)
        })
    }

    /// The point of a rank below [`Lattice::size`].
    #[must_use]
    pub fn point(&self, mut rank: u64) -> Vec<Value> {
        let mut point: Vec<Value> = self
            .parameters
            .iter()
            .rev()
            .map(|parameter| {
                let n = count(&parameter.range).unwrap_or(1).max(1);
                let value = value(&parameter.range, rank % n);
                rank /= n;
                value
            })
            .collect();
        point.reverse();
        point
    }
}

/// How many values a range has; `None` for 2^64 and more.
fn count(range: &Range) -> Option<u64> {
    match range {
        Range::Continuous { min, max, .. } => place(*max).abs_diff(place(*min)).checked_add(1),
        Range::Integer { .. } | Range::Categorical { .. } => range.cardinality(),
    }
}

fn index(range: &Range, value: Value) -> Option<u64> {
    match (range, value) {
        (Range::Continuous { min, .. }, Value::Real(x)) => {
            (place(x) >= place(*min)).then(|| place(x).abs_diff(place(*min)))
        }
        (Range::Integer { min, .. }, Value::Int(i)) => (i >= *min).then(|| i.abs_diff(*min)),
        (Range::Categorical { .. }, Value::Category(i)) => Some(i as u64),
        _ => None,
    }
}

fn value(range: &Range, index: u64) -> Value {
    match range {
        Range::Continuous { min, .. } => Value::Real(at_place(place(*min).saturating_add_unsigned(index))),
        Range::Integer { min, .. } => Value::Int(min.saturating_add_unsigned(index)),
        Range::Categorical { .. } => Value::Category(usize::try_from(index).unwrap_or(usize::MAX)),
    }
}

/// The place of a double among all doubles: 0 for both zeros, one more for each next larger one.
fn place(x: f64) -> i64 {
    let magnitude = x.abs().to_bits().cast_signed();
    if x < 0.0 { -magnitude } else { magnitude }
}

fn at_place(place: i64) -> f64 {
    let magnitude = f64::from_bits(place.unsigned_abs());
    if place < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Lattice, at_place, place};
    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::Scaling;

    fn space(ranges: Vec<Range>) -> Space {
        let named = |(i, range): (usize, Range)| Parameter { name: format!("p{i}"), range };
        Space { parameters: ranges.into_iter().enumerate().map(named).collect() }
    }

    fn texts(n: usize) -> Range {
        Range::Categorical { values: (0..n).map(|i| format!("v{i}")).collect() }
    }

    #[test]
    fn ranks_run_through_the_space_in_lexicographic_order() {
        let tiny = Range::Continuous { min: -0.0, max: f64::from_bits(1), scaling: Scaling::Linear };
        let space = space(vec![Range::Integer { min: -1, max: 1, scaling: Scaling::Linear }, texts(4), tiny]);
        let lattice = Lattice::of(&space).unwrap();
        assert_eq!(lattice.size(), 24);
        assert_eq!(lattice.point(0), [Value::Int(-1), Value::Category(0), Value::Real(0.0)]);
        assert_eq!(lattice.point(23), [Value::Int(1), Value::Category(3), Value::Real(f64::from_bits(1))]);
        for rank in 0..24 {
            assert_eq!(lattice.rank(&lattice.point(rank)), Some(rank));
        }
    }

    #[test]
    fn what_is_not_of_the_space_has_no_rank() {
        let space = space(vec![Range::Integer { min: 2, max: 4, scaling: Scaling::Linear }, texts(2)]);
        let lattice = Lattice::of(&space).unwrap();
        for point in [
            vec![],
            vec![Value::Int(2)],
            vec![Value::Int(1), Value::Category(0)],
            vec![Value::Int(5), Value::Category(0)],
            vec![Value::Int(2), Value::Category(2)],
            vec![Value::Category(0), Value::Int(2)],
        ] {
            assert_eq!(lattice.rank(&point), None, "{point:?}");
        }
    }

    #[test]
    fn a_space_too_large_to_count_has_no_lattice_and_an_empty_one_has_a_point() {
        let wide = || Range::Continuous { min: -1e300, max: 1e300, scaling: Scaling::Linear };
        assert!(Lattice::of(&space(vec![wide()])).is_some());
        assert!(Lattice::of(&space(vec![wide(), wide()])).is_none());
        assert!(Lattice::of(&space(vec![texts(30); 30])).is_none());
        assert_eq!(Lattice::of(&space(vec![])).unwrap().size(), 1);
    }

    proptest! {
        #[test]
        fn places_order_doubles(a in -1e300..1e300_f64, b in -1e300..1e300_f64) {
            prop_assert_eq!(a < b, place(a) < place(b));
            prop_assert_eq!(at_place(place(a)).to_bits(), (a + 0.0).to_bits());
        }
    }
}
