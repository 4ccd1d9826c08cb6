//! Postgres: two pools, a transaction for each write, run again where another transaction was in the way.
//!
//! Invariant: no number of API calls takes a connection that scheduling needs: heartbeats go on, so leases hold. A
//! connection whose state is unknown (a timeout, a failed BEGIN) is closed, never used again. The server ends statements
//! and idle transactions by itself; a server that does not answer at all is given up on here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres as PostgresDriver, SqlSafeStr, Transaction};
use tokio::sync::Semaphore;

use crate::store::db::{BoxFuture, PATIENCE, WriteClass};
use crate::store::error::StoreError;
use crate::store::failpoint::{Failpoints, Moment, injected};
use crate::store::tx::{Tx, is_conflict};

/// Connections for API calls.
const API_CONNECTIONS: u32 = 10;

/// Connections for scheduling and metrics.
const SCHEDULING_CONNECTIONS: u32 = 6;

/// Of these, those that metrics may hold at once.
const METRIC_WRITES: usize = 3;

/// How long to wait for a connection, a new one included.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// How long an idle connection is trusted to be alive.
const UNTESTED_FOR: Duration = Duration::from_secs(1);

/// API writes that may run or wait at once.
const API_WRITES: usize = 256;

/// How often a transaction is run when others are in its way.
const TRIES: u32 = 6;

const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The Postgres side of a `Db`.
#[derive(Debug)]
pub(super) struct Postgres {
    api: PgPool,
    scheduling: PgPool,
    api_writes: Semaphore,
    metric_writes: Semaphore,
    failpoints: Arc<Failpoints>,
    commits: AtomicU64,
}

/// How one run of a transaction ended.
enum Ran<T, E> {
    Done(T),
    Failed(E),
    /// Another transaction was in the way; the error is the one to give at the last try.
    Conflict(E),
}

impl Postgres {
    pub(super) async fn connect(url: &str, failpoints: Arc<Failpoints>) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|source| StoreError::InvalidUrl { source })?;
        let options = options.application_name("tunesmith").statement_cache_capacity(512).options([
            ("statement_timeout", "20s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ]);
        // Connected at once, to know that the server is there, and kept: scheduling never waits for a first connection.
        let scheduling = pool(SCHEDULING_CONNECTIONS)
            .min_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(|source| StoreError::Database { doing: "connecting", source })?;
        let api = pool(API_CONNECTIONS).connect_lazy_with(options);
        let (api_writes, metric_writes) = (Semaphore::new(API_WRITES), Semaphore::new(METRIC_WRITES));
        Ok(Self { api, scheduling, api_writes, metric_writes, failpoints, commits: AtomicU64::new(0) })
    }

    /// Commits of write transactions so far.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        self.metric_writes.close();
        self.api.close().await;
        self.scheduling.close().await;
    }

    pub(super) async fn write<T, E, F>(
        &self,
        patience: Duration,
        class: WriteClass,
        locks: &[i64],
        mut work: F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let _permit = match class {
            WriteClass::Scheduling => None,
            WriteClass::Api => Some(self.api_writes.try_acquire().map_err(|_| StoreError::Busy)?),
            WriteClass::Metrics => Some(self.metric_writes.acquire().await.map_err(|_| StoreError::Closed)?),
        };
        let fails = self.failpoints.hit();
        let mut tried = 0;
        loop {
            tried += 1;
            let mut conn = self.acquire(class).await?;
            let once = async {
                let mut transaction = begin(&mut conn, AssertSqlSafe(begin_write(locks))).await?;
                let mut tx = Tx::postgres(&mut transaction);
                let outcome = work(&mut tx).await;
                let conflicted = tx.conflicted;
                Ok(finish(transaction, outcome, conflicted, fails).await)
            };
            let ran = within(patience, once).await;
            match ran {
                Ok(Ran::Done(value)) => {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                    return Ok(value);
                }
                Ok(Ran::Conflict(_)) if tried < TRIES => {
                    drop(conn);
                    tokio::time::sleep(Duration::from_millis(2 << tried)).await;
                }
                Ok(Ran::Failed(error) | Ran::Conflict(error)) => return Err(error),
                Err(failure) => {
                    conn.close_on_drop();
                    return Err(failure.into());
                }
            }
        }
    }

    pub(super) async fn read<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        let mut conn = self.acquire(class).await?;
        let once = async {
            let mut transaction = begin(&mut conn, BEGIN_READ).await?;
            // Dropping the transaction rolls it back with the connection's way to the pool: nothing to wait for.
            Ok(work(&mut Tx::postgres(&mut transaction)).await)
        };
        within(PATIENCE, once).await.unwrap_or_else(|failure| {
            conn.close_on_drop();
            Err(failure.into())
        })
    }

    pub(super) async fn glance<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        let mut conn = self.acquire(class).await?;
        let once = async { Ok(work(&mut Tx::postgres(&mut conn)).await) };
        within(PATIENCE, once).await.unwrap_or_else(|failure| {
            conn.close_on_drop();
            Err(failure.into())
        })
    }

    async fn acquire(&self, class: WriteClass) -> Result<PoolConnection<PostgresDriver>, StoreError> {
        let pool = if class == WriteClass::Api { &self.api } else { &self.scheduling };
        pool.acquire().await.map_err(|source| match source {
            sqlx::Error::PoolClosed => StoreError::Closed,
            source => StoreError::Database { doing: "connecting", source },
        })
    }
}

/// A pool of at most so many connections.
fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_WITHIN)
        // A connection in steady use needs no round trip to find out whether it is alive.
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > UNTESTED_FOR {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
}

/// Begins a transaction and takes its locks, in one exchange.
fn begin_write(locks: &[i64]) -> String {
    let locks = locks.iter().map(|key| format!("; SELECT pg_advisory_xact_lock({key})"));
    std::iter::once("BEGIN".to_owned()).chain(locks).collect()
}

async fn begin(conn: &mut PgConnection, text: impl SqlSafeStr) -> Result<Transaction<'_, PostgresDriver>, StoreError> {
    conn.begin_with(text).await.map_err(|source| StoreError::Database { doing: "beginning a transaction", source })
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let timed_out = |_| StoreError::TimedOut { seconds: patience.as_secs() };
    tokio::time::timeout(patience, work).await.map_err(timed_out)?
}

/// Commits or rolls back, as the outcome says.
async fn finish<T, E: From<StoreError>>(
    transaction: Transaction<'_, PostgresDriver>,
    outcome: Result<T, E>,
    conflicted: bool,
    fails: Option<Moment>,
) -> Ran<T, E> {
    let value = match outcome {
        Ok(_) if fails == Some(Moment::BeforeCommit) => {
            // The injected error stands, whatever the rollback says.
            let _ = transaction.rollback().await;
            return Ran::Failed(injected().into());
        }
        Ok(value) => value,
        Err(error) => {
            // The connection is tested when it goes back to the pool; an open transaction never does.
            let _ = transaction.rollback().await;
            return if conflicted { Ran::Conflict(error) } else { Ran::Failed(error) };
        }
    };
    match transaction.commit().await {
        Ok(()) if fails == Some(Moment::AfterCommit) => Ran::Failed(injected().into()),
        Ok(()) => Ran::Done(value),
        Err(source) => {
            let conflict = is_conflict(&source);
            let error = E::from(StoreError::Commit { source: Arc::new(source) });
            if conflict { Ran::Conflict(error) } else { Ran::Failed(error) }
        }
    }
}
