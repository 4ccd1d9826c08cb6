//! Rows as the search sees them: the study of a tuning job, as of any point of its recorded history.
//!
//! Invariant: a suggestion is made from (watermark, pending ordinals) and from nothing else, and both are stored with
//! it; `replay` makes it again from the rows. What was over at the watermark is seen with its value and its curve, what
//! was pending without either, however far it had come: how far that was is in no row. Only studies that stop training
//! jobs early have curves at all. What a suggestion is belongs to `search`.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::request::TuningRequest;
use crate::domain::rules::{self, RuleError};
use crate::domain::space::{Space, SpaceError};
use crate::domain::status::{Direction, EarlyStopping, ObjectiveStatus, TrainingStatus};
use crate::scheduler::curves::{Curve, curve};
use crate::search::{Resource, Study, Suggestions, Trial, TrialState, Unsupported, suggest};
use crate::store::rows::{TrainingJob, TuningJob};
use uuid::Uuid;

/// Why a stored tuning job cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The stored request does not read as one.
    #[error("the stored request of tuning job {name} does not parse")]
    Request {
        /// The tuning job.
        name: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The stored ranges do not read as a space.
    #[error("the stored ranges of tuning job {name} do not parse")]
    Space {
        /// The tuning job.
        name: String,
        /// The cause.
        #[source]
        source: SpaceError,
    },
    /// The stored resource limits make no sense.
    #[error("the stored strategy settings of tuning job {name} do not hold")]
    Resource {
        /// The tuning job.
        name: String,
        /// The cause.
        #[source]
        source: RuleError,
    },
    /// A stored suggestion is not of the space.
    #[error("training job {name} holds hyperparameters that are not of its tuning job's ranges")]
    Values {
        /// The training job.
        name: String,
    },
    /// No such strategy in this build.
    #[error(transparent)]
    Strategy(#[from] Unsupported),
}

/// Reads the request of a job from the body that is stored.
pub fn request(job: &TuningJob, body: &str) -> Result<TuningRequest, StudyError> {
    serde_json::from_str(body).map_err(|source| StudyError::Request { name: job.name.clone(), source })
}

/// The study of a job without any trial.
pub fn empty(job: &TuningJob, request: &TuningRequest) -> Result<Study, StudyError> {
    let ranges = request.config.parameter_ranges.clone().unwrap_or_default();
    let space = Space::parse(&ranges).map_err(|source| StudyError::Space { name: job.name.clone(), source })?;
    let resource =
        rules::resource(request).map_err(|source| StudyError::Resource { name: job.name.clone(), source })?;
    Ok(Study {
        space,
        direction: request.config.objective.as_ref().map_or(Direction::Minimize, |o| o.direction),
        strategy: job.strategy,
        seed: job.seed,
        definition: 0,
        budget: job.max_jobs,
        trials: Vec::new(),
        parents: Vec::new(),
        warm_start: None,
        resource: resource.map(|range| Resource { min: *range.start(), max: *range.end() }),
        early_stopping: request.config.early_stopping == Some(EarlyStopping::Auto),
    })
}

/// Whether training jobs may be stopped early, which is when their curves count.
#[must_use]
pub fn stops_early(study: &Study) -> bool {
    study.resource.is_some() || study.early_stopping
}

/// A training job as a trial; `curve` counts only once it is over.
pub fn trial(space: &Space, job: &TrainingJob, curve: Curve) -> Result<Trial, StudyError> {
    let values = space.read(&job.tuned).ok_or_else(|| StudyError::Values { name: job.name.clone() })?;
    let mut trial = Trial { ordinal: job.ordinal, values, state: TrialState::Pending, curve: Vec::new(), value: None };
    if job.observation.is_some() {
        conclude(&mut trial, job.status, (job.objective_status, job.objective_value), curve);
    }
    Ok(trial)
}

/// Gives a trial the end that its training job came to.
pub fn conclude(
    trial: &mut Trial,
    status: TrainingStatus,
    (objective, value): (ObjectiveStatus, Option<f64>),
    curve: Curve,
) {
    trial.state = match status {
        TrainingStatus::Completed => TrialState::Completed,
        TrainingStatus::Stopped => TrialState::Stopped,
        _ => TrialState::Failed,
    };
    let counts = objective == ObjectiveStatus::Succeeded && trial.state != TrialState::Failed;
    trial.value = value.filter(|v| counts && v.is_finite());
    trial.curve = curve;
}

/// The curves of a tuning job's training jobs, by training job; `points` are the numbered values of their objective.
#[must_use]
pub fn curves(study: &Study, points: BTreeMap<Uuid, Vec<(u64, f64)>>) -> BTreeMap<Uuid, Curve> {
    let points = if stops_early(study) { points } else { BTreeMap::new() };
    points.into_iter().map(|(job, points)| (job, curve(points))).collect()
}

/// Suggests again what `job` was given, from the rows of its tuning job and the `body` of its request: the same texts,
/// whatever crashed in between.
/// `points` are the numbered values of the objective, by training job.
pub fn replay(
    tuning: &TuningJob,
    body: &str,
    history: &[TrainingJob],
    points: BTreeMap<Uuid, Vec<(u64, f64)>>,
    job: &TrainingJob,
) -> Result<BTreeMap<String, String>, StudyError> {
    let mut study = empty(tuning, &request(tuning, body)?)?;
    let mut curves = curves(&study, points);
    let pending: BTreeSet<u32> = job.pending.iter().copied().collect();
    for row in history {
        let known = row.observation.is_some_and(|n| n <= job.watermark);
        if known || pending.contains(&row.ordinal) {
            let curve = curves.remove(&row.id).unwrap_or_default();
            let mut trial = trial(&study.space, row, curve)?;
            if !known {
                (trial.state, trial.value, trial.curve) = (TrialState::Pending, None, Vec::new());
            }
            study.trials.push(trial);
        }
    }
    study.trials.sort_by_key(|t| t.ordinal);
    let Suggestions { points, .. } = suggest(&study, job.ordinal, 1)?;
    points.first().map(|values| study.space.format(values)).ok_or_else(|| StudyError::Values { name: job.name.clone() })
}
