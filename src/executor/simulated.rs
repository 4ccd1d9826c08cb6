//! An executor that runs nothing: what each attempt prints and how it ends is a script, and time is a manual clock.
//!
//! Invariant: it keeps the same promises as the others (idempotent, keyed by attempt, logs readable from any offset), so
//! that schedules can be tested without processes or waiting. Tests of real execution belong to the other executors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::names::AttemptId;
use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::time::Timestamp;
use crate::executor::{
    AttemptSpec, Executor, ExecutorError, LogChunk, LogFile, LogRecord, Observed, Outputs, Stream, log_format,
};

/// What an attempt does, as told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Lines of stdout, each with the time after the start at which it is printed, milliseconds.
    pub lines: Vec<(i64, String)>,
    /// When it ends by itself, milliseconds after the start.
    pub duration_ms: i64,
    /// How it ends.
    pub cause: ExitCause,
}

impl Script {
    /// A program that prints one line and ends well, at once.
    #[must_use]
    pub fn prints(line: impl Into<String>) -> Self {
        Self { lines: vec![(0, line.into())], duration_ms: 0, cause: ExitCause::Exited { code: 0 } }
    }

    /// The same, over `duration_ms`.
    #[must_use]
    pub fn lasting(mut self, duration_ms: i64) -> Self {
        self.duration_ms = duration_ms;
        self
    }

    /// The same, with another end.
    #[must_use]
    pub fn ending(mut self, cause: ExitCause) -> Self {
        self.cause = cause;
        self
    }
}

/// Writes the script of an attempt from its spec.
pub type Author = dyn Fn(&AttemptSpec) -> Script + Send + Sync;

