//! The doing side: what the rows ask of this server's executor.
//!
//! Invariant: level-triggered and idempotent. Each pass compares the rows bound to the executor with what is being
//! driven: an attempt that was inserted is driven to its end (after a restart too), one that has ended is removed, one
//! that no row knows is removed. Admission is bounded by `max_running`; what already runs is always followed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::domain::names::AttemptId;
use crate::domain::status::AttemptState;
use crate::executor::{ExecutorError, Observed};
use crate::scheduler::drive::{Drive, stopped_before_start};
use crate::scheduler::report::{Report, record};
use crate::scheduler::{Held, Inner, SchedulerError};
use crate::store::rows::{Attempt, TrainingJob};
use crate::store::{WriteClass, attempts, training_jobs};

/// The timer of the pass.
const PASS: Duration = Duration::from_secs(1);

/// How often the executor is asked for attempts that no row knows.
const ORPHANS_EVERY: Duration = Duration::from_secs(30);

/// A report that has not reached the rows by then is made again.
const REPORT_PATIENCE: Duration = Duration::from_secs(10);

/// One executor's agent.
pub struct Agent {
    inner: Arc<Inner>,
    driving: HashMap<AttemptId, Driving>,
    /// Attempts driven to their end whose rows do not show it yet: since when, and which loop holds the report.
    reported: HashMap<AttemptId, (Instant, Option<Held>)>,
    /// Attempts found not started here; only a slot or a stop can change that.
    unstarted: HashSet<AttemptId>,
    /// Whether any of them waits for a slot.
    slot_awaited: Arc<AtomicBool>,
    removals: JoinSet<Result<AttemptId, AttemptId>>,
    removed: HashSet<AttemptId>,
    orphans_due: Instant,
    /// What the executor holds, while it is being asked: a daemon may take its time, and nothing else waits for it.
    listing: Option<JoinHandle<Result<Vec<AttemptId>, ExecutorError>>>,
}

struct Driving {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    held: Arc<OnceLock<Held>>,
}

