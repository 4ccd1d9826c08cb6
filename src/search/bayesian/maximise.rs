//! The search for the point that the acquisition likes best.
//!
//! | symbol | meaning                                                            |
//! |--------|--------------------------------------------------------------------|
//! | μ, v   | the model's mean and variance at a point (see `transfer`)           |
//! | β      | how many deviations of optimism                                    |
//! | a      | acquisition, β √v - μ: the negative of the lower confidence bound   |
//!
//! Candidates from a quasi-random sequence and from around the best trials are judged first. The best of them are then
//! moved, the real coordinates together along the gradient, whole numbers and categories one at a time.
//!
//! Invariant: what is judged are points of the space as they would be run (`Features::snap`), and none of them is taken. The
//! work is bounded.
//!
//! Srinivas et al., Gaussian Process Optimization in the Bandit Setting (2010), eq. 6.

use crate::search::bayesian::gp::Prediction;
use crate::search::bayesian::minimise::{Steps, minimise};
use crate::search::bayesian::transfer::Surrogate;
use crate::search::features::{Features, Kind};
use crate::search::rng::Stream;

/// Candidates from all over the space.
const EVERYWHERE: u32 = 512;
/// Candidates around each of the best trials.
const AROUND: usize = 40;
/// Deviations of the moves that make them, in turn.
const REACH: [f64; 4] = [0.2, 0.1, 0.05, 0.02];
/// Candidates that are moved on, and how far apart they are at least.
const CLIMBERS: usize = 3;
const APART: f64 = 0.1;
/// Rounds of moves, each of all coordinates, and the gain below which there is no further one.
const ROUNDS: usize = 4;
const LEAST_GAIN: f64 = 1e-4;
/// Gradient steps of a round.
const ASCENT: Steps = Steps { most: 15, first: 0.1, longest: 0.3 };
/// Categories that one round tries of one parameter.
const CATEGORIES: usize = 12;
/// What a coordinate outside the unit interval costs, by its square.
const OUTSIDE: f64 = 50.0;

/// The acquisition over a space.
pub(super) struct Surface<'a> {
    pub(super) features: &'a Features<'a>,
    pub(super) model: &'a Surrogate,
    /// β.
    pub(super) optimism: f64,
    /// Whether a point may be suggested.
    pub(super) is_free: &'a dyn Fn(&[f64]) -> bool,
}

/// A point and its acquisition.
type Judged = (f64, Vec<f64>);

impl Surface<'_> {
    /// The best free point that was met; `None` where none was. `best` are the points to look around.
    pub(super) fn maximise(&self, best: &[Vec<f64>], stream: &mut Stream) -> Option<Vec<f64>> {
        let mut candidates = self.features.sobol(EVERYWHERE, stream);
        for x in best {
            for reach in REACH.iter().cycle().take(AROUND) {
                candidates.push(self.features.near(x, *reach, stream));
            }
        }
        let mut judged = self.judge(candidates);
        judged.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut climbers: Vec<Judged> = Vec::new();
        for candidate in judged {
            if climbers.iter().all(|(_, x)| self.features.distance(x, &candidate.1) > APART) {
                climbers.push(candidate);
            }
            if climbers.len() == CLIMBERS {
                break;
            }
        }
        let tops = climbers.into_iter().map(|climber| self.climb(climber, stream));
        tops.reduce(|a, b| if b.0 > a.0 { b } else { a }).map(|(_, x)| x)
    }

    /// Acquisitions of those points that are free.
    fn judge(&self, mut points: Vec<Vec<f64>>) -> Vec<Judged> {
        points.retain(|x| (self.is_free)(x));
        let values = self.model.predict(&points);
        values.into_iter().map(|p| self.acquisition(p)).zip(points).collect()
    }

    fn acquisition(&self, at: Prediction) -> f64 {
        self.optimism * at.variance.sqrt() - at.mean
    }

    fn climb(&self, mut top: Judged, stream: &mut Stream) -> Judged {
        for _ in 0..ROUNDS {
            let before = top.0;
            for candidate in self.judge(self.single_moves(&top.1, stream)).into_iter().chain(self.ascend(&top.1)) {
                if candidate.0 > top.0 {
                    top = candidate;
                }
            }
            if top.0 - before < LEAST_GAIN {
                break;
            }
        }
        top
    }

    /// Points that differ in one whole number or category.
    fn single_moves(&self, x: &[f64], stream: &mut Stream) -> Vec<Vec<f64>> {
        let mut points = Vec::new();
        let mut push = |j: usize, value: f64| {
            let mut moved = x.to_vec();
            moved[j] = value;
            self.features.snap(&mut moved);
            if moved != x {
                points.push(moved);
            }
        };
        for (j, kind) in self.features.kinds.iter().enumerate() {
            match *kind {
                Kind::Real => {}
                Kind::Whole(n) => {
                    let (step, leap) = (1.0 / n as f64, (1.0 / 30.0_f64).max(1.0 / n as f64));
                    for by in [-3.0 * leap, -2.0 * step, -step, step, 2.0 * step, 3.0 * leap] {
                        push(j, x[j] + by);
                    }
                }
                Kind::Category(n) if n <= CATEGORIES => (0..n).for_each(|category| push(j, category as f64)),
                Kind::Category(n) => (0..CATEGORIES).for_each(|_| push(j, stream.below(n as u64) as f64)),
            }
        }
        points
    }

    /// Follows the gradient over the real coordinates.
    fn ascend(&self, x: &[f64]) -> Vec<Judged> {
        let reals: Vec<usize> = (0..x.len()).filter(|j| self.features.kinds[*j] == Kind::Real).collect();
        if reals.is_empty() {
            return Vec::new();
        }
        let with = |z: &[f64]| {
            let mut moved = x.to_vec();
            for (j, z) in reals.iter().zip(z) {
                moved[*j] = z.clamp(0.0, 1.0);
            }
            moved
        };
        let start: Vec<f64> = reals.iter().map(|j| x[*j]).collect();
        let (z, _) = minimise(&start, &ASCENT, |z, slopes| {
            let gradient = self.model.predict_gradient(&with(z));
            let by_variance = 0.5 * self.optimism / gradient.at.variance.sqrt();
            let mut cost = -self.acquisition(gradient.at);
            for ((slope, j), z) in slopes.iter_mut().zip(&reals).zip(z) {
                let outside = z - z.clamp(0.0, 1.0);
                cost += OUTSIDE * outside * outside;
                *slope = gradient.mean[*j] - by_variance * gradient.variance[*j] + 2.0 * OUTSIDE * outside;
            }
            cost
        });
        self.judge(vec![with(&z)])
    }
}
