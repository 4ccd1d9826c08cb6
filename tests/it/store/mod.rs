//! The store on both databases: every function of it, and what it promises about writes, lists, leases and the schema.

/// Makes each async test function of a module a test on each database.
macro_rules! store_suite {
    ([$($database:ident),+] $tests:tt) => {
        $(store_suite! { @one $database $tests })+
    };
    (@one $database:ident { $($test:ident),+ $(,)? }) => {
        mod $database {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::support::db::TestDb::$database().await).await; })+
        }
    };
}

mod attempts;
mod completeness;
mod fixtures;
mod jobs;
mod leases;
mod lists;
mod metrics;
mod schema;
mod writes;
