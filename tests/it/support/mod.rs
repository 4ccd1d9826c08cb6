//! What tests of several areas share: databases, a served application, the executors, a Docker daemon.

pub mod app;
pub mod database;
#[cfg(feature = "docker")]
pub mod docker;
pub mod documents;
pub mod executor_harness;
pub mod model;
pub mod s3;
pub mod server;
