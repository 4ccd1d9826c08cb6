//! Schedules, on both databases, with a simulated executor and a manual clock: what is started, when, and how it ends.

/// Makes each schedule a test on either database.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::support::database::Engine::Sqlite).await; })+ }
        mod postgres { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::support::database::Engine::Postgres).await; })+ }
    };
}

mod early_stopping;
mod faults;
mod faulty;
mod schedules;
mod spot;
mod world;
