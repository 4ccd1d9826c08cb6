//! The real router on a free loopback port, over a fresh database, with an executor that starts nothing and no
//! scheduler: what the API alone does, with rows moved on by the test.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tunesmith::api::{self, ApiSettings, Readiness};
use tunesmith::app::{App, AppError, Creation, Quotas};
use tunesmith::clock::{Calls, Clock};
use tunesmith::config::{FileSystem, FileSystemType};
use tunesmith::domain::names::{AttemptId, Scope};
use tunesmith::domain::request::MetricDefinition;
use tunesmith::domain::time::Timestamp;
use tunesmith::executor::images::{Image, Images};
use tunesmith::executor::{
    AttemptSpec, Executor, ExecutorError, LogChunk, LogFile, LogRecord, Observed, Outputs, Stream,
};
use tunesmith::objects::Objects;
use tunesmith::store::{BoxFuture, Tx, WriteClass};

use super::database::{Engine, TestDb};

/// The file system that there is, of type EFS.
pub const FILE_SYSTEM: &str = "fs-0123abcd";

/// When the manual clock of every test stands at its start.
pub const START: Timestamp = Timestamp(1_700_000_000_123);

/// A served application.
pub struct TestApp {
    pub app: App,
    pub executor: Arc<Idle>,
    pub url: String,
    _folder: tempfile::TempDir,
    _database: TestDb,
    server: tokio::task::JoinHandle<()>,
}

/// What a call was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Value,
}

/// An object store with one file system.
fn objects(folder: &Path) -> Objects {
    let file_system = FileSystem { id: FILE_SYSTEM.into(), kind: FileSystemType::EFS, path: folder.to_owned() };
    let objects = Objects::new(folder.join("objects"), vec![]).expect("an object store");
    objects.with_file_systems(&[file_system]).expect("a file system")
}

impl TestApp {
    pub async fn new(engine: Engine) -> Self {
        Self::with_quotas(engine, Quotas::default()).await
    }

    pub async fn with_quotas(engine: Engine, quotas: Quotas) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = TestDb::new(engine).await;
        let loss = MetricDefinition { name: "loss".into(), regex: "loss=([0-9.]+)".into() };
        let images = vec![
            Image::command("local/plain:1", ["true"]),
            Image { metric_definitions: vec![loss.clone()], ..Image::command("local/metrics:1", ["true"]) },
            Image { metric_definitions: vec![loss], ..Image::container("local/contained:1", "local/contained:1") },
        ];
        let executor = Arc::new(Idle::default());
        let app = App {
            db: database.db.clone(),
            clock: Clock::manual(START),
            objects: Arc::new(objects(folder.path())),
            executor: Arc::<Idle>::clone(&executor),
            images: Arc::new(Images::new(images).expect("image names")),
            calls: Calls::default(),
            creation: Creation::default(),
            quotas,
            container_pipes: false,
        };
        let readiness = Readiness::default();
        readiness.set(true);
        let router = api::router(app.clone(), settings(), readiness);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server =
            tokio::spawn(async move { api::serve(listener, router, std::future::pending()).await.expect("it serves") });
        Self { app, executor, url, _folder: folder, _database: database, server }
    }

    /// The scope of unsigned requests.
    pub fn scope() -> Scope {
        Scope { account: settings().account, region: settings().default_region }
    }

    /// Calls an operation of SageMaker.
    pub async fn call(&self, operation: &str, body: &Value) -> Answer {
        self.call_raw(operation, body.to_string()).await
    }

    /// Calls an operation with a body as it stands.
    pub async fn call_raw(&self, operation: &str, body: String) -> Answer {
        let (url, target) = (self.url.clone(), format!("SageMaker.{operation}"));
        let send = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let request = agent.post(&url).header("x-amz-target", &target);
            let mut response = request.content_type("application/x-amz-json-1.1").send(body).expect("an answer");
            let text = response.body_mut().read_to_string().expect("a text");
            let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
                (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned())
            };
            Answer {
                status: response.status().as_u16(),
                headers: response.headers().iter().map(header).collect(),
                body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            }
        };
        tokio::task::spawn_blocking(send).await.expect("the client thread")
    }

    /// Calls an operation that succeeds, with an answer as the service model has it.
    pub async fn ok(&self, operation: &str, body: &Value) -> Value {
        let answer = self.call(operation, body).await;
        assert_eq!(answer.status, 200, "{operation} {body}: {}", answer.body);
        super::model::assert_conforms(operation, &answer.body);
        answer.body
    }

    /// Calls an operation that is refused, and returns the error's code and text.
    pub async fn refused(&self, operation: &str, body: &Value) -> (String, String) {
        let answer = self.call(operation, body).await;
        assert_eq!(answer.status, 400, "{operation} {body}: {}", answer.body);
        let text = answer.body.get("message").or(answer.body.get("Message"));
        let code = answer.body["__type"].as_str().unwrap_or_default();
        (code.to_owned(), text.and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Moves rows on as the scheduler would.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, AppError>> + Send + 'static,
    ) -> T {
        self.app.db.write(WriteClass::Scheduling, work).await.expect("the rows move on")
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn settings() -> ApiSettings {
    ApiSettings {
        account: "000000000000".into(),
        default_region: "us-east-1".into(),
        max_body_bytes: 1024 * 1024,
        token_key: [7; 32],
    }
}

/// An executor that starts nothing, and whose logs are what the test put there.
#[derive(Debug, Default)]
pub struct Idle {
    logs: Mutex<HashMap<AttemptId, Vec<LogRecord>>>,
}

impl Idle {
    /// Appends a line of ten bytes' length in the stored log.
    pub fn print(&self, attempt: AttemptId, line: &str) {
        let mut logs = self.logs.lock().expect("no panic before");
        let records = logs.entry(attempt).or_default();
        let offset = 10 * records.len() as u64;
        records.push(LogRecord { offset, time: START, stream: Stream::Stdout, line: line.into() });
    }
}

#[async_trait]
impl Executor for Idle {
    fn id(&self) -> &'static str {
        "idle"
    }

    async fn launch(&self, _: &AttemptSpec) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        Ok(Vec::new())
    }

    async fn observe(&self, _: AttemptId) -> Result<Observed, ExecutorError> {
        Ok(Observed::Absent)
    }

    async fn changed(&self, _: AttemptId, _: Duration) {}

    async fn logs(&self, id: AttemptId, from_offset: u64, _: usize) -> Result<LogChunk, ExecutorError> {
        let logs = self.logs.lock().expect("no panic before");
        let records: Vec<_> =
            logs.get(&id).into_iter().flatten().filter(|r| r.offset >= from_offset).cloned().collect();
        let next_offset = records.last().map_or(from_offset, |last| last.offset + 10);
        Ok(LogChunk { records, next_offset })
    }

    async fn stop(&self, _: AttemptId) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn log_files(&self, _: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        Ok(Vec::new())
    }

    async fn outputs(&self, _: AttemptId) -> Result<Outputs, ExecutorError> {
        Ok(Outputs { model: "/nowhere".into(), data: "/nowhere".into() })
    }

    async fn remove(&self, _: AttemptId) -> Result<(), ExecutorError> {
        Ok(())
    }
}
