//! SQLite's one writer: takes what waits, scheduling first, and commits it together.
//!
//! Invariant: at any time at most one transaction is open, on this task's own connection. A job is answered after the
//! commit of the transaction that it ran in, or after its own rollback where no transaction is left to wait for. Each
//! transaction runs at least one job of every class that waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::store::db::{BoxFuture, WriteClass};
use crate::store::error::StoreError;
use crate::store::failpoint::{Failpoints, Moment, injected};
use crate::store::tx::Tx;

/// Writes that share a commit.
const BATCH: usize = 64;

/// After this long no further write joins a transaction, but the first one of its class: those in it have waited
/// enough.
const BATCH_FOR: Duration = Duration::from_millis(20);

/// Takes the write lock at once, as a transaction that began by reading may find that it cannot have it.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How long to wait before the file is opened again after a failure.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// A write as the writer sees it.
pub(super) trait Job: Send {
    /// How long it may take.
    fn patience(&self) -> Duration;
    /// Runs it and keeps its result; true where it succeeded.
    fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> BoxFuture<'t, bool>;
    /// Gives its caller the kept result, or `instead` of it an error.
    fn answer(self: Box<Self>, instead: Option<StoreError>);
}

/// A write with its types.
pub(super) struct Write<T, E, F> {
    work: F,
    patience: Duration,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Write<T, E, F> {
    pub(super) fn new(work: F, patience: Duration, reply: oneshot::Sender<Result<T, E>>) -> Self {
        Self { work, patience, outcome: None, reply }
    }
}

impl<T, E, F> Job for Write<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
{
    fn patience(&self) -> Duration {
        self.patience
    }

    fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> BoxFuture<'t, bool> {
        Box::pin(async move {
            let outcome = (self.work)(tx).await;
            let succeeded = outcome.is_ok();
            self.outcome = Some(outcome);
            succeeded
        })
    }

    fn answer(self: Box<Self>, instead: Option<StoreError>) {
        let outcome = match (instead, self.outcome) {
            (Some(error), _) => Err(error.into()),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(StoreError::Panicked.into()),
        };
        // A caller that has gone away does not want to know.
        let _ = self.reply.send(outcome);
    }
}

/// Where jobs wait.
pub(super) struct Queues {
    pub(super) scheduling: mpsc::Receiver<Box<dyn Job>>,
    pub(super) api: mpsc::Receiver<Box<dyn Job>>,
    pub(super) metrics: mpsc::Receiver<Box<dyn Job>>,
    pub(super) closing: CancellationToken,
}

/// The classes, the most urgent first.
const CLASSES: [WriteClass; 3] = [WriteClass::Scheduling, WriteClass::Api, WriteClass::Metrics];

impl Queues {
    /// The next job and its class; none once closed and empty.
    async fn next(&mut self) -> Option<(WriteClass, Box<dyn Job>)> {
        loop {
            tokio::select! {
                biased;
                Some(job) = self.scheduling.recv() => return Some((WriteClass::Scheduling, job)),
                Some(job) = self.api.recv() => return Some((WriteClass::Api, job)),
                Some(job) = self.metrics.recv() => return Some((WriteClass::Metrics, job)),
                () = self.closing.cancelled(), if !self.scheduling.is_closed() => {
                    self.scheduling.close();
                    self.api.close();
                    self.metrics.close();
                }
                else => return None,
            }
        }
    }

    /// A job of one of `classes` that waits already: of the first class that has one.
    fn waiting(&mut self, classes: &[WriteClass]) -> Option<(WriteClass, Box<dyn Job>)> {
        classes.iter().find_map(|class| {
            let queue = match class {
                WriteClass::Scheduling => &mut self.scheduling,
                WriteClass::Api => &mut self.api,
                WriteClass::Metrics => &mut self.metrics,
            };
            queue.try_recv().ok().map(|job| (*class, job))
        })
    }

    /// The next job of a transaction that has run none of the classes `owed` yet; where it has no `room` left, only
    /// one of those, so that no class waits for ever behind a flood of another.
    fn joining(&mut self, owed: &[WriteClass], room: bool) -> Option<(WriteClass, Box<dyn Job>)> {
        if !room {
            return self.waiting(owed);
        }
        self.waiting(&CLASSES[..1]).or_else(|| self.waiting(owed)).or_else(|| self.waiting(&CLASSES))
    }
}

/// The writer task.
pub(super) struct Writer {
    options: SqliteConnectOptions,
    conn: SqliteConnection,
    queues: Queues,
    failpoints: Arc<Failpoints>,
    sole_server: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    /// Whether the next transaction begins by itself and not with its first statement: after a failure, as a connection
    /// that is broken shows at the beginning.
    cautious: bool,
}

/// A job that ran: how its caller is to be answered if the commit succeeds.
type Ran = (Box<dyn Job>, Option<StoreError>);

/// A transaction that grows.
#[derive(Default)]
struct Batch {
    ran: Vec<Ran>,
    open: bool,
    /// Whether a job in it has succeeded, so that the next one needs a savepoint of its own.
    dirty: bool,
    /// Whether the savepoint of the last job, which has succeeded, is still open.
    held: bool,
}

