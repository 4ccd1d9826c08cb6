//! Bayesian search: a Gaussian process says what to expect of any point, and the most promising one is tried.
//!
//! 1. The first trials, two more than there are coordinates, are quasi-random.
//! 2. Then results become targets (`targets`), the process is fitted to them (`fit`, `kernel`) and conditioned (`gp`,
//!    `model`), and the point of the lowest confidence bound is looked for (`maximise`).
//! 3. Parents' results join as the study's own (`IdenticalDataAndAlgorithm`), or they guide every other one of the first
//!    trials as far as the study's own results bear them out (`TransferLearning`, see `surrogate`): what was good for a
//!    parent is tried early and then counts for what it came to here, and one that misleads costs no more than these.
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
mod model;
mod surrogate;

use crate::domain::status::WarmStart;
use crate::search::each::suggest_each;
use crate::search::features::Features;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::targets::targets;
use crate::search::{Study, Suggestions, TrialState};
use gp::Gp;
use maximise::Surface;
use model::{LEAST, Model};
use surrogate::Surrogate;

/// Results that a model is conditioned on at most, and those of each parent that is another study.
const MOST: usize = 500;
const MOST_OF_PARENT: usize = 100;
/// Deviations of optimism, β.
const OPTIMISM: f64 = 1.8;
/// Best trials that are looked around.
const BEST: usize = 5;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    let features = Features::of(&study.space);
    let knowledge = Knowledge::of(study, &features);
    suggest_each(study, first_ordinal, n, |ordinal, taken, stream| {
        if features.len() == 0 {
            return None;
        }
        let x = if knowledge.is_enough(ordinal) {
            knowledge.propose(study, taken, stream)?
        } else {
            features.sobol_point(ordinal.saturating_sub(1), study.seed)
        };
        Some(features.decode(&x))
    })
}

/// Points and their losses.
type Results = (Vec<Vec<f64>>, Vec<f64>);

/// What the trials that are over say, the parents' too.
struct Knowledge<'a> {
    features: &'a Features<'a>,
    /// The study's own results, less what the parents explain of them.
    model: Option<Model>,
    parents: Vec<(f64, Gp)>,
    /// Points to look around: the best of the study, and of the parents while it has few.
    best: Vec<Vec<f64>>,
    /// How many results are as good as the study's own.
    results: usize,
}

impl<'a> Knowledge<'a> {
    fn of(study: &Study, features: &'a Features<'a>) -> Self {
        let (mut points, mut losses) = results(study, study, features);
        let parents = study.parents.iter().map(|parent| results(parent, study, features));
        let mut guides = Vec::new();
        match study.warm_start {
            Some(WarmStart::IdenticalDataAndAlgorithm) => {
                for (parent_points, parent_losses) in parents {
                    points.extend(parent_points);
                    losses.extend(parent_losses);
                }
            }
            Some(WarmStart::TransferLearning) if points.len() < start(features) => {
                guides.extend(parents.filter(|(points, _)| points.len() >= LEAST));
            }
            _ => {}
        }
        let y = targets(&losses);
        let mut best = best(&points, &y);
        best.extend(guides.iter().flat_map(|(points, losses)| self::best(points, losses)));
        let parents = parents_of(features, &points, &y, &guides);
        let offsets = surrogate::offsets(&parents, &points);
        let residual: Vec<f64> = y.iter().zip(&offsets).map(|(y, offset)| y - offset).collect();
        let model = Model::of(features, &points, &residual, MOST);
        Self { features, model, parents, best, results: points.len() }
    }

    /// Whether a trial is for the model: not the first ones, and of those every other one where parents guide.
    fn is_enough(&self, ordinal: u32) -> bool {
        if !self.parents.is_empty() && ordinal % 2 == 1 {
            return true;
        }
        self.results >= LEAST && self.results.max(ordinal as usize) > start(self.features)
    }

    fn propose(&self, study: &Study, taken: &Taken, stream: &mut Stream) -> Option<Vec<f64>> {
        let (points, failed) = self.unknown(study, taken);
        let own = self.model.as_ref()?.believing(&points, &failed)?;
        let model = Surrogate { own, parents: &self.parents };
        let is_free = |x: &[f64]| !taken.contains(&self.features.decode(x));
        let surface = Surface { features: self.features, model: &model, optimism: OPTIMISM, is_free: &is_free };
        surface.maximise(&self.best, stream)
    }

    /// Points without a result, and which of them failed.
    fn unknown(&self, study: &Study, taken: &Taken) -> (Vec<Vec<f64>>, Vec<bool>) {
        let unknown = study.in_order().into_iter().filter(|t| t.value.is_none());
        let (mut points, mut failed): (Vec<_>, Vec<_>) =
            unknown.map(|t| (self.features.encode(&t.values), t.state != TrialState::Pending)).unzip();
        points.extend(taken.suggested.iter().map(|values| self.features.encode(values)));
        failed.resize(points.len(), false);
        // The latest ones, should there be very many.
        let skipped = points.len().saturating_sub(MOST);
        (points.split_off(skipped), failed.split_off(skipped))
    }
}

/// What results let one expect of other points, for a verdict on the search as a whole.
pub(super) struct Expectation(Gp);

impl Expectation {
    /// Of the targets at some points, of which at most so many serve; `None` where no process fits them.
    pub(super) fn of(features: &Features, points: &[Vec<f64>], targets: &[f64], most: usize) -> Option<Self> {
        Some(Self(Model::of(features, points, targets, most)?.gp))
    }

    /// Mean and deviation at each point, without the noise.
    pub(super) fn at(&self, points: &[Vec<f64>]) -> impl Iterator<Item = (f64, f64)> {
        self.0.predict(points).into_iter().map(|p| (p.mean, p.variance.sqrt()))
    }
}

/// How many trials there are before the study's own results are all that counts.
fn start(features: &Features) -> usize {
    features.len() + 2
}

/// A study's results at points of the child's space, those outside of it left out.
fn results(study: &Study, child: &Study, features: &Features) -> Results {
    let translate = |values: &[_]| {
        if std::ptr::eq(study, child) {
            return Some(features.encode(values));
        }
        Some(features.encode(&child.space.read(&study.space.format(values))?))
    };
    let told =
        study.in_order().into_iter().filter_map(|t| Some((translate(&t.values)?, study.direction.loss(t.value?))));
    told.unzip()
}

/// The points of the lowest targets, lowest first.
fn best(points: &[Vec<f64>], y: &[f64]) -> Vec<Vec<f64>> {
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|a, b| y[*a].total_cmp(&y[*b]));
    order.into_iter().take(BEST).map(|i| points[i].clone()).collect()
}

/// The parents' models, each with how far it is believed: all alike while the study has hardly results of its own.
fn parents_of(features: &Features, points: &[Vec<f64>], y: &[f64], guides: &[Results]) -> Vec<(f64, Gp)> {
    if guides.is_empty() {
        return Vec::new();
    }
    let models = guides
        .iter()
        .filter_map(|(points, losses)| Some(Model::of(features, points, &targets(losses), MOST_OF_PARENT)?.gp));
    let models: Vec<Gp> = models.collect();
    if points.len() < LEAST {
        let share = 1.0 / models.len() as f64;
        return models.into_iter().map(|gp| (share, gp)).collect();
    }
    let prior = fit::prior(&features.kinds);
    let recent = points.len().saturating_sub(MOST);
    match Gp::condition(prior.kernel, prior.noise, &points[recent..], &y[recent..]) {
        Some(prior) => surrogate::believe(&prior, &points[recent..], &y[recent..], models),
        None => Vec::new(),
    }
}
