//! A study's model that learns from parents without believing them.
//!
//! One process is conditioned on the results of all, each with a further coordinate that says which study it is from. How
//! much two studies have in common, the length scale of that coordinate, is fitted with the rest: what a parent knows
//! counts as far as its values go along with the study's own, and its certainty counts as well as its mean.
//!
//! Values of all are made targets together: of one metric, they are of one scale. A parent whose values are not makes the
//! joint process a bad one, and then the study's own serves: whichever of the two orders the study's own results better,
//! each expected by all the others.
//!
//! Invariant: without parents, or with parents that its own first results show to mislead, the surrogate is the study's own
//! process.
//!
//! The kernel: Swersky, Snoek and Adams, Multi-Task Bayesian Optimization (2013), section 3.1, with one correlation for all
//! parents; the choice by the order of results left out: Feurer et al., Practical Transfer Learning for Bayesian
//! Optimization (2018), section 3.

use crate::search::bayesian::Results;
use crate::search::bayesian::fit::Coordinates;
use crate::search::bayesian::gp::{Gp, Gradient, Prediction};
use crate::search::bayesian::model::{LEAST, Model, select};
use crate::search::features::Features;
use crate::search::targets::targets;

/// Results of all parents that serve, and results of the study's own from which on parents do not.
const MOST_OF_PARENTS: usize = 100;
const MOST_OWN: usize = 100;

/// A process over a study's coordinates, or one over all studies' as seen from the study itself.
pub(super) struct Surrogate {
    pub(super) gp: Gp,
    pub(super) joint: bool,
}

impl Surrogate {
    /// Mean and variance at each point.
    pub(super) fn predict(&self, points: &[Vec<f64>]) -> Vec<Prediction> {
        if self.joint { self.gp.predict(&own(points.to_vec())) } else { self.gp.predict(points) }
    }

    /// Mean and variance at a point with their gradients.
    pub(super) fn predict_gradient(&self, x: &[f64]) -> Gradient {
        if !self.joint {
            return self.gp.predict_gradient(x);
        }
        let mut gradient = self.gp.predict_gradient(&of_study(x.to_vec(), 0));
        gradient.mean.truncate(x.len());
        gradient.variance.truncate(x.len());
        gradient
    }
}

/// Points as the study's own.
pub(super) fn own(points: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    points.into_iter().map(|x| of_study(x, 0)).collect()
}

fn of_study(mut x: Vec<f64>, study: usize) -> Vec<f64> {
    x.push(study as f64);
    x
}

/// The joint model, where it is better than the study's `own`.
pub(super) fn joint(features: &Features, results: &Results, own: Option<&Model>, parents: &[Results]) -> Option<Model> {
    let n = results.0.len();
    if parents.is_empty() || n > MOST_OWN {
        return None;
    }
    let mut points = self::own(results.0.clone());
    let mut losses = results.1.clone();
    for (study, (parent_points, parent_losses)) in (1..).zip(parents) {
        let (chosen, chosen_losses) = select(parent_points, parent_losses, MOST_OF_PARENTS / parents.len());
        points.extend(chosen.into_iter().map(|x| of_study(x, study)));
        losses.extend(chosen_losses);
    }
    let of = Coordinates { kinds: &features.kinds, studies: true };
    let joint = Model::of(of, &points, &targets(&losses), points.len())?;
    let better = n < LEAST || own.is_none_or(|own| joint.misorders(n) <= own.misorders(n));
    better.then_some(joint)
}

#[cfg(test)]
mod tests {
    use super::joint;
    use crate::domain::space::{Parameter, Range, Space};
    use crate::domain::status::Scaling;
    use crate::search::bayesian::fit::Coordinates;
    use crate::search::bayesian::model::Model;
    use crate::search::features::Features;
    use crate::search::targets::targets;

    fn bowl(x: &[f64]) -> f64 {
        (x[0] - 0.3).powi(2) + (x[1] - 0.6).powi(2)
    }

    /// Whether a parent with 30 results serves a study that has 8.
    fn serves(parent: impl Fn(&[f64]) -> f64) -> bool {
        let range = Range::Continuous { min: 0.0, max: 1.0, scaling: Scaling::Linear };
        let parameters = ["x", "y"].map(|name| Parameter { name: name.to_owned(), range: range.clone() });
        let space = Space { parameters: parameters.to_vec() };
        let features = Features::of(&space);
        let points = |n: u32, seed| (0..n).map(|i| features.sobol_point(i, seed)).collect::<Vec<_>>();
        let (own, theirs) = (points(8, 1), points(30, 2));
        let losses: Vec<f64> = own.iter().map(|x| bowl(x)).collect();
        let model =
            Model::of(Coordinates { kinds: &features.kinds, studies: false }, &own, &targets(&losses), own.len());
        let parent_losses = theirs.iter().map(|x| parent(x)).collect();
        joint(&features, &(own, losses), model.as_ref(), &[(theirs, parent_losses)]).is_some()
    }

    #[test]
    fn a_parent_serves_while_the_study_bears_it_out() {
        assert!(serves(bowl));
        assert!(serves(|x| bowl(&[x[0] + 0.1, x[1]]) + 0.2));
        assert!(!serves(|x| (40.0 * x[0]).sin() * 1e6));
    }
}
