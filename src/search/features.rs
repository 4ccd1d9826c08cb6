//! Points of a space as vectors for models.
//!
//! Invariant: `encode` and `decode` are inverse on the points of the space, and `snap` moves a vector to that of the point
//! that it would be decoded to: models judge what would really be run. Parameters of one value have no coordinate.
//!
//! | coordinate of | is                                                         |
//! |---------------|------------------------------------------------------------|
//! | a number      | its place in the unit interval under the range's scaling   |
//! | a category    | its index                                                  |

use crate::domain::space::{Range, Space, Value};
use crate::search::rng::Stream;
use crate::search::{normal, scale};

/// Coordinates that a move to a near point changes, on average.
const MOVED: f64 = 3.0;

/// The coordinates of a space.
#[derive(Debug)]
pub(super) struct Features<'a> {
    space: &'a Space,
    /// Of each coordinate, the index of its parameter.
    parameters: Vec<usize>,
    /// Of each coordinate, what it stands for.
    pub(super) kinds: Vec<Kind>,
}

/// What a coordinate stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A real number.
    Real,
    /// A whole number out of so many.
    Whole(u64),
    /// One of so many categories.
    Category(usize),
}

impl Kind {
    pub(super) const fn is_number(self) -> bool {
        !matches!(self, Self::Category(_))
    }
}

impl<'a> Features<'a> {
    pub(super) fn of(space: &'a Space) -> Self {
        let (mut parameters, mut kinds) = (Vec::new(), Vec::new());
        for (index, parameter) in space.parameters.iter().enumerate() {
            let kind = match &parameter.range {
                Range::Continuous { min, max, .. } if min < max => Kind::Real,
                Range::Integer { min, max, .. } if min < max => Kind::Whole(max.abs_diff(*min).saturating_add(1)),
                Range::Categorical { values } if values.len() > 1 => Kind::Category(values.len()),
                _ => continue,
            };
            parameters.push(index);
            kinds.push(kind);
        }
        Self { space, parameters, kinds }
    }

    /// The number of coordinates.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    fn coordinates(&self) -> impl Iterator<Item = (&'a Range, Kind)> {
        self.parameters.iter().map(|i| &self.space.parameters[*i].range).zip(self.kinds.iter().copied())
    }

    /// The vector of a point.
    pub(super) fn encode(&self, point: &[Value]) -> Vec<f64> {
        self.coordinates()
            .zip(&self.parameters)
            .map(|((range, _), index)| match point.get(*index) {
                Some(Value::Category(i)) => *i as f64,
                Some(value) => scale::unit_of(range, *value),
                None => 0.5,
            })
            .collect()
    }

    /// One number for each coordinate as one for each parameter of the space; 0 for parameters of one value.
    pub(super) fn by_parameter(&self, of_coordinates: &[f64]) -> Vec<f64> {
        let mut of_parameters = vec![0.0; self.space.parameters.len()];
        for (index, x) in self.parameters.iter().zip(of_coordinates) {
            of_parameters[*index] = *x;
        }
        of_parameters
    }

    /// The point nearest to a vector.
    pub(super) fn decode(&self, x: &[f64]) -> Vec<Value> {
        let mut point: Vec<Value> = self.space.parameters.iter().map(|p| scale::at(&p.range, 0.5)).collect();
        for (((range, kind), index), x) in self.coordinates().zip(&self.parameters).zip(x) {
            point[*index] = value(range, kind, *x);
        }
        point
    }

    /// Moves a vector to that of the point it decodes to.
    pub(super) fn snap(&self, x: &mut [f64]) {
        for ((range, kind), x) in self.coordinates().zip(x) {
            *x = match kind {
                Kind::Real => x.clamp(0.0, 1.0),
                Kind::Whole(_) => scale::unit_of(range, value(range, kind, *x)),
                Kind::Category(n) => category(*x, n) as f64,
            };
        }
    }

    /// The vector of the point that lies at `units` of the unit cube.
    pub(super) fn at_units(&self, units: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut x: Vec<f64> = units
            .into_iter()
            .zip(&self.kinds)
            .map(|(unit, kind)| match kind {
                Kind::Category(n) => libm::floor(unit * *n as f64),
                _ => unit,
            })
            .collect();
        self.snap(&mut x);
        x
    }

    /// Quasi-random points, another sequence for each state of the stream.
    pub(super) fn sobol(&self, n: u32, stream: &mut Stream) -> Vec<Vec<f64>> {
        #[expect(clippy::cast_possible_truncation, reason = "below 2^32")]
        let seed = stream.below(1 << 32) as u32;
        (0..n).map(|index| self.sobol_at(index, seed)).collect()
    }

    /// A point of the quasi-random sequence of a seed.
    pub(super) fn sobol_point(&self, index: u32, seed: u64) -> Vec<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
        self.sobol_at(index, (seed ^ (seed >> 32)) as u32)
    }

    /// Owen-scrambled Sobol' points (Burley, Practical Hash-based Owen Scrambling, 2020).
    fn sobol_at(&self, index: u32, seed: u32) -> Vec<f64> {
        // The crate has 256 dimensions and 2^16 points; beyond them another seed serves.
        let unit = |dimension: u32| {
            let seed = seed.wrapping_add(dimension / 256).wrapping_add((index >> 16) << 8);
            f64::from(sobol_burley::sample(index & 0xffff, dimension % 256, seed))
        };
        self.at_units((0_u32..).take(self.len()).map(unit))
    }

    /// A point near another, `MOVED` coordinates changed on average: numbers by a normal step of deviation `reach`, but at
    /// least to the next whole number, categories to any.
    pub(super) fn near(&self, x: &[f64], reach: f64, stream: &mut Stream) -> Vec<f64> {
        let d = x.len();
        let always = stream.below(d as u64);
        let mut moved = x.to_vec();
        for (j, kind) in self.kinds.iter().enumerate() {
            let drawn = stream.unit() < MOVED / d as f64;
            if !drawn && j as u64 != always {
                continue;
            }
            moved[j] = match *kind {
                Kind::Category(n) => stream.below(n as u64) as f64,
                Kind::Whole(n) => reflect(x[j] + normal::draw(stream) * reach.max(1.0 / n as f64)),
                Kind::Real => reflect(x[j] + normal::draw(stream) * reach),
            };
        }
        self.snap(&mut moved);
        moved
    }

    /// How far apart two points are in the coordinate that differs most; other categories are at 1.
    pub(super) fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        let apart = |((kind, a), b): ((&Kind, &f64), &f64)| {
            if kind.is_number() { (a - b).abs() } else { (a - b).abs().min(1.0) }
        };
        self.kinds.iter().zip(a).zip(b).map(apart).fold(0.0, f64::max)
    }
}

/// What leaves the unit interval comes back from its end.
fn reflect(u: f64) -> f64 {
    let u = u.abs();
    if u > 1.0 { (2.0 - u).max(0.0) } else { u }
}

fn value(range: &Range, kind: Kind, x: f64) -> Value {
    match kind {
        Kind::Category(n) => Value::Category(category(x, n)),
        _ => scale::at(range, x),
    }
}

fn category(x: f64, n: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    (x as usize).min(n.saturating_sub(1))
}
