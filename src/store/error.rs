//! What can go wrong between rows and values.

use std::sync::Arc;

/// A failed store call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The scope has as many tuning jobs that are not over as it may have.
    #[error("the scope has {used} tuning jobs that are not over and may have no more")]
    QuotaUsed {
        /// How many.
        used: u32,
    },
    /// A name that is already used in its scope.
    #[error("the name {name} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The write queue is full; the caller may try again.
    #[error("the database has more writes waiting than it will queue")]
    Busy,
    /// The lease that guarded a write has passed to another server.
    #[error("the lease on tuning job {job} was lost")]
    LeaseLost {
        /// The tuning job.
        job: uuid::Uuid,
    },
    /// A row that no version of this program writes.
    #[error("column {column} of {table} holds an unreadable value for {row}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// The row's key.
        row: String,
    },
    /// A value that has no JSON form.
    #[error("a document could not be written as JSON")]
    Unstorable {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A cursor that belongs to a list in another order.
    #[error("the cursor does not belong to a list sorted by {sort_by}")]
    WrongCursor {
        /// The sort asked for.
        sort_by: &'static str,
    },
    /// A sort that this list does not have.
    #[error("this list cannot be sorted by {sort_by}")]
    WrongSort {
        /// The sort asked for.
        sort_by: &'static str,
    },
    /// A database URL of an unknown kind.
    #[error("`{scheme}` names no database: give sqlite://PATH or postgres://USER@HOST/NAME")]
    UnknownDatabase {
        /// What stands before `://`, or all of it where there is none.
        scheme: String,
    },
    /// A Postgres URL that does not parse. Its text is not shown: it may hold a password.
    #[error("the Postgres URL does not parse")]
    InvalidUrl {
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The database file, or the lock beside it, cannot be opened.
    #[error("{path} cannot be opened")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another server holds the SQLite database.
    #[error("another server is using {path}; stop it, or give this one a data directory of its own")]
    InUse {
        /// The database file.
        path: String,
    },
    /// The schema is one that a later version wrote.
    #[error("the database has schema version {found}, this program knows up to {known}: run a newer program")]
    NewerSchema {
        /// In the database.
        found: i64,
        /// In the program.
        known: i64,
    },
    /// A migration that was applied is not the one that this program has.
    #[error("migration {version} in the database is not the one in this program: the schema was changed by hand")]
    ForeignSchema {
        /// The migration.
        version: i64,
    },
    /// A transaction took longer than it may; nothing of it remains.
    #[error("the database did not finish within {seconds} s")]
    TimedOut {
        /// How long it was given.
        seconds: u64,
    },
    /// The code of a write panicked; nothing of it remains.
    #[error("the code of a write panicked")]
    Panicked,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// The transaction that held the write, with others, could not be committed; nothing of it remains.
    #[error("the database failed while committing")]
    Commit {
        /// The cause, shared by the writes of the transaction.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// The database's own error.
    #[error("the database failed while {doing}")]
    Database {
        /// The store call.
        doing: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
}
