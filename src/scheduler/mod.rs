//! From rows to running training jobs and back.
//!
//! Two kinds of loop. *Deciding*: one loop per tuning job, run by the server that holds its lease (`tuning`), through
//! one kind of transaction (`settle`). *Doing*: one agent per executor of this server (`agent`), which starts, follows
//! (`drive`) and removes the attempts bound to that executor, and reports their ends (`report`).
//!
//! Invariants: intent is committed before its effect; every loop is level-triggered, woken early by events and by a
//! timer anyway; nobody but an attempt's own executor starts or stops it. What to try is `search`'s to say, what must
//! happen next is `domain::decide`'s.

mod agent;
mod checkpoints;
mod collect;
mod curves;
mod drive;
mod lease;
mod reading;
mod report;
mod settle;
mod spec;
pub mod study;
mod tuning;
mod verdicts;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{Calls, Clock, Wake};
use crate::executor::Executor;
use crate::metrics::{InvalidRegex, Scraper};
use crate::objects::Objects;
use crate::scheduler::curves::{Curve, Curves};
use crate::scheduler::lease::{HEARTBEAT_EVERY, Standing};
use crate::scheduler::report::Report;
use crate::scheduler::spec::{Prepared, ReadDefinition};
use crate::scheduler::tuning::TuningLoop;
use crate::store::rows::{Definition, TuningJob};
use crate::store::{Db, StoreError, WriteClass, definitions, tuning_jobs};

/// How long an upload goes on after its training job was asked to stop, where nothing else is said.
pub const UPLOAD_PATIENCE: Duration = Duration::from_mins(2);

/// The timer of the loop that looks for tuning jobs.
const SWEEP: Duration = Duration::from_secs(1);

/// Compiled definitions kept at most; each takes up to a few megabytes.
const DEFINITIONS_KEPT: usize = 64;

/// What the scheduler works with.
#[derive(Debug, Clone)]
pub struct SchedulerParts {
    /// This server's identity: stable for a data directory, which one server holds at a time.
    pub server_id: Uuid,
    /// The database.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Channels in, artifacts and logs out.
    pub objects: Arc<Objects>,
    /// Where this server's attempts run.
    pub executor: Arc<dyn Executor>,
    /// Tuning jobs that API calls have changed.
    pub calls: Calls,
    /// How many attempts run at once on this server.
    pub max_running: usize,
    /// How long an upload goes on after its training job was asked to stop; usually [`UPLOAD_PATIENCE`].
    pub upload_patience: Duration,
}

