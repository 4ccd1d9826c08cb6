//! Every integration test, one binary: real databases, real processes, the real router.

mod api;
mod clients;
mod crash;
mod executor;
mod imports;
mod readme;
mod scheduler;
mod store;
mod support;
