//! A simulated executor, some calls of which fail, and are counted.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tunesmith::domain::names::AttemptId;
use tunesmith::executor::simulated::Simulated;
use tunesmith::executor::{AttemptSpec, Executor, ExecutorError, LogChunk, LogFile, Observed, Outputs};

/// What fails, and what was asked for.
#[derive(Debug, Default)]
pub struct Faults {
    /// How many further looks into a log fail.
    pub unreadable: AtomicU32,
    /// A launch takes until the attempt is asked to stop.
    pub launches_wait: AtomicBool,
    /// How often an attempt was asked to stop.
    stops: watch::Sender<u32>,
    /// What an attempt wrote cannot be had, and nobody says so.
    pub outputs_hang: AtomicBool,
    uploads: Mutex<Vec<AttemptId>>,
}

impl Faults {
    /// Whether a launch is waiting.
    pub fn is_launching(&self) -> bool {
        self.stops.receiver_count() > 0
    }

    /// Whose outputs were asked for: once for each try to upload them.
    pub fn uploads(&self) -> Vec<AttemptId> {
        self.uploads.lock().unwrap().clone()
    }
}

#[derive(Debug)]
pub struct Faulty {
    pub sim: Simulated,
    pub faults: Arc<Faults>,
}

#[async_trait]
impl Executor for Faulty {
    fn id(&self) -> &str {
        self.sim.id()
    }

    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        if self.faults.launches_wait.load(Ordering::SeqCst) {
            let _ = self.faults.stops.subscribe().wait_for(|stops| *stops > 0).await;
        }
        self.sim.launch(spec).await
    }

    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        self.sim.list().await
    }

    async fn observe(&self, id: AttemptId) -> Result<Observed, ExecutorError> {
        self.sim.observe(id).await
    }

    async fn changed(&self, id: AttemptId, at_most: Duration) {
        self.sim.changed(id, at_most).await;
    }

    async fn logs(&self, id: AttemptId, from_offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        let one_less = |left: u32| left.checked_sub(1);
        if self.faults.unreadable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            let source = std::io::Error::other("a test wanted it to fail");
            return Err(ExecutorError::Infrastructure { doing: format!("reading the log of {id}"), source });
        }
        self.sim.logs(id, from_offset, max_bytes).await
    }

    async fn stop(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.faults.stops.send_modify(|stops| *stops += 1);
        self.sim.stop(id).await
    }

    async fn log_files(&self, id: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        self.sim.log_files(id).await
    }

    async fn outputs(&self, id: AttemptId) -> Result<Outputs, ExecutorError> {
        self.faults.uploads.lock().unwrap().push(id);
        if self.faults.outputs_hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.sim.outputs(id).await
    }

    async fn remove(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.sim.remove(id).await
    }
}