impl Writer {
    pub(super) async fn connect(
        options: SqliteConnectOptions,
        queues: Queues,
        failpoints: Arc<Failpoints>,
        sole_server: Arc<AtomicBool>,
        commits: Arc<AtomicU64>,
    ) -> Result<Self, StoreError> {
        let conn =
            options.connect().await.map_err(|source| StoreError::Database { doing: "opening its file", source })?;
        Ok(Self { options, conn, queues, failpoints, sole_server, commits, cautious: true })
    }

    /// Runs until every sender is gone, or `closing` is cancelled and nothing waits.
    pub(super) async fn run(mut self) {
        while let Some((class, first)) = self.queues.next().await {
            self.transaction(class, first).await;
        }
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "the database file was not closed in order");
        }
    }

    /// Runs `first` and what else waits, commits, answers.
    async fn transaction(&mut self, class: WriteClass, first: Box<dyn Job>) {
        let began = Instant::now();
        let mut batch = Batch::default();
        let mut next = Some((class, first));
        let mut owed = CLASSES.to_vec();
        let mut failure = None;
        while let Some((class, job)) = next.take() {
            owed.retain(|other| *other != class);
            if let Err(error) = self.step(&mut batch, job).await {
                failure = Some(error);
                break;
            }
            let room = batch.ran.len() < BATCH && began.elapsed() < BATCH_FOR;
            next = self.queues.joining(&owed, room);
        }
        if failure.is_none() && batch.open {
            failure = self.conn.execute("COMMIT").await.err();
            self.commits.fetch_add(u64::from(failure.is_none()), Ordering::Relaxed);
        }
        match failure {
            None => batch.ran.into_iter().for_each(|(job, instead)| job.answer(instead)),
            Some(error) => self.give_up(batch, error).await,
        }
    }

    /// Runs one job in the batch's transaction. An error is the whole transaction's.
    async fn step(&mut self, batch: &mut Batch, mut job: Box<dyn Job>) -> Result<(), sqlx::Error> {
        let fails = self.failpoints.hit();
        let (held, opening) = (batch.held, self.opening(batch).await);
        let opening = match opening {
            Ok(opening) => opening,
            Err(error) => {
                batch.ran.push((job, None));
                return Err(error);
            }
        };
        let sole_server = self.sole_server.load(Ordering::Relaxed);
        let mut tx = Tx::sqlite_opened_by(&mut self.conn, sole_server, opening);
        let patience = job.patience();
        let outcome = tokio::time::timeout(patience, no_panic(job.run(&mut tx))).await;
        let begun = tx.opening.is_none();
        let (succeeded, instead) = match (outcome, fails) {
            (Ok(Some(true)), Some(Moment::BeforeCommit)) => (false, Some(injected())),
            (Ok(Some(true)), Some(Moment::AfterCommit)) => (true, Some(injected())),
            (Ok(Some(succeeded)), _) => (succeeded, None),
            (Ok(None), _) => (false, Some(StoreError::Panicked)),
            (Err(_), _) => (false, Some(StoreError::TimedOut { seconds: patience.as_secs() })),
        };
        batch.ran.push((job, instead));
        if !begun {
            // It ran no statement, so there is nothing of it to keep or to take back.
            batch.held = held;
            return Ok(());
        }
        batch.open = true;
        match (succeeded, batch.dirty) {
            (true, _) => {
                batch.held = batch.dirty;
                batch.dirty = true;
                Ok(())
            }
            (false, true) => self.conn.execute("ROLLBACK TO job; RELEASE job").await.map(|_| ()),
            (false, false) => {
                batch.open = false;
                self.cautious = true;
                // It fails where SQLite has rolled back by itself; a broken connection shows at the next BEGIN.
                let _ = self.conn.execute("ROLLBACK").await;
                Ok(())
            }
        }
    }

    /// What begins the next job's part of the transaction, where that is not begun here.
    async fn opening(&mut self, batch: &mut Batch) -> Result<Option<&'static str>, sqlx::Error> {
        if batch.dirty {
            // The one before is over: with this in one exchange with the driver's thread, or with COMMIT in none.
            let held = std::mem::take(&mut batch.held);
            return Ok(Some(if held { "RELEASE job; SAVEPOINT job" } else { "SAVEPOINT job" }));
        }
        if self.cautious {
            self.conn.execute(BEGIN).await?;
            (batch.open, self.cautious) = (true, false);
            return Ok(None);
        }
        Ok(Some(BEGIN))
    }

    /// Tells every caller of a lost transaction, and opens the file anew: what state the connection is in is unknown.
    async fn give_up(&mut self, batch: Batch, error: sqlx::Error) {
        tracing::error!(%error, writes = batch.ran.len(), "a transaction was lost");
        self.cautious = true;
        let source = Arc::new(error);
        for (job, _) in batch.ran {
            job.answer(Some(StoreError::Commit { source: Arc::clone(&source) }));
        }
        loop {
            match self.options.connect().await {
                Ok(conn) => {
                    // The old connection's transaction ends with it.
                    self.conn = conn;
                    return;
                }
                Err(error) => tracing::error!(%error, "the database file cannot be opened"),
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }
}

/// What `work` returns, or none where it panics.
async fn no_panic(mut work: BoxFuture<'_, bool>) -> Option<bool> {
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.map_or(Poll::Ready(None), |poll| poll.map(Some))
    })
    .await
}

#[cfg(test)]
mod tests;
