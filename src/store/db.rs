//! Two drivers behind one handle: connecting, and the two ways in, `write` and `read`.
//!
//! Invariant: a write answers once it is committed durably or not at all there; a read sees one snapshot. Neither waits
//! for ever. How each driver does it is in `sqlite` and `postgres`.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::store::error::StoreError;
use crate::store::failpoint::{Failpoints, Moment};
use crate::store::postgres::Postgres;
use crate::store::query::sql;
use crate::store::sqlite::Sqlite;
use crate::store::tx::Tx;

/// A boxed future that may borrow the transaction.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long a transaction may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a migration may take.
pub(super) const MIGRATION_PATIENCE: Duration = Duration::from_hours(1);

/// Which queue or pool a write waits in. A flood of one class does not keep the others waiting; where too many API
/// writes wait, further ones get `Busy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteClass {
    /// Leases, intents, outcomes.
    Scheduling,
    /// Metric points and log indexes.
    Metrics,
    /// A user's call.
    Api,
}

/// A database: SQLite's file or a Postgres cluster. Clones share the pools.
#[derive(Debug, Clone)]
pub struct Db {
    driver: Driver,
    failpoints: Arc<Failpoints>,
}

#[derive(Debug, Clone)]
enum Driver {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

impl Db {
    /// Connects to `sqlite://path` or `postgres://…`; creates the SQLite file where it is missing. Does not migrate.
    pub async fn connect(url: &str) -> Result<Db, StoreError> {
        let failpoints = Arc::new(Failpoints::default());
        let driver = match url.split_once("://") {
            Some(("sqlite", path)) => Driver::Sqlite(Arc::new(Sqlite::connect(path, Arc::clone(&failpoints)).await?)),
            Some(("postgres" | "postgresql", _)) => {
                Driver::Postgres(Arc::new(Postgres::connect(url, Arc::clone(&failpoints)).await?))
            }
            other => {
                let scheme = other.map_or(url, |(scheme, _)| scheme).to_owned();
                return Err(StoreError::UnknownDatabase { scheme });
            }
        };
        Ok(Db { driver, failpoints })
    }

    /// Makes this the only server on a SQLite file, for as long as any clone of this `Db` lives: `InUse` where another
    /// one is. From then on the leases of other servers count as those of dead ones. Postgres is shared: nothing to do.
    pub fn lock_exclusive(&self) -> Result<(), StoreError> {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.lock_exclusive(),
            Driver::Postgres(_) => Ok(()),
        }
    }

    /// Brings the schema up to date, one server at a time.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let postgres = matches!(self.driver, Driver::Postgres(_));
        self.write_within(MIGRATION_PATIENCE, WriteClass::Scheduling, &[], move |tx| {
            Box::pin(crate::store::migrations::apply(tx, postgres))
        })
        .await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|tx| {
            Box::pin(async move { sql("asking whether it is there", "SELECT 1").execute(tx).await.map(|_| ()) })
        })
        .await
    }

    /// Commits that had to reach the disk, since the start and of this server: on SQLite those of the one writer, which
    /// many writes share; on Postgres those of write transactions, a few of which may have changed nothing.
    #[must_use]
    pub fn commits(&self) -> u64 {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.commits(),
            Driver::Postgres(postgres) => postgres.commits(),
        }
    }

    /// Finishes the writes that wait and closes every connection. Calls after that fail with `Closed`.
    pub async fn close(&self) {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.close().await,
            Driver::Postgres(postgres) => postgres.close().await,
        }
    }

    /// For tests: makes the `nth` write from now (1 is the next one) fail at `moment`.
    pub fn fail_write(&self, nth: u64, moment: Moment) {
        self.failpoints.arm(nth, moment);
    }

    /// For tests: makes every write fail before its commit, until told otherwise.
    pub fn fail_all_writes(&self, lasts: bool) {
        self.failpoints.outage(lasts);
    }

    /// Runs `work` in a transaction and returns once it is committed durably. An error rolls it back. The closure may
    /// run more than once (serialization failures), so it must have no effect outside `tx`.
    pub async fn write<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        self.write_within(PATIENCE, class, &[], work).await
    }

    /// Like `write`, while it holds locks of these keys, which exclude every other write that holds one of them, on any
    /// server. SQLite's writes exclude each other anyway.
    pub async fn write_holding<T, E, F>(&self, locks: &BTreeSet<i64>, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        // In one order everywhere, so that two servers never wait for each other.
        let locks: Vec<i64> = locks.iter().copied().collect();
        self.write_within(PATIENCE, class, &locks, work).await
    }

    async fn write_within<T, E, F>(&self, patience: Duration, class: WriteClass, locks: &[i64], work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.write(patience, class, work).await,
            Driver::Postgres(postgres) => postgres.write(patience, class, locks, work).await,
        }
    }

    /// Runs `work`, one SELECT, outside a transaction: by itself it sees one snapshot, and beginning and ending a
    /// transaction would cost more than it does. Further statements each see a later snapshot, so they must not need to
    /// agree.
    pub async fn glance<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        self.glance_as(WriteClass::Api, work).await
    }

    /// Like `glance`, on connections that no number of API calls takes away. For the scheduler.
    pub async fn glance_for_scheduling<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        self.glance_as(WriteClass::Scheduling, work).await
    }

    async fn glance_as<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.glance(class, work).await,
            Driver::Postgres(postgres) => postgres.glance(class, work).await,
        }
    }

    /// Runs `work` over one consistent snapshot, read-only. For API calls.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        self.read_as(WriteClass::Api, work).await
    }

    /// Like `read`, on connections that no number of API calls takes away. For the scheduler.
    pub async fn read_for_scheduling<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        self.read_as(WriteClass::Scheduling, work).await
    }

    async fn read_as<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        match &self.driver {
            Driver::Sqlite(sqlite) => sqlite.read(class, work).await,
            Driver::Postgres(postgres) => postgres.read(class, work).await,
        }
    }
}