/// The executor. Clones share what runs.
#[derive(Clone)]
pub struct Simulated {
    id: String,
    clock: Clock,
    folder: PathBuf,
    author: Arc<Author>,
    runs: Arc<Mutex<BTreeMap<AttemptId, Run>>>,
    starts: Arc<Mutex<Vec<AttemptSpec>>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Run {
    script: Script,
    started_at: Timestamp,
    max_runtime_ms: i64,
    stopped_at: Option<Timestamp>,
    lost: bool,
    /// The offset up to which somebody has read its log.
    read: u64,
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Run {
    /// When it is over, and why, as things stand.
    fn end(&self) -> (Timestamp, ExitCause) {
        let mut end = (self.started_at.plus_ms(self.script.duration_ms), self.script.cause.clone());
        let deadline = self.started_at.plus_ms(self.max_runtime_ms);
        if deadline < end.0 {
            end = (deadline, ExitCause::Deadline);
        }
        if let Some(stopped) = self.stopped_at.filter(|stopped| *stopped < end.0) {
            end = (stopped, ExitCause::Stopped);
        }
        end
    }

    fn records(&self, now: Timestamp) -> Vec<LogRecord> {
        let until = now.min(self.end().0);
        let mut offset = 0;
        let mut records = Vec::new();
        for (after_ms, line) in &self.script.lines {
            let time = self.started_at.plus_ms(*after_ms);
            if time > until {
                break;
            }
            let record = LogRecord { offset, time, stream: Stream::Stdout, line: line.clone().into_bytes() };
            offset += stored_length(&record);
            records.push(record);
        }
        records
    }
}

fn stored_length(record: &LogRecord) -> u64 {
    let mut bytes = Vec::new();
    log_format::write(record, &mut bytes);
    bytes.len() as u64
}

impl Simulated {
    /// An executor whose attempts do what `author` writes; `folder` holds their outputs.
    pub fn new(
        id: impl Into<String>,
        clock: Clock,
        folder: PathBuf,
        author: impl Fn(&AttemptSpec) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            clock,
            folder,
            author: Arc::new(author),
            runs: Arc::default(),
            starts: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// Moves the clock on and lets everybody look.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.changed.notify_waiters();
    }

    /// Every start there ever was, in order.
    #[must_use]
    pub fn starts(&self) -> Vec<AttemptSpec> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many attempts run now.
    #[must_use]
    pub fn running(&self) -> usize {
        let now = self.clock.now();
        self.lock().values().filter(|run| !run.lost && run.end().0 > now).count()
    }

    /// Whether all that running attempts have printed by now has been read.
    #[must_use]
    pub fn is_all_read(&self) -> bool {
        let now = self.clock.now();
        self.lock().values().filter(|run| !run.lost && run.end().0 > now).all(|run| {
            let printed = run.records(now).last().map_or(0, |record| record.offset + stored_length(record));
            run.read >= printed
        })
    }

    /// Loses the supervisor of a running attempt.
    pub fn lose(&self, id: AttemptId) {
        if let Some(run) = self.lock().get_mut(&id) {
            run.lost = true;
        }
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output_folder(&self, id: AttemptId, which: &str) -> PathBuf {
        self.folder.join(id.to_string()).join(which)
    }
}

#[async_trait]
impl Executor for Simulated {
    fn id(&self) -> &str {
        &self.id
    }

    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        for which in ["model", "data"] {
            let folder = self.output_folder(spec.id, which);
            std::fs::create_dir_all(&folder).map_err(|source| ExecutorError::Infrastructure {
                doing: format!("making {}", folder.display()),
                source,
            })?;
        }
        let script = (self.author)(spec);
        let started_at = self.clock.now();
        let mut runs = self.lock();
        if let std::collections::btree_map::Entry::Vacant(vacant) = runs.entry(spec.id) {
            let max_runtime_ms = spec.max_runtime_ms;
            vacant.insert(Run { script, started_at, max_runtime_ms, stopped_at: None, lost: false, read: 0 });
            self.starts.lock().unwrap_or_else(PoisonError::into_inner).push(spec.clone());
        }
        drop(runs);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        Ok(self.lock().keys().copied().collect())
    }

    async fn observe(&self, id: AttemptId) -> Result<Observed, ExecutorError> {
        let now = self.clock.now();
        Ok(match self.lock().get(&id) {
            None => Observed::Absent,
            Some(run) if run.lost => Observed::Lost,
            Some(run) => {
                let (ended_at, cause) = run.end();
                if ended_at > now {
                    Observed::Running { started_at: Some(run.started_at) }
                } else {
                    Observed::Exited(Exit {
                        started_at: Some(run.started_at),
                        ended_at,
                        cause,
                        failure: None,
                        stderr_tail: String::new(),
                        remark: None,
                    })
                }
            }
        })
    }

    async fn changed(&self, _id: AttemptId, at_most: Duration) {
        let _ = tokio::time::timeout(at_most.min(Duration::from_millis(20)), self.changed.notified()).await;
    }

    async fn logs(&self, id: AttemptId, from_offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        let now = self.clock.now();
        let mut runs = self.lock();
        let Some(run) = runs.get_mut(&id) else {
            return Ok(LogChunk { records: Vec::new(), next_offset: from_offset });
        };
        let records = run.records(now);
        let mut chunk = LogChunk { records: Vec::new(), next_offset: from_offset };
        for record in records.into_iter().filter(|record| record.offset >= from_offset) {
            chunk.next_offset = record.offset + stored_length(&record);
            chunk.records.push(record);
            if chunk.next_offset - from_offset >= max_bytes as u64 {
                break;
            }
        }
        run.read = run.read.max(chunk.next_offset);
        Ok(chunk)
    }

    async fn stop(&self, id: AttemptId) -> Result<(), ExecutorError> {
        let now = self.clock.now();
        if let Some(run) = self.lock().get_mut(&id) {
            run.stopped_at.get_or_insert(now);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn log_files(&self, _id: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        Ok(Vec::new())
    }

    async fn outputs(&self, id: AttemptId) -> Result<Outputs, ExecutorError> {
        Ok(Outputs { model: self.output_folder(id, "model"), data: self.output_folder(id, "data") })
    }

    async fn remove(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.lock().remove(&id);
        Ok(())
    }
}
