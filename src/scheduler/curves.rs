//! The objective of training jobs that run, value by value, for the verdicts on them.
//!
//! Invariant: memory only, and no suggestion sees it: what is not over has no curve in the study that suggests. The
//! drive of an attempt reads its log from the beginning, so that after a restart everything is here again. Verdicts
//! belong to the tuning job's loop.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::domain::rules::LARGEST_MAX_RESOURCE;

/// Objective values by epoch, in order.
pub type Curve = Vec<(u32, f64)>;

/// The epoch of a match of the objective, by its number in the series, from 0. None beyond the last epoch that any
/// verdict asks for: a program that prints without end must not fill the memory.
#[must_use]
pub fn epoch(number: u64) -> Option<u32> {
    let epoch = u32::try_from(number).ok()?.checked_add(1)?;
    (epoch <= LARGEST_MAX_RESOURCE + 1).then_some(epoch)
}

/// Numbered values as a curve.
#[must_use]
pub fn curve(points: impl IntoIterator<Item = (u64, f64)>) -> Curve {
    points.into_iter().map_while(|(number, value)| Some((epoch(number)?, value))).collect()
}

/// The curves of what runs here, by training job.
#[derive(Debug, Default)]
pub struct Curves(Mutex<HashMap<Uuid, Curve>>);

impl Curves {
    /// Begins an attempt's curve with what the attempts before it came to.
    pub fn begin(&self, training_job: Uuid, earlier: Curve) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(training_job, earlier);
    }

    /// Adds values.
    pub fn extend(&self, training_job: Uuid, news: Curve) {
        let mut curves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        curves.entry(training_job).or_default().extend(news);
    }

    /// The curve of a training job so far; none where nothing follows it here.
    pub fn get(&self, training_job: Uuid) -> Option<Curve> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&training_job).cloned()
    }

    /// The last epoch of a training job's curve; 0 where there is none.
    pub fn last_epoch(&self, training_job: Uuid) -> u32 {
        let curves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        curves.get(&training_job).and_then(|curve| curve.last()).map_or(0, |(epoch, _)| *epoch)
    }

    /// Forgets a training job.
    pub fn end(&self, training_job: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&training_job);
    }
}
