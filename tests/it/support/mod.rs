//! What suites share: databases, a served application.

pub mod app;
pub mod database;
pub mod documents;
pub mod model;
