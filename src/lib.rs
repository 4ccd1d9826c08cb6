//! Tunesmith: a self-hosted automatic model tuning service that speaks the AWS SageMaker API.
//!
//! `ARCHITECTURE.md` maps the modules; the import table it states is held by `tests/it/imports/mod.rs`.

pub mod domain;
pub mod metrics;
pub mod search;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod executor;
#[cfg(feature = "server")]
pub mod objects;
#[cfg(feature = "server")]
pub mod scheduler;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