/// Why a scheduling step failed; the step is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored study that cannot be searched.
    #[error(transparent)]
    Study(#[from] study::StudyError),
    /// A tuning job without its definition.
    #[error("tuning job {tuning_job} has no definition row")]
    DefinitionMissing {
        /// The tuning job.
        tuning_job: Uuid,
    },
    /// A stored definition that does not read as one.
    #[error("a stored definition does not parse")]
    Definition {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A stored metric definition that does not compile: Create refuses these.
    #[error(transparent)]
    Regex(#[from] InvalidRegex),
    /// A strategy panicked.
    #[error("the search panicked")]
    SearchPanicked(#[source] tokio::task::JoinError),
}

impl SchedulerError {
    /// Whether trying again can't help: the rows themselves are unusable for this program.
    fn is_permanent(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Inconsistent { .. } | StoreError::Unstorable { .. }),
            // The search is a pure function: it would panic again.
            Self::SearchPanicked(joined) => joined.is_panic(),
            Self::Study(_) | Self::DefinitionMissing { .. } | Self::Definition { .. } | Self::Regex(_) => true,
        }
    }
}

/// What the loops share.
#[derive(Debug)]
struct Inner {
    parts: SchedulerParts,
    standing: Standing,
    /// Wakes the executor's agent.
    agent: Wake,
    /// Wakes the sweep.
    sweep: Wake,
    /// The loops of the tuning jobs that this server decides on.
    loops: Mutex<HashMap<Uuid, LoopHandle>>,
    /// Definitions in use, compiled once.
    definitions: Mutex<HashMap<Uuid, Arc<Prepared>>>,
    /// The curves of what this server's executor runs.
    curves: Curves,
    /// A permit for each core: so many searches think at once.
    thinking: Semaphore,
    stopping: CancellationToken,
}

fn prepare(row: &Definition, tuning_job: Option<(TuningJob, String)>) -> Result<Prepared, SchedulerError> {
    let read = ReadDefinition::read(row).map_err(|source| SchedulerError::Definition { source })?;
    let scraper = Scraper::new(&read.metrics)?;
    let stops_early = match tuning_job {
        Some((job, request)) => study::stops_early(&study::empty(&job, &study::request(&job, &request)?)?),
        None => false,
    };
    Ok(Prepared { read, scraper, stops_early })
}

/// The loop that was given a report.
#[derive(Debug, Clone, Copy)]
struct Held {
    tuning_job: Uuid,
    task: tokio::task::Id,
}

#[derive(Debug)]
struct LoopHandle {
    mailbox: mpsc::UnboundedSender<Arc<Report>>,
    wake: Wake,
    /// Woken by new values of the objective.
    progress: Wake,
    task: JoinHandle<()>,
}

impl Inner {
    /// A definition with its expressions compiled, kept for the next attempt; none where its row is gone. The inner
    /// error is the row's own: it does not read as a definition.
    async fn definition(
        &self,
        id: Uuid,
        tuning_job: Option<Uuid>,
    ) -> Result<Option<Result<Arc<Prepared>, SchedulerError>>, StoreError> {
        if let Some(prepared) = self.definitions.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(Ok(Arc::clone(prepared))));
        }
        let reading = self.parts.db.read_for_scheduling(move |tx| {
            Box::pin(async move {
                let tuning_job = match tuning_job {
                    Some(id) => tuning_jobs::get(tx, id).await?.zip(tuning_jobs::request(tx, id).await?),
                    None => None,
                };
                Ok::<_, StoreError>((definitions::get(tx, id).await?, tuning_job))
            })
        });
        let (Some(row), tuning_job) = reading.await? else { return Ok(None) };
        let prepared = match prepare(&row, tuning_job) {
            Ok(prepared) => Arc::new(prepared),
            Err(error) => return Ok(Some(Err(error))),
        };
        let mut definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        if definitions.len() >= DEFINITIONS_KEPT {
            definitions.clear();
        }
        definitions.insert(id, Arc::clone(&prepared));
        Ok(Some(Ok(prepared)))
    }

    /// Adds to the curve of a training job, and lets its tuning job's loop judge it, where this server runs that.
    fn tell_progress(&self, tuning_job: Uuid, training_job: Uuid, news: Curve) {
        self.curves.extend(training_job, news);
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = loops.get(&tuning_job) {
            handle.progress.wake();
        }
    }

    /// Hands a report to the tuning job's loop; gives it back where this server does not decide on that job.
    fn deliver(&self, report: Arc<Report>) -> Result<Held, Arc<Report>> {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = loops.get(&report.tuning_job) else { return Err(report) };
        let held = Held { tuning_job: report.tuning_job, task: handle.task.id() };
        handle.mailbox.send(report).map(|()| held).map_err(|refused| refused.0)
    }

    /// Whether the loop that was given a report still runs: it keeps reports until they are in the rows.
    fn still_holds(&self, held: Held) -> bool {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.get(&held.tuning_job).is_some_and(|handle| handle.task.id() == held.task && !handle.task.is_finished())
    }
}

/// A running scheduler.
#[derive(Debug)]
pub struct Scheduler {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts the loops on the current runtime.
    #[must_use]
    pub fn start(parts: SchedulerParts) -> Self {
        let inner = Arc::new(Inner {
            standing: Standing::new(parts.server_id),
            parts,
            agent: Wake::default(),
            sweep: Wake::default(),
            loops: Mutex::default(),
            definitions: Mutex::default(),
            curves: Curves::default(),
            thinking: Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
            stopping: CancellationToken::new(),
        });
        let tasks = vec![
            tokio::spawn(heartbeat(Arc::clone(&inner))),
            tokio::spawn(sweep(Arc::clone(&inner))),
            tokio::spawn(agent::Agent::new(Arc::clone(&inner)).run()),
        ];
        Self { inner, tasks }
    }

