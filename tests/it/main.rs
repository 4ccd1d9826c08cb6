//! Every integration test, one binary: real databases, real processes, the real router.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on says so by panicking")]

mod api;
mod cli;
mod clients;
mod crash;
mod executor;
#[cfg(feature = "docker")]
mod images;
mod imports;
mod readme;
mod s3;
mod scheduler;
mod store;
mod support;
mod tuning;
