//! Bayesian search: a Gaussian process says what to expect of any point, and the most promising one is tried.
//!
//! 1. The first trials, two more than there are coordinates, are quasi-random.
//! 2. Then objective values become targets (`targets`), the process is fitted to them (`fit`, `kernel`) and conditioned
//!    (`gp`), and the point of the lowest confidence bound is looked for (`maximise`).
//!
//! Pending trials count as if they had come to what the model expects of them: nobody learns from that, but the deviation
//! there falls, and the next suggestion goes elsewhere (Desautels et al., Parallelizing Exploration-Exploitation Tradeoffs
//! in Gaussian Process Bandit Optimization, 2014, section 4). Failed trials count as no better than the average.
//!
//! Invariant: a function of the study and the ordinal alone; the work of one suggestion is bounded whatever the history.

mod fit;
mod gp;
mod kernel;
mod matrix;
mod maximise;
mod minimise;
mod targets;

use crate::domain::status::Direction;
use crate::search::each::suggest_each;
use crate::search::features::Features;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::{Study, Suggestions, TrialState};
use fit::Fit;
use gp::Gp;
use maximise::Surface;

/// Trials with a value before there is a model.
const LEAST: usize = 3;
/// Observations that parameters are fitted to, and those that the model is conditioned on; beyond it a selection serves.
const MOST_FITTED: usize = 128;
const MOST_CONDITIONED: usize = 500;
/// Deviations of optimism, β.
const OPTIMISM: f64 = 1.8;
/// Best trials that are looked around.
const BEST: usize = 5;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    let features = Features::of(&study.space);
    let model = Model::of(study, &features);
    suggest_each(study, first_ordinal, n, |ordinal, taken, stream| {
        if features.len() == 0 {
            return None;
        }
        let x = match &model {
            Some(model) if ordinal as usize > features.len() + 2 => model.propose(study, taken, stream)?,
            _ => features.sobol_point(ordinal - 1, study.seed),
        };
        Some(features.decode(&x))
    })
}

/// What the trials that are over say.
struct Model<'a> {
    features: &'a Features<'a>,
    points: Vec<Vec<f64>>,
    y: Vec<f64>,
    fit: Fit,
    gp: Gp,
}

impl<'a> Model<'a> {
    /// `None` while there is too little to learn from.
    fn of(study: &Study, features: &'a Features<'a>) -> Option<Self> {
        let sign = if study.direction == Direction::Minimize { 1.0 } else { -1.0 };
        let told = study.in_order().into_iter().filter_map(|t| Some((features.encode(&t.values), sign * t.value?)));
        let (points, values): (Vec<_>, Vec<_>) = told.unzip();
        if points.len() < LEAST || features.len() == 0 {
            return None;
        }
        let y = targets::targets(&values);
        let (points, y) = select(&points, &y, MOST_CONDITIONED);
        let fit = {
            let (points, y) = select(&points, &y, MOST_FITTED);
            fit::fit(&features.kinds, &points, &y)?
        };
        let gp = Gp::condition(fit.kernel.clone(), fit.noise, &points, &y)?;
        Some(Self { features, points, y, fit, gp })
    }

    fn propose(&self, study: &Study, taken: &Taken, stream: &mut Stream) -> Option<Vec<f64>> {
        let gp = self.with_unknown(study, taken)?;
        let means: Vec<f64> = self.gp.predict(&self.points).iter().map(|p| p.mean).collect();
        let mut order: Vec<usize> = (0..means.len()).collect();
        order.sort_by(|a, b| means[*a].total_cmp(&means[*b]));
        let best: Vec<&[f64]> = order.iter().take(BEST).map(|i| self.points[*i].as_slice()).collect();
        let is_free = |x: &[f64]| !taken.contains(&self.features.decode(x));
        let surface = Surface { features: self.features, gp: &gp, optimism: OPTIMISM, is_free: &is_free };
        surface.maximise(&best, stream)
    }

    /// The model with the trials that are pending or have failed, too.
    fn with_unknown(&self, study: &Study, taken: &Taken) -> Option<Gp> {
        let unknown = study.in_order().into_iter().filter(|t| t.value.is_none());
        let (mut points, mut failed): (Vec<_>, Vec<_>) =
            unknown.map(|t| (self.features.encode(&t.values), t.state != TrialState::Pending)).unzip();
        points.extend(taken.suggested.iter().map(|values| self.features.encode(values)));
        failed.resize(points.len(), false);
        // The latest ones, should there be very many.
        let skipped = points.len().saturating_sub(MOST_CONDITIONED);
        let (points, failed) = (&points[skipped..], &failed[skipped..]);
        let expected = self.gp.predict(points).into_iter().zip(failed);
        // Targets have mean 0.
        let y = expected.map(|(p, failed)| if *failed { p.mean.max(0.0) } else { p.mean });
        let y: Vec<f64> = self.y.iter().copied().chain(y).collect();
        let points: Vec<Vec<f64>> = self.points.iter().chain(points).cloned().collect();
        Gp::condition(self.fit.kernel.clone(), self.fit.noise, &points, &y)
    }
}

/// At most so many observations, in their order: one half are the best, the other half are spread evenly over the rest.
fn select(points: &[Vec<f64>], y: &[f64], most: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
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