    /// Ends the loops after what they are committing; training goes on.
    pub async fn stop(self) {
        self.inner.stopping.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        let loops = std::mem::take(&mut *self.inner.loops.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in loops.into_values() {
            let _ = handle.task.await;
        }
        if let Err(error) = self.inner.standing.leave(&self.inner.parts.db).await {
            tracing::warn!(error = crate::telemetry::chain(&error), "could not give the leases up; they expire");
        }
    }
}

/// Keeps this server's heartbeat.
async fn heartbeat(inner: Arc<Inner>) {
    while !inner.stopping.is_cancelled() {
        match inner.standing.beat(&inner.parts.db).await {
            Ok(()) => inner.sweep.wake(),
            Err(error) => tracing::error!(error = crate::telemetry::chain(&error), "the heartbeat was not written"),
        }
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
            () = inner.stopping.cancelled() => {}
        }
    }
}

/// Finds tuning jobs that need a loop and takes their leases: all by a timer, those that API calls name at once.
async fn sweep(inner: Arc<Inner>) {
    let (mut called, mut due) = (BTreeSet::<Uuid>::new(), Instant::now());
    while !inner.stopping.is_cancelled() {
        let all = Instant::now() >= due;
        if all {
            due = Instant::now() + SWEEP;
        }
        if inner.standing.holds()
            && let Err(error) = look(&inner, called, all).await
        {
            tracing::error!(error = crate::telemetry::chain(&error), "tuning jobs could not be looked up");
        }
        called = BTreeSet::new();
        let wait = due.saturating_duration_since(Instant::now());
        tokio::select! {
            names = inner.parts.calls.wait(wait) => called = names,
            () = inner.sweep.wait(SWEEP) => due = Instant::now(),
            () = inner.stopping.cancelled() => {}
        }
    }
}

/// Wakes the loops of the tuning jobs that were `called`; starts one for each of these, and for each unfinished one if
/// `all` are looked at, that has none and whose lease is to be had.
async fn look(inner: &Arc<Inner>, called: BTreeSet<Uuid>, all: bool) -> Result<(), StoreError> {
    let mut wanted: Vec<Uuid> = called.iter().copied().collect();
    if all {
        let unfinished = inner.parts.db.glance_for_scheduling(|tx| Box::pin(tuning_jobs::unfinished(tx))).await?;
        wanted.extend(unfinished.into_iter().filter(|id| !called.contains(id)));
    }
    let missing: Vec<Uuid> = {
        let mut loops = inner.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|_, handle| !handle.task.is_finished());
        called.iter().filter_map(|id| loops.get(id)).for_each(|handle| handle.wake.wake());
        wanted.into_iter().filter(|id| !loops.contains_key(id)).collect()
    };
    for id in missing {
        let server = inner.standing.server();
        let lease = inner
            .parts
            .db
            .write(WriteClass::Scheduling, move |tx| Box::pin(tuning_jobs::acquire_lease(tx, id, server)))
            .await?;
        if let Some(epoch) = lease {
            start_loop(inner, id, epoch);
        }
    }
    Ok(())
}

fn start_loop(inner: &Arc<Inner>, id: Uuid, epoch: i64) {
    let (mailbox, incoming) = mpsc::unbounded_channel();
    let (wake, progress) = (Wake::default(), Wake::default());
    let tuning = TuningLoop {
        inner: Arc::clone(inner),
        id,
        epoch,
        mailbox: incoming,
        wake: wake.clone(),
        progress: progress.clone(),
    };
    let handle = LoopHandle { mailbox, wake, progress, task: tokio::spawn(tuning.run()) };
    inner.loops.lock().unwrap_or_else(PoisonError::into_inner).insert(id, handle);
}
