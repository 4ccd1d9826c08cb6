//! What to try next: the point that promises most by one of two models of how all trials stand.
//!
//! Invariant: a proposal is a function of the study's seed, the ordinal, and the trials; it is no point that is taken.
//! The models are behind [`Proposer::propose`] alone: others change nothing elsewhere.
//!
//! | symbol | here        | meaning                                                                |
//! |--------|-------------|------------------------------------------------------------------------|
//! | s      | `standings` | shares of the trials that stand better, from all levels                |
//! | z      | `targets`   | Φ⁻¹(s): as far apart as they would be, were the trials' quality normal |
//! | μ, σ   | `model`     | mean and deviation of z at a point, by the process of Bayesian search  |
//!
//! The first trials, until `start` of them stand, are quasi-random: where the least that a trial may use is small, many
//! are seen for the price of one that runs in full. Then the point of the process's lowest confidence bound is tried. Once
//! `FEW` trials ran in full, every other point is by a forest (`by_forest`): the process is the sooner at a good region, but
//! in the long run it keeps to what it knows, and the forest finds what is narrow or depends on categories. A share `EXPLORE`
//! is random, so that no region is given up for what some early epochs said. What has not reported is believed to come to
//! what the process expects of it, which keeps parallel proposals apart.
//!
//! A Gaussian process over asynchronous halving: Klein et al., "Model-based Asynchronous Hyperparameter and Neural
//! Architecture Search" (2020), here over ranks in the place of values by level.

use crate::domain::space::Value;
use crate::search::bayesian::Expectation;
use crate::search::features::Features;
use crate::search::hyperband::by_forest::ByForest;
use crate::search::hyperband::standing::standings;
use crate::search::normal;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::targets::targets;
use crate::search::{Study, TrialState};

/// Trials with a standing before there is a model: at most, and in terms of how many least resources a full trial uses.
const MOST_START: u32 = 40;
const START_SHARE: f64 = 1.5;
/// Trials that the model is of at most; the better ones are preferred.
const MOST: usize = 500;
/// Trials in full before the forest has its turns.
const FEW: usize = 10;
/// The share of random draws after the start.
const EXPLORE: f64 = 0.1;

/// What a study teaches, ready to propose from.
pub(super) struct Proposer<'a> {
    seed: u64,
    features: Features<'a>,
    /// Whether the start is over.
    is_started: bool,
    model: Option<Expectation>,
    forest: Option<ByForest>,
    /// Points of trials that have said nothing yet.
    silent: Vec<Vec<f64>>,
}

impl<'a> Proposer<'a> {
    /// Learns from a study.
    pub(super) fn of(study: &'a Study) -> Self {
        let features = Features::of(&study.space);
        let standings = standings(study);
        let is_started = standings.len() >= start(study, &features);
        let points: Vec<Vec<f64>> = standings.iter().map(|(trial, _)| features.encode(&trial.values)).collect();
        let shares: Vec<f64> = standings.iter().map(|(_, standing)| *standing).collect();
        let z: Vec<f64> = shares.iter().map(|share| normal::quantile(*share)).collect();
        let model = is_started.then(|| Expectation::of(&features, &points, &targets(&z), MOST)).flatten();
        let in_full = study.trials.iter().filter(|trial| trial.state == TrialState::Completed).count();
        let forest = (is_started && in_full >= FEW).then(|| ByForest::of(&points, &shares)).flatten();
        let is_silent = |ordinal: u32| standings.binary_search_by_key(&ordinal, |(seen, _)| seen.ordinal).is_err();
        let silent = study.in_order().into_iter().filter(|trial| is_silent(trial.ordinal));
        let silent = silent.map(|trial| features.encode(&trial.values)).collect();
        Self { seed: study.seed, features, is_started, model, forest, silent }
    }

    /// A point to try; `None` where one had better be drawn.
    pub(super) fn propose(&self, ordinal: u32, taken: &Taken, stream: &mut Stream) -> Option<Vec<Value>> {
        if self.features.len() == 0 {
            return None;
        }
        if !self.is_started {
            return Some(self.features.decode(&self.features.sobol_point(ordinal.saturating_sub(1), self.seed)));
        }
        if stream.unit() < EXPLORE {
            return None;
        }
        let asked = taken.suggested.iter().map(|point| self.features.encode(point));
        let unknown: Vec<Vec<f64>> = self.silent.iter().cloned().chain(asked).collect();
        // The latest ones, should there be very many.
        let unknown = &unknown[unknown.len().saturating_sub(MOST)..];
        if let Some(forest) = self.forest.as_ref().filter(|_| ordinal.is_multiple_of(2)) {
            return forest.propose(&self.features, unknown, taken, stream);
        }
        let x = self.model.as_ref()?.most_promising(&self.features, unknown, taken, stream)?;
        Some(self.features.decode(&x))
    }
}

/// How many trials stand before there is a model: no more than a quarter of the budget, no fewer than a model needs.
fn start(study: &Study, features: &Features) -> usize {
    let wanted = study.resource.map_or(0.0, |r| START_SHARE * f64::from(r.max) / f64::from(r.min.max(1)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=40")]
    let wanted = wanted.min(f64::from(MOST_START.min(study.budget / 4))) as usize;
    wanted.max(features.len() + 2)
}
