//! From rows to running training jobs and back.

use std::sync::Arc;

use crate::clock::{Clock, Wake};
use crate::executor::Executor;
use crate::executor::images::Images;
use crate::objects::Objects;
use crate::store::Db;

/// What the scheduler works with.
#[derive(Debug, Clone)]
pub struct SchedulerParts {
    /// The database.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Channels in, artifacts and logs out.
    pub objects: Arc<Objects>,
    /// Where this server's attempts run.
    pub executor: Arc<dyn Executor>,
    /// The registered images.
    pub images: Arc<Images>,
    /// Woken by API calls.
    pub wake: Wake,
    /// How many attempts run at once on this server.
    pub max_running: usize,
}

/// A running scheduler.
#[derive(Debug)]
pub struct Scheduler {}

impl Scheduler {
    /// Starts the loops on the current runtime.
    #[must_use]
    pub fn start(parts: SchedulerParts) -> Self {
        let _ = parts;
        Self {}
    }

    /// Ends the loops after what they are committing; training goes on.
    pub async fn stop(self) {}
}
