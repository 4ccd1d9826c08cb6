//! A fresh database for one test, gone when the test is over.

use sqlx::{AssertSqlSafe, Connection, Executor};
use tunesmith::store::{BoxFuture, Db, StoreError, Tx, WriteClass};

/// The two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A database of its own, gone when the test is over: open and migrated, or empty (`TestDb<()>`).
#[derive(Debug)]
pub struct TestDb<D = Db> {
    /// The open database.
    pub db: D,
    /// For `Db::connect`: a second server of the same database.
    pub url: String,
    /// Which of the two it is.
    pub engine: Engine,
    kept: Kept,
}

/// What goes with the test.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
enum Kept {
    File(tempfile::TempDir),
    Database { server: String, name: String },
}

impl TestDb<()> {
    /// A database that nobody has opened.
    pub async fn empty(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let url = format!("sqlite://{}", folder.path().join("tunesmith.db").display());
                Self { db: (), url, engine, kept: Kept::File(folder) }
            }
            Engine::Postgres => {
                let server = postgres_server();
                let name = format!("t{}", uuid::Uuid::new_v4().simple());
                let mut connection = sqlx::PgConnection::connect(&server).await.expect("Postgres answers");
                let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
                connection.execute(sqlx::raw_sql(create)).await.expect("a database is made");
                let (base, _) = server.rsplit_once('/').expect("a URL with a database");
                Self { db: (), url: format!("{base}/{name}"), engine, kept: Kept::Database { server, name } }
            }
        }
    }
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
        let TestDb { db: (), url, engine, kept } = TestDb::empty(engine).await;
        let db = Db::connect(&url).await.expect("the database connects");
        db.migrate().await.expect("the schema is made");
        Self { db, url, engine, kept }
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

/// The server that tests make their databases on.
#[expect(clippy::disallowed_methods, reason = "the one setting of the tests")]
fn postgres_server() -> String {
    std::env::var("TEST_DATABASE_URL").expect("set TEST_DATABASE_URL to a Postgres server that tests may use")
}

impl<D> TestDb<D> {
    /// Runs a statement that no store function would.
    pub async fn raw(&self, text: &str) -> Result<(), sqlx::Error> {
        let text = AssertSqlSafe(text.to_owned());
        match self.engine {
            Engine::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
                sqlx::raw_sql(text).execute(&mut connection).await.map(|_| ())
            }
            Engine::Postgres => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await?;
                sqlx::raw_sql(text).execute(&mut connection).await.map(|_| ())
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Self::Database { server, name } = self else { return };
        let (server, drop) = (server.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        // A thread of its own: the test's runtime may be at its end.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = sqlx::PgConnection::connect(&server).await.map_err(std::io::Error::other)?;
                connection.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await.map_err(std::io::Error::other)
            })
        });
        if let Ok(Err(error)) = thread.join() {
            eprintln!("a test database stays behind: {error}");
        }
    }
}
