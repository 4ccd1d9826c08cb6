//! The transaction of either driver, and the places where the two databases speak differently.
//!
//! Invariant: every dialect hole is a method here. The texts of the statements are otherwise one.

use sqlx::{PgConnection, SqliteConnection};

use crate::store::StoreError;

/// The driver's connection, inside a transaction.
pub(super) enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A transaction of either driver. It ends with the closure that it was given to.
pub struct Tx<'c> {
    pub(super) conn: Conn<'c>,
    /// Whether no other server can be using this database.
    sole_server: bool,
    /// Whether a statement failed because of another transaction, so that all may go well a second time.
    pub(super) conflicted: bool,
    /// What begins the transaction where that has not run yet: it goes along with the first statement, which saves an
    /// exchange with the driver's thread. Where that fails, nothing may have begun: a closure ends with the first
    /// error.
    pub(super) opening: Option<&'static str>,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let driver = match self.conn {
            Conn::Sqlite(_) => "sqlite",
            Conn::Postgres(_) => "postgres",
        };
        f.debug_struct("Tx").field("driver", &driver).finish_non_exhaustive()
    }
}

impl<'c> Tx<'c> {
    pub(super) fn sqlite(conn: &'c mut SqliteConnection, sole_server: bool) -> Self {
        Self { conn: Conn::Sqlite(conn), sole_server, conflicted: false, opening: None }
    }

    /// A write transaction, or a part of one, that `opening` begins together with its first statement.
    pub(super) fn sqlite_opened_by(
        conn: &'c mut SqliteConnection,
        sole_server: bool,
        opening: Option<&'static str>,
    ) -> Self {
        Self { opening, ..Self::sqlite(conn, sole_server) }
    }

    pub(super) fn postgres(conn: &'c mut PgConnection) -> Self {
        Self { conn: Conn::Postgres(conn), sole_server: false, conflicted: false, opening: None }
    }

    /// Begins it by itself where it has not begun: SQLite would count the rows that a statement changes together with
    /// those of the one before.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        let (Some(opening), Conn::Sqlite(conn)) = (self.opening.take(), &mut self.conn) else { return Ok(()) };
        let outcome = sqlx::Executor::execute(&mut **conn, opening).await;
        outcome.map(|_| ()).map_err(|source| self.failed("beginning a transaction", source))
    }

    /// The suffix that locks the selected rows. SQLite's write transactions exclude each other anyway.
    pub(super) fn row_lock(&self) -> &'static str {
        match self.conn {
            Conn::Sqlite(_) => "",
            Conn::Postgres(_) => " FOR UPDATE",
        }
    }

    /// The database's clock, epoch milliseconds.
    pub(super) fn clock(&self) -> &'static str {
        match self.conn {
            Conn::Sqlite(_) => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Conn::Postgres(_) => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// Whether leases of other servers are those of dead ones.
    pub(super) fn sole_server(&self) -> bool {
        self.sole_server
    }

    /// Of two ways to run statements in one exchange with the database the driver's own: SQLite takes several
    /// statements at once, Postgres one, which may have others in its WITH clause.
    pub(super) fn exchange<T>(&self, sqlite: T, postgres: T) -> T {
        match self.conn {
            Conn::Sqlite(_) => sqlite,
            Conn::Postgres(_) => postgres,
        }
    }

    /// Waits for, and holds until the end of the transaction, a lock that is not a row's. SQLite's write transactions
    /// exclude each other anyway.
    pub(super) async fn advisory_lock(&mut self, key: i64) -> Result<(), StoreError> {
        match self.conn {
            Conn::Sqlite(_) => Ok(()),
            Conn::Postgres(_) => {
                let lock = crate::store::query::sql("taking a lock", "SELECT pg_advisory_xact_lock($1)");
                lock.bind(key).execute(self).await.map(|_| ())
            }
        }
    }

    /// Runs a script of several statements, however long it takes.
    pub(super) async fn script(&mut self, doing: &'static str, text: &'static str) -> Result<(), StoreError> {
        self.begin().await?;
        let outcome = match &mut self.conn {
            Conn::Sqlite(conn) => sqlx::raw_sql(text).execute(&mut **conn).await.map(|_| ()),
            Conn::Postgres(conn) => {
                let unbounded = sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut **conn).await;
                match unbounded {
                    Ok(_) => sqlx::raw_sql(text).execute(&mut **conn).await.map(|_| ()),
                    Err(source) => Err(source),
                }
            }
        };
        outcome.map_err(|source| self.failed(doing, source))
    }

    /// Notes and wraps a driver's error.
    pub(super) fn failed(&mut self, doing: &'static str, source: sqlx::Error) -> StoreError {
        self.conflicted |= is_conflict(&source);
        StoreError::Database { doing, source }
    }
}

/// Whether another transaction was in the way: a serialization failure or a deadlock.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}
