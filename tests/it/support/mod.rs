//! What suites share: databases, a served application, a server of its own, executors.

pub mod app;
pub mod database;
pub(crate) mod executor_harness;
