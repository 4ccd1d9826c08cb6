//! Two drivers, one SQL text: the pools, the transaction, the write seam.

use std::future::Future;
use std::pin::Pin;

use crate::store::error::StoreError;

/// A boxed future that may borrow the transaction.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which queue a write waits in: when the queue is full, scheduling still gets in and API writes get `Busy`.
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
pub struct Db {}

/// A transaction of either driver.
#[derive(Debug)]
pub struct Tx<'c> {
    _c: std::marker::PhantomData<&'c ()>,
}

impl Db {
    /// Connects to `sqlite://path` or `postgres://…`; creates the SQLite file where it is missing. Does not migrate.
    pub async fn connect(url: &str) -> Result<Db, StoreError> {
        let _ = url;
        todo!()
    }

    /// Brings the schema up to date, one server at a time.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Runs `work` in a transaction and returns once it is committed durably. An error rolls it back. The closure may
    /// run more than once (serialization failures), so it must have no effect outside `tx`.
    pub async fn write<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let _ = (class, work);
        todo!()
    }

    /// Runs `work` over one consistent snapshot, read-only.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        let _ = work;
        todo!()
    }
}
