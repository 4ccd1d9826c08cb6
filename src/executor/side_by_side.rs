//! Programs of this machine and containers on one server: each attempt is with the executor that its image asks for.
//!
//! Invariant: an attempt stays where it was started, whatever the configuration says of its image later. Rows are bound to
//! the data directory, so that the process executor's id stands for both.

use std::time::Duration;

use async_trait::async_trait;

use super::docker::DockerExecutor;
use super::images::Images;
use super::process::ProcessExecutor;
use super::{AttemptSpec, Executor, ExecutorError, LogChunk, LogFile, Observed, Outputs};
use crate::domain::names::AttemptId;

/// Both executors of a data directory.
#[derive(Debug)]
pub struct SideBySide {
    process: ProcessExecutor,
    docker: DockerExecutor,
    images: Images,
}

impl SideBySide {
    /// Of the same data directory and the same images.
    pub fn new(process: ProcessExecutor, docker: DockerExecutor, images: Images) -> Self {
        Self { process, docker, images }
    }

    fn holder(&self, id: AttemptId) -> &dyn Executor {
        if self.docker.holds(id) { &self.docker } else { &self.process }
    }
}

#[async_trait]
impl Executor for SideBySide {
    fn id(&self) -> &str {
        self.process.id()
    }

    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        let image = self.images.find(&spec.image);
        if self.docker.holds(spec.id) || image.is_some_and(|image| image.as_container().is_some()) {
            self.docker.launch(spec).await
        } else {
            self.process.launch(spec).await
        }
    }

    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        let mut ids = self.process.list().await?;
        ids.extend(self.docker.list().await?);
        Ok(ids)
    }

    async fn observe(&self, id: AttemptId) -> Result<Observed, ExecutorError> {
        self.holder(id).observe(id).await
    }

    async fn changed(&self, id: AttemptId, at_most: Duration) {
        self.holder(id).changed(id, at_most).await;
    }

    async fn logs(&self, id: AttemptId, from_offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        self.holder(id).logs(id, from_offset, max_bytes).await
    }

    async fn stop(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.holder(id).stop(id).await
    }

    async fn log_files(&self, id: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        self.holder(id).log_files(id).await
    }

    async fn outputs(&self, id: AttemptId) -> Result<Outputs, ExecutorError> {
        self.holder(id).outputs(id).await
    }

    async fn remove(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.holder(id).remove(id).await
    }
}
