//! The API against a bare handler, and lists of many rows against lists of few.
//!
//! Everything is in one process: the real router over the real store on a loopback socket, and beside it a bare axum + sqlx
//! server (`bare`), each asked in turn by the same clients over keep-alive connections. Ratios carry over to other
//! machines; absolute figures do not.
//!
//!     cargo bench --bench api                                       # SQLite, lists at 1 k and 100 k rows
//!     BENCH_DATABASE_URL=postgres://… cargo bench --bench api       # Postgres; databases are made beside the one named
//!     BENCH_ROWS=1000000 BENCH_ONLY=lists …                         # lists at a million rows
//!     BENCH_CONNECTIONS=16 BENCH_REQUESTS=2000 BENCH_ROUNDS=7 BENCH_ONLY=rates …
//!     BENCH_OPERATION=CreateHyperParameterTuningJob BENCH_ONLY=rates …

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark"
)]

mod bare;
mod client;
mod lists;
mod rates;
mod real;

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

fn main() {
    // The server logs; here the lines go nowhere, but making them costs what it costs.
    tracing_subscriber::fmt().with_env_filter("info").with_writer(std::io::sink).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    runtime.block_on(async {
        let place = Place::new();
        println!("database: {}, disk: {:.0} fdatasync/s", place.engine(), fdatasyncs_per_second(place.folder.path()));
        if only != "lists" {
            rates::run(&place).await;
        }
        if only != "rates" {
            lists::run(&place).await;
        }
        place.clear().await;
    });
}

/// A number from the environment.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn fdatasyncs_per_second(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    200.0 / begun.elapsed().as_secs_f64()
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Where databases are made.
struct Place {
    folder: tempfile::TempDir,
    /// A Postgres server; SQLite without.
    server: Option<String>,
    made: std::sync::Mutex<Vec<String>>,
}

impl Place {
    fn new() -> Self {
        let server = std::env::var("BENCH_DATABASE_URL").ok();
        Self { folder: tempfile::tempdir().unwrap(), server, made: std::sync::Mutex::default() }
    }

    fn engine(&self) -> &'static str {
        if self.server.is_some() { "postgres" } else { "sqlite" }
    }

    /// The URL of a new, empty database.
    async fn database(&self) -> String {
        let name = format!("bench{}", uuid::Uuid::new_v4().simple());
        let Some(server) = &self.server else {
            return format!("sqlite://{}", self.folder.path().join(name).display());
        };
        self.administer(format!("CREATE DATABASE {name}")).await;
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        self.made.lock().unwrap().push(name);
        url
    }

    async fn clear(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        for name in made {
            self.administer(format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }

    async fn administer(&self, statement: String) {
        let Some(server) = &self.server else { return };
        let mut connection = sqlx::PgConnection::connect(server).await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
    }
}
