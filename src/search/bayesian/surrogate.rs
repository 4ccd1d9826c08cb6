//! The study's model with what its parents know.
//!
//! | symbol  | meaning                                                                     | shape |
//! |---------|-----------------------------------------------------------------------------|-------|
//! | y       | the study's own targets                                                     | n     |
//! | h       | a parent's mean at the study's own points, or anywhere                      | n     |
//! | b       | how far that parent is believed, at least 0                                 |       |
//! | g       | a Gaussian process of the residual y - Σ b h                                |       |
//! | K, P    | the kernel of the priors' modes at the own points, and K⁻¹ with the mean taken out | n x n |
//! | μ, v    | mean of g + Σ b h, variance of g                                            |       |
//!
//! b is a generalised least squares estimate shrunk towards 0, b = hᵀ P y / (hᵀ P h + 1), so that many results near each
//! other count as few; the parent that explains most comes first, the next explains what is left. A parent whose order
//! has nothing to do with the study's gets b near 0, and g is what it would have been without it.
//!
//! Invariant: without parents the surrogate is g of the targets themselves.
//!
//! The residual model is that of Golovin et al., Google Vizier (2017), section 3.3; the estimate: Rasmussen and Williams,
//! Gaussian Processes for Machine Learning (2006), eq. 2.42.

use crate::search::bayesian::gp::{Gp, Gradient, Prediction};
use crate::search::bayesian::matrix::{add_scaled, dot};

/// A parent that explains less of the study's results than this is left out.
const LEAST_EXPLAINED: f64 = 0.5;

/// g, and the parents with their b.
pub(super) struct Surrogate<'a> {
    pub(super) own: Gp,
    pub(super) parents: &'a [(f64, Gp)],
}

impl Surrogate<'_> {
    /// μ and v at each point.
    pub(super) fn predict(&self, points: &[Vec<f64>]) -> Vec<Prediction> {
        let mut predictions = self.own.predict(points);
        for (p, offset) in predictions.iter_mut().zip(offsets(self.parents, points)) {
            p.mean += offset;
        }
        predictions
    }

    /// μ and v at a point with their gradients.
    pub(super) fn predict_gradient(&self, x: &[f64]) -> Gradient {
        let mut gradient = self.own.predict_gradient(x);
        for (b, parent) in self.parents {
            let parent = parent.predict_gradient(x);
            gradient.at.mean += b * parent.at.mean;
            add_scaled(&mut gradient.mean, *b, &parent.mean);
        }
        gradient
    }
}

/// Σ b h at each point.
pub(super) fn offsets(parents: &[(f64, Gp)], points: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; points.len()];
    for (b, parent) in parents {
        for (sum, p) in sum.iter_mut().zip(parent.predict(points)) {
            *sum += b * p.mean;
        }
    }
    sum
}

/// The parents that the study's own targets bear out, with their b. `prior` is conditioned at `points`, on anything.
pub(super) fn believe(prior: &Gp, points: &[Vec<f64>], y: &[f64], parents: Vec<Gp>) -> Vec<(f64, Gp)> {
    let mut left = y.to_vec();
    let mut candidates: Vec<(Vec<f64>, Gp)> =
        parents.into_iter().map(|gp| (gp.predict(points).iter().map(|p| p.mean).collect(), gp)).collect();
    let mut believed = Vec::new();
    while !candidates.is_empty() {
        let weighed = prior.weights_of(&left);
        // The estimate and what it explains, for each parent.
        let fits = candidates.iter().map(|(h, _)| {
            let b = dot(h, &weighed) / (dot(h, &prior.weights_of(h)) + 1.0);
            (b, b * dot(h, &weighed))
        });
        let best = fits.enumerate().filter(|(_, (b, _))| *b > 0.0).max_by(|x, y| x.1.1.total_cmp(&y.1.1));
        let Some((index, (b, _))) = best.filter(|(_, (_, explained))| *explained > LEAST_EXPLAINED) else { break };
        let (h, gp) = candidates.swap_remove(index);
        add_scaled(&mut left, -b, &h);
        believed.push((b, gp));
    }
    believed
}