impl Agent {
    /// An agent that drives nothing yet.
    pub fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            driving: HashMap::new(),
            reported: HashMap::new(),
            unstarted: HashSet::new(),
            slot_awaited: Arc::default(),
            removals: JoinSet::new(),
            removed: HashSet::new(),
            orphans_due: Instant::now(),
            listing: None,
        }
    }

    /// Runs until the scheduler ends; what runs then goes on without it.
    pub async fn run(mut self) {
        while !self.inner.stopping.is_cancelled() {
            if let Err(error) = self.pass().await {
                tracing::error!(error = crate::telemetry::chain(&error), "the executor's rows could not be read");
            }
            tokio::select! {
                () = self.inner.agent.wait(PASS) => {}
                () = self.inner.stopping.cancelled() => {}
            }
        }
        for driving in self.driving.into_values() {
            driving.task.abort();
        }
        if let Some(listing) = self.listing {
            listing.abort();
        }
    }

    async fn pass(&mut self) -> Result<(), SchedulerError> {
        let executor_id = self.inner.parts.executor.id().to_owned();
        let rows: Vec<Attempt> = self
            .inner
            .parts
            .db
            .glance_for_scheduling(move |tx| Box::pin(async move { attempts::of_executor(tx, &executor_id).await }))
            .await?;
        self.forget_finished(&rows);
        let mut waiting = Vec::new();
        for row in &rows {
            match row.state {
                AttemptState::Inserted => self.follow(row, &mut waiting),
                AttemptState::Ended => self.remove(row.id),
                AttemptState::Removed => {}
            }
        }
        self.admit(waiting).await;
        self.slot_awaited.store(!self.unstarted.is_empty(), Ordering::Relaxed);
        self.note_removals().await?;
        self.remove_orphans(&rows).await;
        Ok(())
    }

    fn forget_finished(&mut self, rows: &[Attempt]) {
        self.driving.retain(|id, driving| {
            let finished = driving.task.is_finished();
            if finished {
                self.reported.insert(*id, (Instant::now(), driving.held.get().copied()));
            }
            !finished
        });
        let inserted: HashSet<AttemptId> =
            rows.iter().filter(|row| row.state == AttemptState::Inserted).map(|row| row.id).collect();
        self.reported.retain(|id, (at, held)| {
            let underway = at.elapsed() < REPORT_PATIENCE || held.is_some_and(|held| self.inner.still_holds(held));
            inserted.contains(id) && underway
        });
        self.unstarted.retain(|id| inserted.contains(id));
    }

    /// Tells a driven attempt of a stop, or puts it in line to be driven.
    fn follow<'r>(&self, row: &'r Attempt, waiting: &mut Vec<&'r Attempt>) {
        if let Some(driving) = self.driving.get(&row.id) {
            driving.stop.send_if_modified(|stop| {
                let changed = *stop != row.stop_requested;
                *stop = row.stop_requested;
                changed
            });
        } else if !self.reported.contains_key(&row.id) {
            waiting.push(row);
        }
    }

    /// Drives as many of the waiting attempts as there are slots, oldest first, and all that are started already.
    async fn admit(&mut self, waiting: Vec<&Attempt>) {
        let slots = self.inner.parts.max_running.saturating_sub(self.driving.len());
        let (admitted, others) = waiting.split_at(slots.min(waiting.len()));
        let mut jobs = self.training_jobs(admitted).await;
        for row in admitted {
            self.drive(row, jobs.remove(&row.id.training_job));
        }
        for &row in others {
            if self.unstarted.contains(&row.id) && !row.stop_requested {
                continue;
            }
            match self.inner.parts.executor.observe(row.id).await {
                Ok(Observed::Absent) if row.stop_requested => match stopped_before_start(&self.inner, row).await {
                    Ok(Some(report)) => {
                        let held = hand_over(&self.inner, report).await;
                        self.reported.insert(row.id, (Instant::now(), held));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(attempt = %row.id, error = crate::telemetry::chain(&error), "not reported");
                    }
                },
                Ok(Observed::Absent) => {
                    self.unstarted.insert(row.id);
                }
                Ok(_) => self.drive(row, None),
                Err(error) => {
                    tracing::warn!(attempt = %row.id, error = crate::telemetry::chain(&error), "not observed");
                }
            }
        }
    }

    /// The training jobs of attempts, in one exchange with the database; what could not be read is left out.
    async fn training_jobs(&self, attempts: &[&Attempt]) -> HashMap<Uuid, TrainingJob> {
        if attempts.is_empty() {
            return HashMap::new();
        }
        let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.id.training_job).collect();
        let db = &self.inner.parts.db;
        let read = db.glance_for_scheduling(move |tx| Box::pin(async move { training_jobs::get_all(tx, &ids).await }));
        match read.await {
            Ok(jobs) => jobs.into_iter().map(|job| (job.id, job)).collect(),
            Err(error) => {
                let error: crate::store::StoreError = error;
                tracing::warn!(error = crate::telemetry::chain(&error), "training jobs could not be read together");
                HashMap::new()
            }
        }
    }

    /// Drives an attempt; its training job's row is read again where it is not given.
    fn drive(&mut self, row: &Attempt, job: Option<TrainingJob>) {
        let (stop, stop_requested) = watch::channel(row.stop_requested);
        let inner = Arc::clone(&self.inner);
        let row_of_task = row.clone();
        let held = Arc::new(OnceLock::new());
        let held_of_task = Arc::clone(&held);
        let slot_awaited = Arc::clone(&self.slot_awaited);
        let task = tokio::spawn(async move {
            let report = Drive::new(&inner, row_of_task, job, stop_requested).run().await;
            let held = match report {
                Some(report) => hand_over(&inner, report).await,
                None => None,
            };
            let is_held = held.is_some_and(|held| held_of_task.set(held).is_ok());
            // The rows show its end once the loop has settled it, which wakes the agent then. Its slot is free now.
            if !is_held || slot_awaited.load(Ordering::Relaxed) {
                inner.agent.wake();
            }
        });
        self.unstarted.remove(&row.id);
        self.driving.insert(row.id, Driving { stop, task, held });
    }

    /// Begins to remove what an ended attempt left with the executor.
    fn remove(&mut self, id: AttemptId) {
        if self.driving.contains_key(&id) || !self.removed.insert(id) {
            return;
        }
        let (executor, objects) = (Arc::clone(&self.inner.parts.executor), Arc::clone(&self.inner.parts.objects));
        self.removals.spawn(async move {
            executor.remove(id).await.map_err(|error| {
                tracing::warn!(attempt = %id, error = crate::telemetry::chain(&error), "an ended attempt was not removed");
                id
            })?;
            // Nothing of it reads its channels any more.
            objects.release(id).await.map(|()| id).map_err(|error| {
                tracing::warn!(attempt = %id, error = crate::telemetry::chain(&error), "what it used was not released");
                id
            })
        });
    }

    /// Writes which attempts are gone from the executor, many at a time.
    async fn note_removals(&mut self) -> Result<(), SchedulerError> {
        let mut gone = Vec::new();
        while let Some(joined) = self.removals.try_join_next() {
            match joined {
                Ok(Ok(id)) => gone.push(id),
                Ok(Err(id)) => {
                    // Tried again at a later pass.
                    self.removed.remove(&id);
                }
                Err(_) => self.removed.clear(),
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let ids = gone.clone();
        let written = self
            .inner
            .parts
            .db
            .write(WriteClass::Metrics, move |tx| {
                let ids = ids.clone();
                Box::pin(async move { attempts::mark_removed(tx, &ids).await })
            })
            .await;
        for id in gone {
            self.removed.remove(&id);
        }
        written.map_err(SchedulerError::from)
    }

    /// Removes attempts that the executor holds and no row knows: their training jobs were deleted.
    async fn remove_orphans(&mut self, rows: &[Attempt]) {
        if self.listing.is_none() && Instant::now() >= self.orphans_due {
            self.orphans_due = Instant::now() + ORPHANS_EVERY;
            let executor = Arc::clone(&self.inner.parts.executor);
            self.listing = Some(tokio::spawn(async move { executor.list().await }));
        }
        let Some(listing) = self.listing.take_if(|listing| listing.is_finished()) else { return };
        let held = match listing.await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(error = crate::telemetry::chain(&error), "the executor's attempts could not be listed");
                return;
            }
            Err(error) => {
                tracing::error!(error = crate::telemetry::chain(&error), "listing the executor's attempts panicked");
                return;
            }
        };
        let known: HashSet<AttemptId> = rows.iter().map(|row| row.id).collect();
        for id in held.into_iter().filter(|id| !known.contains(id)) {
            if self.is_orphan(id).await {
                tracing::warn!(attempt = %id, "removing an attempt that no row knows");
                self.remove(id);
            }
        }
    }

    /// Asks the rows again: the attempt may have been inserted after this pass read them.
    async fn is_orphan(&self, id: AttemptId) -> bool {
        let row = self.inner.parts.db.read_for_scheduling(move |tx| Box::pin(attempts::get(tx, id))).await;
        row.is_ok_and(|row: Option<Attempt>| row.is_none_or(|row| row.state == AttemptState::Removed))
    }
}

/// Gives a report to the loop that decides, which then holds it; where another server decides, writes it into the rows
/// for that one.
async fn hand_over(inner: &Arc<Inner>, report: Report) -> Option<Held> {
    let report = match inner.deliver(Arc::new(report)) {
        Ok(held) => return Some(held),
        Err(report) => report,
    };
    let written = inner.parts.db.write(WriteClass::Scheduling, move |tx| {
        let report = Arc::clone(&report);
        Box::pin(async move {
            crate::store::tuning_jobs::lock(tx, report.tuning_job).await?;
            record(tx, &report).await
        })
    });
    if let Err(error) = written.await {
        // The attempt's row still says `Inserted`, so that a later pass reports it again.
        let error: crate::store::StoreError = error;
        tracing::error!(error = crate::telemetry::chain(&error), "an attempt's end was not written");
    }
    None
}
