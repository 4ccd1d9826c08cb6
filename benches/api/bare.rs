//! The baseline: an axum handler for each operation that does nothing but its one statement.
//!
//! It has a pool of the same size and settings as the store's, and writes as durably. The body is read as JSON and not
//! checked; a job is one row of one table whose only index is its primary key; Describe answers the stored request as it
//! is, with status and time before it; List reads ten rows and renders the members that the real one renders. On SQLite
//! one task writes, as in the store: what waits shares a commit. On Postgres an insert is one statement that commits by
//! itself.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Executor as _, Row as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

const TABLE: &str = "CREATE TABLE bare_jobs (name TEXT NOT NULL PRIMARY KEY, status TEXT NOT NULL, \
                     created_at BIGINT NOT NULL, request TEXT NOT NULL)";
const CREATE: &str = "INSERT INTO bare_jobs (name, status, created_at, request) VALUES ($1, 'InProgress', $2, $3)";
const DESCRIBE: &str = "SELECT status, created_at, request FROM bare_jobs WHERE name = $1";
const LIST: &str = "SELECT name, status, created_at FROM bare_jobs ORDER BY name LIMIT 10";

/// A row to insert, and whom to tell once it is durable.
type Insert = (String, i64, String, oneshot::Sender<()>);

#[derive(Clone)]
enum Database {
    Sqlite { readers: SqlitePool, writer: mpsc::Sender<Insert> },
    Postgres(PgPool),
}

/// Makes the table in a migrated database and serves it on a free port.
pub async fn serve(url: &str) -> SocketAddr {
    let database = if let Some(path) = url.strip_prefix("sqlite://") {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(5))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut writing = options.connect().await.unwrap();
        writing.execute(TABLE).await.unwrap();
        let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false);
        let readers = pool.connect_with(options.read_only(true)).await.unwrap();
        let (writer, inserts) = mpsc::channel(256);
        tokio::spawn(write(writing, inserts));
        Database::Sqlite { readers, writer }
    } else {
        let pool = PgPoolOptions::new().max_connections(10).test_before_acquire(false).connect(url).await.unwrap();
        pool.execute(TABLE).await.unwrap();
        Database::Postgres(pool)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", post(handle)).with_state(database);
    tokio::spawn(async move {
        axum::serve(listener.tap_io(|stream| stream.set_nodelay(true).unwrap()), router).await.unwrap();
    });
    address
}

/// SQLite's group commit: one transaction for the inserts that wait.
async fn write(mut conn: SqliteConnection, mut inserts: mpsc::Receiver<Insert>) {
    while let Some(first) = inserts.recv().await {
        conn.execute("BEGIN IMMEDIATE").await.unwrap();
        let (mut next, mut done) = (Some(first), Vec::new());
        while let Some((name, at, request, reply)) = next.take() {
            sqlx::query(CREATE).bind(name).bind(at).bind(request).execute(&mut conn).await.unwrap();
            done.push(reply);
            if done.len() < 64 {
                next = inserts.try_recv().ok();
            }
        }
        conn.execute("COMMIT").await.unwrap();
        for reply in done {
            let _ = reply.send(());
        }
    }
}

async fn handle(State(database): State<Database>, headers: HeaderMap, body: Bytes) -> String {
    let input: Value = serde_json::from_slice(&body).unwrap();
    let target = headers["x-amz-target"].to_str().unwrap();
    let name = input["HyperParameterTuningJobName"].as_str().unwrap_or_default().to_owned();
    match target {
        "SageMaker.CreateHyperParameterTuningJob" => create(&database, name, &body).await,
        "SageMaker.DescribeHyperParameterTuningJob" => describe(&database, name).await,
        "SageMaker.ListHyperParameterTuningJobs" => list(&database).await,
        other => panic!("{other}"),
    }
}

async fn create(database: &Database, name: String, body: &Bytes) -> String {
    let arn = format!("arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/{name}");
    let request = String::from_utf8(body.to_vec()).unwrap();
    let at = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    match database {
        Database::Sqlite { writer, .. } => {
            let (reply, done) = oneshot::channel();
            writer.send((name, at, request, reply)).await.unwrap();
            done.await.unwrap();
        }
        Database::Postgres(pool) => {
            sqlx::query(CREATE).bind(name).bind(at).bind(request).execute(pool).await.unwrap();
        }
    }
    json!({"HyperParameterTuningJobArn": arn}).to_string()
}

/// Runs `$query` on either database and maps its rows.
macro_rules! fetch {
    ($database:expr, $query:expr, $($bind:expr)?, |$row:ident| $map:expr) => {
        match $database {
            Database::Sqlite { readers, .. } => {
                let rows = sqlx::query($query)$(.bind($bind))?.fetch_all(readers).await.unwrap();
                rows.iter().map(|$row| $map).collect::<Vec<_>>()
            }
            Database::Postgres(pool) => {
                let rows = sqlx::query($query)$(.bind($bind))?.fetch_all(pool).await.unwrap();
                rows.iter().map(|$row| $map).collect::<Vec<_>>()
            }
        }
    };
}

async fn describe(database: &Database, name: String) -> String {
    let rows = fetch!(database, DESCRIBE, name, |row| {
        (row.get::<String, _>(0), row.get::<i64, _>(1), row.get::<String, _>(2))
    });
    let (status, at, request) = &rows[0];
    format!("{{\"HyperParameterTuningJobStatus\":\"{status}\",\"CreationTime\":{at},\"Request\":{request}}}")
}

async fn list(database: &Database) -> String {
    let rows = fetch!(database, LIST, , |row| {
        let (name, at) = (row.get::<String, _>(0), row.get::<i64, _>(2));
        json!({
            "HyperParameterTuningJobArn": format!("arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/{name}"),
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobStatus": row.get::<String, _>(1),
            "CreationTime": at as f64 / 1e3,
            "LastModifiedTime": at as f64 / 1e3,
            "TrainingJobStatusCounters": {
                "Completed": 0, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0
            },
            "ObjectiveStatusCounters": {"Succeeded": 0, "Pending": 0, "Failed": 0},
            "Strategy": "Random",
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 100, "MaxParallelTrainingJobs": 10}
        })
    });
    json!({"HyperParameterTuningJobSummaries": rows}).to_string()
}
