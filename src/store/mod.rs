//! All SQL: one text for SQLite and Postgres, one file per resource.
//!
//! Invariant: every write goes through [`Db::write`], answers only after its commit, and has no effect outside its
//! transaction. What the rows mean, and what must follow from them, belongs to `domain` and the scheduler.

pub mod attempts;
pub mod db;
pub mod definitions;
pub mod error;
#[cfg(test)]
mod explained;
pub mod failpoint;
mod listing;
pub mod logs;
pub mod metrics;
mod migrations;
mod postgres;
mod query;
pub mod rows;
pub mod servers;
mod sqlite;
pub mod tags;
pub mod training_jobs;
pub mod tuning_jobs;
mod tx;
mod writer;

pub use db::{BoxFuture, Db, WriteClass};
pub use error::StoreError;
pub use tx::Tx;
