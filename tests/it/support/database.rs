//! A fresh database for one test, gone when the test is over.

use sqlx::{AssertSqlSafe, Connection, Executor};

/// The two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// An empty database of its own.
#[derive(Debug)]
pub struct FreshDatabase {
    /// For `Db::connect`.
    pub url: String,
    kept: Kept,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
enum Kept {
    File(tempfile::TempDir),
    Database { server: String, name: String },
}

impl FreshDatabase {
    pub async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let url = format!("sqlite://{}", folder.path().join("tunesmith.db").display());
                Self { url, kept: Kept::File(folder) }
            }
            Engine::Postgres => {
                let server = postgres_server();
                let name = format!("t{}", uuid::Uuid::new_v4().simple());
                let mut connection = sqlx::PgConnection::connect(&server).await.expect("Postgres answers");
                let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
                connection.execute(sqlx::raw_sql(create)).await.expect("a database is made");
                let (base, _) = server.rsplit_once('/').expect("a URL with a database");
                Self { url: format!("{base}/{name}"), kept: Kept::Database { server, name } }
            }
        }
    }
}

/// The server that tests make their databases on.
#[expect(clippy::disallowed_methods, reason = "the one setting of the tests")]
fn postgres_server() -> String {
    std::env::var("TEST_DATABASE_URL").expect("set TEST_DATABASE_URL to a Postgres server that tests may use")
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        let Kept::Database { server, name } = &self.kept else { return };
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
