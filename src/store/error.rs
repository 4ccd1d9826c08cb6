//! What can go wrong between rows and values.

/// A failed store call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
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
