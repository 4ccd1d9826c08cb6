//! A study's results as a Gaussian process over the child's coordinates.
//!
//! Invariant: the work is bounded by `MOST_FITTED` and the `most` of `Model::of`, whatever the history.

use crate::search::bayesian::fit::{self, Coordinates, Fit};
use crate::search::bayesian::gp::{Gp, Prediction};

/// Results before there is a fit.
pub(super) const LEAST: usize = 3;
/// Results that the parameters are fitted to; beyond it a selection serves.
const MOST_FITTED: usize = 128;

/// A process and what it was conditioned on.
pub(super) struct Model {
    points: Vec<Vec<f64>>,
    y: Vec<f64>,
    fit: Fit,
    pub(super) gp: Gp,
}

impl Model {
    /// The model of targets `y` at `points`, of which the better ones are preferred where they are more than `most`.
    /// With fewer than `LEAST` the priors serve.
    pub(super) fn of(of: Coordinates, points: &[Vec<f64>], y: &[f64], most: usize) -> Option<Self> {
        let (points, y) = select(points, y, most);
        let fit = if points.len() < LEAST {
            fit::prior(of)
        } else {
            let (points, y) = select(&points, &y, MOST_FITTED);
            fit::fit(of, &points, &y)?
        };
        let gp = Gp::condition(fit.kernel.clone(), fit.noise, &points, &y)?;
        Some(Self { points, y, fit, gp })
    }

    /// How many pairs of the first `n` results, the first of each expected by all the others, are not in their order.
    pub(super) fn misorders(&self, n: usize) -> usize {
        let y = &self.y[..n];
        let wrong = |(expected, at): (&f64, &f64)| y.iter().filter(|y| (expected < *y) != (at < *y)).count();
        self.gp.left_out(&self.y).iter().zip(y).map(wrong).sum()
    }

    /// The process as if each of `points` had come to what `believed` makes of its index and of what is expected there.
    pub(super) fn believing(&self, points: &[Vec<f64>], believed: impl Fn(usize, Prediction) -> f64) -> Option<Gp> {
        if points.is_empty() {
            return Some(self.gp.clone());
        }
        let believed = self.gp.predict(points).into_iter().enumerate().map(|(i, at)| believed(i, at));
        let y: Vec<f64> = self.y.iter().copied().chain(believed).collect();
        let points: Vec<Vec<f64>> = self.points.iter().chain(points).cloned().collect();
        Gp::condition(self.fit.kernel.clone(), self.fit.noise, &points, &y)
    }
}

/// At most so many results, in their order: one half are the best, the other half are spread evenly over the rest.
pub(super) fn select(points: &[Vec<f64>], y: &[f64], most: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let mut chosen: Vec<usize> = (0..y.len()).collect();
    if y.len() > most {
        chosen.sort_by(|a, b| y[*a].total_cmp(&y[*b]));
        let mut rest = chosen.split_off(most / 2);
        rest.sort_unstable();
        let others = most - chosen.len();
        chosen.extend((0..others).map(|i| rest[i * rest.len() / others]));
        chosen.sort_unstable();
    }
    chosen.into_iter().map(|i| (points[i].clone(), y[i])).unzip()
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn a_selection_has_the_best_and_some_of_the_rest_in_order() {
        let points: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i)]).collect();
        let y: Vec<f64> = (0..100).map(|i| f64::from((i + 50) % 100)).collect();
        let (chosen, chosen_y) = select(&points, &y, 20);
        assert_eq!(chosen.len(), 20);
        assert_eq!(chosen_y.iter().filter(|y| **y < 10.0).count(), 10);
        assert!(chosen.is_sorted_by(|a, b| a[0] < b[0]));
        assert_eq!(select(&points, &y, 100).1, y);
    }
}
