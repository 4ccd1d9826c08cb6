//! Schedules, on both databases, with a simulated executor and a manual clock: what is started, when, and how it ends.

mod schedules;
mod world;
