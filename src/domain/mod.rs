//! Pure values and rules: names, ranges, statuses, the request as the control plane reads it, and the two deciders.
//!
//! Invariant: no async, no I/O, no clock, no randomness; every function is a function of its arguments.
//! Storage, wire formats and processes belong to the modules that call this one.

pub mod decide;
pub mod document;
pub mod names;
pub mod outcome;
pub mod pipe;
pub mod request;
pub mod rules;
pub mod s3;
pub mod space;
pub mod status;
pub mod time;
pub mod transitions;
