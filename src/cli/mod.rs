//! The commands of the `tunesmith` binary.

pub mod demo;
