//! The API as clients see it, over both databases.

/// Makes each async test function of a module a test on SQLite and one on Postgres.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::support::database::Engine::Sqlite).await; })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::support::database::Engine::Postgres).await; })+
        }
    };
}

mod describe;
mod fixtures;
mod generate;
mod lifecycle;
mod lists;
mod logs;
mod model;
mod tags;
mod wire;
