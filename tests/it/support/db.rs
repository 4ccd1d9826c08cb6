//! A fresh, migrated database for one test.

use tunesmith::store::{BoxFuture, Db, StoreError, Tx, WriteClass};

use super::database::{Engine, FreshDatabase};

/// A database of its own, gone when the test is over.
#[derive(Debug)]
pub struct TestDb {
    /// The open database.
    pub db: Db,
    /// For `Db::connect`: a second server of the same database.
    pub url: String,
    /// Which of the two it is.
    pub engine: Engine,
    _fresh: FreshDatabase,
}

impl TestDb {
    /// A SQLite file in a temporary folder.
    pub async fn sqlite() -> Self {
        Self::new(Engine::Sqlite).await
    }

    /// A database on the tests' Postgres server.
    pub async fn postgres() -> Self {
        Self::new(Engine::Postgres).await
    }

    /// Either.
    pub async fn new(engine: Engine) -> Self {
        let fresh = FreshDatabase::new(engine).await;
        let db = Db::connect(&fresh.url).await.expect("the database connects");
        db.migrate().await.expect("the schema is made");
        Self { db, url: fresh.url.clone(), engine, _fresh: fresh }
    }

    /// A scheduling write.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.db.write(WriteClass::Scheduling, work).await
    }

    /// A read.
    pub async fn read<T: Send>(
        &self,
        work: impl for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.db.read(work).await
    }
}
