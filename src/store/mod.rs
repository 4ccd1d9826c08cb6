//! All SQL: one text for SQLite and Postgres, one file per resource.
//!
//! Invariant: every write goes through [`Db::write`], answers only after its commit, and has no effect outside its
//! transaction. What the rows mean, and what must follow from them, belongs to `domain` and the scheduler.

pub mod attempts;
pub mod db;
pub mod definitions;
pub mod error;
pub mod logs;
pub mod metrics;
pub mod rows;
pub mod servers;
pub mod tags;
pub mod training_jobs;
pub mod tuning_jobs;

pub use db::{BoxFuture, Db, Tx, WriteClass};
pub use error::StoreError;
