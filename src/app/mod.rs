//! Use cases, one file per resource: the only thing that the edges call.
//!
//! Invariant: a call changes intent only, in one transaction, and calls the scheduler after its commit; what follows
//! from the intent is the scheduler's to do.

use std::sync::Arc;

use crate::clock::{Calls, Clock};
use crate::executor::Executor;
use crate::executor::images::Images;
use crate::objects::Objects;
use crate::store::Db;

pub mod creation;
mod defaults;
pub mod error;
mod expressions;
pub mod health;
pub mod logs;
mod script_mode;
pub mod tags;
pub mod training_jobs;
pub mod tuning_jobs;

pub use creation::Creation;
pub use error::AppError;
// Rows are values: use cases answer with them, and the edges read them here, never from the store.
pub use crate::store::rows::{Cursor, ListQuery, Page, SortKey, TrainingJob, TuningJob, TuningJobSummary};

/// What use cases need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    /// The database.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// The object store.
    pub objects: Arc<Objects>,
    /// Where logs of running attempts are read.
    pub executor: Arc<dyn Executor>,
    /// What a request may name as its training image.
    pub images: Arc<Images>,
    /// Calls the scheduler to a tuning job after a commit.
    pub calls: Calls,
    /// Tuning jobs on their way into the database.
    pub creation: Creation,
    /// Limits.
    pub quotas: Quotas,
    /// Whether channels can be streamed into containers.
    pub container_pipes: bool,
}

/// The service's quotas; settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Training jobs of one tuning job.
    pub training_jobs_per_tuning_job: u32,
    /// Parallel training jobs of one tuning job.
    pub parallel_training_jobs: u32,
    /// Tuning jobs of an account that are not over.
    pub concurrent_tuning_jobs: u32,
    /// Hosts of one training job.
    pub hosts_per_training_job: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            training_jobs_per_tuning_job: 10_000,
            parallel_training_jobs: 100,
            concurrent_tuning_jobs: 100,
            hosts_per_training_job: 8,
        }
    }
}
