//! The demo: a tuning job over a real data set, from an empty folder to a table of the best models.

mod data;
mod network;
pub mod trainer;
