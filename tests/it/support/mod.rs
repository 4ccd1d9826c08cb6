//! What tests of several areas share: databases, a served application, the process executor.

pub mod app;
pub mod database;
pub mod documents;
pub mod executor_harness;
pub mod model;
pub mod s3;
pub mod server;
