//! Bayesian search: a Gaussian process says what to expect of any point, and the most promising one is tried.
//!
//! 1. The first trials, two more than there are coordinates, are quasi-random.
//! 2. Then results become targets (`targets`), the process is fitted to them (`fit`, `kernel`) and conditioned (`gp`,
//!    `model`), and the point of the lowest confidence bound is looked for (`maximise`).
//! 3. Parents' results join as the study's own (`IdenticalDataAndAlgorithm`), or they guide it from the first trial on as
//!    far as its own results bear them out (`TransferLearning`, see `transfer`): a parent that misleads costs the few trials
//!    that show it.
//!
//! Pending trials count as if they had come to what the model expects of them: nobody learns from that, but the deviation
//! there falls, and the next suggestion goes elsewhere (Desautels et al., Parallelizing Exploration-Exploitation Tradeoffs
//! in Gaussian Process Bandit Optimization, 2014, section 4). So trials in parallel explore by themselves, the more the
//! less is known, and the bound is of fewer deviations for them while results are few, of more once they are many
//! (`optimism`). Failed trials count as no better than the average.
//!
//! Invariant: a function of the study and the ordinal alone; the work of one suggestion is bounded whatever the history.

mod fit;
mod gp;
mod kernel;
mod matrix;
mod maximise;
mod minimise;
mod model;
mod transfer;

use crate::domain::status::WarmStart;
use crate::search::each::suggest_each;
use crate::search::features::Features;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::targets::targets;
use crate::search::{Study, Suggestions, TrialState};
use fit::Coordinates;
use maximise::Surface;
use model::{LEAST, Model};
use transfer::Surrogate;

/// Results that a model is conditioned on at most.
const MOST: usize = 500;
/// Deviations of optimism, β. Where others are pending, so many after `TYPICAL` results, fewer before, more after them, and
/// the same from `MANY` on.
const OPTIMISM: f64 = 1.8;
const TYPICAL: f64 = 30.0;
const GROWTH: f64 = 0.3;
const MANY: usize = 100;
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
    model: Option<Model>,
    /// Whether the model is of the parents, too.
    joint: bool,
    /// Points to look around: the best of the study, and of parents that guide.
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
            Some(WarmStart::TransferLearning) => guides.extend(parents.filter(|(points, _)| points.len() >= LEAST)),
            None => {}
        }
        let own = Coordinates { kinds: &features.kinds, studies: false };
        let y = targets(&losses);
        let mut best = best(&points, &y);
        let own = Model::of(own, &points, &y, MOST);
        let results = (points, losses);
        let joint = transfer::joint(features, &results, own.as_ref(), &guides);
        let has_guides = joint.is_some();
        if has_guides {
            best.extend(guides.iter().flat_map(|(points, losses)| self::best(points, losses)));
        }
        Self { features, model: joint.or(own), joint: has_guides, best, results: results.0.len() }
    }

    /// Whether a trial is for the model: not the first ones, unless parents are known to help.
    fn is_enough(&self, ordinal: u32) -> bool {
        self.joint || self.results >= LEAST && self.results.max(ordinal as usize) > start(self.features)
    }

    fn propose(&self, study: &Study, taken: &Taken, stream: &mut Stream) -> Option<Vec<f64>> {
        let (points, failed) = self.unknown(study, taken);
        let points = if self.joint { transfer::own(points) } else { points };
        // Targets have mean 0.
        let gp = self.model.as_ref()?.believing(&points, |i, at| if failed[i] { at.mean.max(0.0) } else { at.mean })?;
        let is_alone = failed.iter().all(|failed| *failed);
        let surrogate = Surrogate { gp, joint: self.joint };
        most_promising(self.features, &surrogate, self.optimism(is_alone), &self.best, taken, stream)
    }

    /// β. How many trials are pending does not enter, and the first of several suggestions at once is alone. In a joint
    /// model are its parents' results, too, and the study's own do not say how much is known.
    fn optimism(&self, is_alone: bool) -> f64 {
        if is_alone || self.joint {
            return OPTIMISM;
        }
        OPTIMISM * libm::pow(self.results.clamp(LEAST, MANY) as f64 / TYPICAL, GROWTH)
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

/// What targets of someone else's making let one expect of other points.
pub(super) struct Expectation {
    model: Model,
    /// Points to look around.
    best: Vec<Vec<f64>>,
}

impl Expectation {
    /// Of the targets at some points, of which at most so many serve; `None` where no process fits them.
    pub(super) fn of(features: &Features, points: &[Vec<f64>], targets: &[f64], most: usize) -> Option<Self> {
        let of = Coordinates { kinds: &features.kinds, studies: false };
        Some(Self { model: Model::of(of, points, targets, most)?, best: best(points, targets) })
    }

    /// Mean and deviation at each point, without the noise.
    pub(super) fn at(&self, points: &[Vec<f64>]) -> impl Iterator<Item = (f64, f64)> {
        self.model.gp.predict(points).into_iter().map(|p| (p.mean, p.variance.sqrt()))
    }

    /// The free point of the lowest confidence bound; points whose target is `unknown` are believed to come to what is
    /// expected of them.
    pub(super) fn most_promising(
        &self,
        features: &Features,
        unknown: &[Vec<f64>],
        taken: &Taken,
        stream: &mut Stream,
    ) -> Option<Vec<f64>> {
        let gp = self.model.believing(unknown, |_, at| at.mean)?;
        most_promising(features, &Surrogate { gp, joint: false }, OPTIMISM, &self.best, taken, stream)
    }
}

/// The free point of the lowest confidence bound, looked for around the best points and everywhere.
fn most_promising(
    features: &Features,
    model: &Surrogate,
    optimism: f64,
    best: &[Vec<f64>],
    taken: &Taken,
    stream: &mut Stream,
) -> Option<Vec<f64>> {
    let is_free = |x: &[f64]| !taken.contains(&features.decode(x));
    Surface { features, model, optimism, is_free: &is_free }.maximise(best, stream)
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
    let told = study.results().filter_map(|(t, _)| Some((translate(&t.values)?, child.direction.loss(t.value?))));
    told.unzip()
}

/// The points of the lowest targets, lowest first.
fn best(points: &[Vec<f64>], y: &[f64]) -> Vec<Vec<f64>> {
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|a, b| y[*a].total_cmp(&y[*b]));
    order.into_iter().take(BEST).map(|i| points[i].clone()).collect()
}
