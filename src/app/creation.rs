//! Storing new tuning jobs: what waits is inserted together.
//!
//! Invariant: a job is answered for itself alone, after the commit that it is in, and what stands against one job keeps
//! no other out. At most one transaction inserts at a time, so that those that arrive meanwhile share the next one: under
//! load a Create costs a share of an exchange with the database and of a sync of the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::app::tuning_jobs::exceeded;
use crate::app::{AppError, TuningJob};
use crate::domain::request::Tag;
use crate::store::rows::Definition;
use crate::store::tuning_jobs::{self, New};
use crate::store::{Db, StoreError, Tx, WriteClass, tags};

/// Jobs that are inserted together.
const BATCH: usize = 64;

/// How long jobs of a batch that failed are tried one by one; the rest is refused, to be sent again.
const ALONE_FOR: Duration = Duration::from_secs(10);

/// Jobs that may wait; further ones are refused, to be sent again.
const WAITING: usize = 256;

/// What Create commits.
#[derive(Debug)]
pub(super) struct NewJob {
    pub(super) job: TuningJob,
    /// The request body, byte for byte.
    pub(super) request: String,
    /// `HyperParameterTuningJobConfig`, completed.
    pub(super) config: String,
    pub(super) definition: Definition,
    pub(super) tags: Vec<Tag>,
}

/// The jobs that wait for their insert. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Creation {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Whether a task is inserting, and will look here again before it ends.
    inserting: bool,
}

#[derive(Debug)]
struct Waiting {
    new: Arc<NewJob>,
    reply: oneshot::Sender<Result<(), AppError>>,
}

impl Creation {
    /// Stores a job; once this returns it is durable. A caller that goes away changes nothing for its job.
    pub(super) async fn insert(&self, db: &Db, new: NewJob, quota: u32) -> Result<(), AppError> {
        let (reply, answer) = oneshot::channel();
        let idle = {
            let mut queue = self.lock();
            if queue.waiting.len() >= WAITING {
                return Err(AppError::Throttled);
            }
            queue.waiting.push(Waiting { new: Arc::new(new), reply });
            !std::mem::replace(&mut queue.inserting, true)
        };
        if idle {
            tokio::spawn(self.clone().insert_all(db.clone(), quota));
        }
        // The task answers everybody, unless it panics.
        answer.await.map_err(|_| AppError::from(StoreError::Panicked))?
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts until nothing waits.
    async fn insert_all(self, db: Db, quota: u32) {
        let mut end = End { creation: &self, ended: false };
        while let Some(batch) = end.next_batch() {
            insert_batch(&db, batch, quota).await;
        }
    }
}

/// The end of an inserting task; also by a panic it lets the next job start another.
struct End<'a> {
    creation: &'a Creation,
    ended: bool,
}

impl End<'_> {
    /// What waits, or none and the end, in one step: a job pushed after it starts a task of its own.
    fn next_batch(&mut self) -> Option<Vec<Waiting>> {
        let mut queue = self.creation.lock();
        let count = queue.waiting.len().min(BATCH);
        if count == 0 {
            queue.inserting = false;
            self.ended = true;
            return None;
        }
        Some(queue.waiting.drain(..count).collect())
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.creation.lock().inserting = false;
        }
    }
}

/// Inserts a batch and answers each of its jobs.
async fn insert_batch(db: &Db, batch: Vec<Waiting>, quota: u32) {
    let (jobs, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|waiting| (waiting.new, waiting.reply)).unzip();
    let outcomes = match insert(db, jobs.clone(), quota).await {
        Ok(outcomes) => outcomes,
        Err(error) if jobs.len() == 1 => vec![Err(error)],
        Err(error) => match of_all(&error) {
            Some(_) => jobs.iter().filter_map(|_| of_all(&error)).map(Err).collect(),
            None => insert_one_by_one(db, jobs, &error, quota).await,
        },
    };
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        // A caller that has gone away does not want to know.
        let _ = reply.send(outcome.map_err(|error| refusal(error, quota)));
    }
}

/// A failure that is the transaction's and not that of one job's statement: trying each alone would gain nothing, and
/// where the commit is in doubt would find its own job in the way.
fn of_all(error: &StoreError) -> Option<StoreError> {
    match error {
        StoreError::Busy => Some(StoreError::Busy),
        StoreError::Closed => Some(StoreError::Closed),
        StoreError::TimedOut { seconds } => Some(StoreError::TimedOut { seconds: *seconds }),
        StoreError::Commit { source } => Some(StoreError::Commit { source: Arc::clone(source) }),
        _ => None,
    }
}

async fn insert_one_by_one(
    db: &Db,
    jobs: Vec<Arc<NewJob>>,
    why: &StoreError,
    quota: u32,
) -> Vec<Result<(), StoreError>> {
    tracing::warn!(error = crate::telemetry::chain(why), jobs = jobs.len(), "inserting tuning jobs one by one");
    let begun = Instant::now();
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        if begun.elapsed() > ALONE_FOR {
            outcomes.push(Err(StoreError::Busy));
            continue;
        }
        let one = insert(db, vec![job], quota).await;
        outcomes.push(one.and_then(|mut one| one.pop().unwrap_or(Ok(()))));
    }
    outcomes
}

/// One transaction for all of them: the outcome of each, or why none is in.
async fn insert(db: &Db, jobs: Vec<Arc<NewJob>>, quota: u32) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let locks = jobs.iter().map(|new| tuning_jobs::scope_lock(&new.job.scope)).collect();
    db.write_holding(&locks, WriteClass::Api, move |tx| {
        let jobs = jobs.clone();
        Box::pin(async move { insert_in(tx, &jobs, quota).await })
    })
    .await
}

async fn insert_in<'a>(
    tx: &mut Tx<'_>,
    jobs: &'a [Arc<NewJob>],
    quota: u32,
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let row = |new: &'a Arc<NewJob>| New {
        job: &new.job,
        request: &new.request,
        config: &new.config,
        definition: &new.definition,
    };
    let rows: Vec<New<'_>> = jobs.iter().map(row).collect();
    let outcomes = tuning_jobs::insert(tx, &rows, quota).await?;
    for (new, outcome) in jobs.iter().zip(&outcomes) {
        if outcome.is_ok() && !new.tags.is_empty() {
            tags::set(tx, &new.job.scope.tuning_job_arn(&new.job.name), &new.tags).await?;
        }
    }
    Ok(outcomes)
}

/// A refusal in the service's words.
fn refusal(error: StoreError, quota: u32) -> AppError {
    match error {
        StoreError::NameTaken { name } => AppError::InUse(format!(
            "A hyperparameter tuning job with the name, {name}, already exists. Choose a different name."
        )),
        StoreError::QuotaUsed { used } => {
            let what = "Maximum number of concurrent hyperparameter tuning jobs";
            exceeded(what, "concurrent_tuning_jobs", "Tuning Jobs", quota, used, 1)
        }
        other => other.into(),
    }
}
