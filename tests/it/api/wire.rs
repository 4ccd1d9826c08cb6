//! The wire, byte by byte: what is refused before any operation, and what every answer carries.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tunesmith::api::aws::model::Model;
use tunesmith::api::aws::sagemaker::OPERATIONS;
use tunesmith::api::{self, ApiSettings, Readiness};

use super::fixtures;
use crate::support::app::TestApp;
use crate::support::database::Engine;
use crate::support::documents::{arbitrary, exchange, valid};

const LIMIT: usize = 1 << 20;

/// The router under the server loop that `tunesmith serve` uses.
struct Served {
    _app: TestApp,
    address: std::net::SocketAddr,
    readiness: Readiness,
    server: tokio::task::JoinHandle<()>,
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Served {
    async fn new() -> Self {
        let app = TestApp::new(Engine::Sqlite).await;
        let readiness = Readiness::default();
        readiness.set(true);
        let settings = ApiSettings {
            account: "123456789012".into(),
            default_region: "local".into(),
            max_body_bytes: LIMIT,
            token_key: [1; 32],
        };
        let router = api::router(app.app.clone(), settings, readiness.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            api::serve(listener, router, std::future::pending()).await.expect("it serves");
        });
        Self { _app: app, address, readiness, server }
    }

    /// Sends a request with exactly these headers besides the body's length.
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("the head is sent");
        // A server may answer and close before it has read a body that is too large.
        let _ = stream.write_all(body).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("a whole answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let answer = Answer { status, head: head.to_lowercase(), body: body.to_owned() };
        assert!(answer.header("x-amzn-requestid").parse::<uuid::Uuid>().is_ok(), "{answer:?}");
        answer
    }

    /// Calls an operation of SageMaker.
    async fn call(&self, operation: &str, body: &[u8]) -> Answer {
        let target = format!("SageMaker.{operation}");
        self.send("POST /", &[("host", "127.0.0.1:8686"), ("x-amz-target", &target)], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[("host", "localhost")], b"").await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }

    /// The text of an error, whose form is checked on the way.
    fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/x-amz-json-1.1");
        assert_eq!(self.header("x-amzn-errortype"), code.to_lowercase());
        let body: Value = serde_json::from_str(&self.body).expect("a JSON body");
        assert_eq!(body["__type"], code);
        body["message"].as_str().expect("a message").to_owned()
    }
}

#[tokio::test]
async fn an_answer_is_aws_json() {
    let served = Served::new().await;
    let answer = served.call("ListHyperParameterTuningJobs", b"{}").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-amz-json-1.1"), "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("a JSON body");
    assert_eq!(body, json!({"HyperParameterTuningJobSummaries": []}));
    // No body stands for no members.
    assert_eq!(served.call("ListHyperParameterTuningJobs", b"").await.status, 200);
}

#[tokio::test]
async fn operations_that_are_not_served_are_unknown() {
    let served = Served::new().await;
    for target in
        ["SageMaker.CreateModel", "SageMaker.", "SageMaker", "DynamoDB_20120810.ListTables", "sagemaker.ListTags"]
    {
        let headers = [("host", "localhost"), ("x-amz-target", target)];
        let answer = served.send("POST /", &headers, b"{}").await;
        answer.error(400, "UnknownOperationException");
    }
    served.send("POST /", &[("host", "localhost")], b"{}").await.error(400, "UnknownOperationException");
    let twice = [("host", "localhost"), ("x-amz-target", "SageMaker.ListTags"), ("x-amz-target", "SageMaker.AddTags")];
    served.send("POST /", &twice, b"{}").await.error(400, "UnknownOperationException");
    served.get("/").await.error(405, "UnknownOperationException");
    served.get("/nothing/here").await.error(404, "UnknownOperationException");
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_and_nothing_is_stored() {
    let served = Served::new().await;
    let deep = format!("{{\"Tags\":{}{}}}", "[".repeat(32), "]".repeat(32));
    let bodies: [(&[u8], &str); 8] = [
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"[]", "START_ARRAY as the whole document"),
        (deep.as_bytes(), "nests deeper than 32 levels"),
        (br#"{"ResourceArn":"a","ResourceArn":"b"}"#, "the member 'ResourceArn' more than once"),
        (br#"{"ResourceArn":"a\u0000b"}"#, "U+0000"),
        (br#"{"ResourceArn":5}"#, "NUMBER_VALUE at 'resourceArn' can not be converted to a String"),
        (br#"{"Tags":{}}"#, "START_OBJECT at 'tags' can not be converted to a List"),
    ];
    for (body, part) in bodies {
        let text = served.call("AddTags", body).await.error(400, "SerializationException");
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn all_violations_come_in_one_answer() {
    let served = Served::new().await;
    let body = json!({"HyperParameterTuningJobName": "a_b", "HyperParameterTuningJobConfig": {}}).to_string();
    let text = served.call("CreateHyperParameterTuningJob", body.as_bytes()).await.error(400, "ValidationException");
    insta::assert_snapshot!(text, @"3 validation errors detected: Value 'a_b' at 'hyperParameterTuningJobName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}; Value null at 'hyperParameterTuningJobConfig.strategy' failed to satisfy constraint: Member must not be null; Value null at 'hyperParameterTuningJobConfig.resourceLimits' failed to satisfy constraint: Member must not be null");
}

#[tokio::test]
async fn a_body_may_have_a_mebibyte_and_no_byte_more() {
    let served = Served::new().await;
    let body = |length: usize| format!("{{}}{}", " ".repeat(length - 2)).into_bytes();
    assert_eq!(served.call("ListHyperParameterTuningJobs", &body(LIMIT)).await.status, 200);
    for length in [LIMIT + 1, 5 * LIMIT] {
        let answer = served.call("ListHyperParameterTuningJobs", &body(length)).await;
        let text = answer.error(413, "RequestEntityTooLargeException");
        assert!(text.contains("1048576 bytes"), "{text}");
    }
}

#[tokio::test]
async fn only_this_machine_and_no_web_page_gets_in() {
    let served = Served::new().await;
    let target = ("x-amz-target", "SageMaker.ListHyperParameterTuningJobs");
    for headers in [
        vec![("host", "evil.example"), target],
        vec![("host", "localhost.evil.example:8686"), target],
        vec![target],
        vec![("host", "localhost"), ("origin", "http://localhost:8686"), target],
    ] {
        served.send("POST /", &headers, b"{}").await.error(403, "AccessDeniedException");
    }
    served.send("GET /healthz", &[("host", "evil.example")], b"").await.error(403, "AccessDeniedException");
    for host in ["localhost:8686", "127.0.0.1", "[::1]:8686"] {
        assert_eq!(served.send("POST /", &[("host", host), target], b"{}").await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn the_region_is_the_credential_scopes_and_a_setting_where_unsigned() {
    let served = Served::new().await;
    let create = |credential: Option<&'static str>| {
        let served = &served;
        async move {
            let body = fixtures::minimal("same-name").to_string();
            let target = ("x-amz-target", "SageMaker.CreateHyperParameterTuningJob");
            let mut headers = vec![("host", "localhost"), target];
            let scheme = format!(
                "AWS4-HMAC-SHA256 Credential={}, SignedHeaders=host, Signature=00",
                credential.unwrap_or_default()
            );
            if credential.is_some() {
                headers.push(("authorization", &scheme));
            }
            served.send("POST /", &headers, body.as_bytes()).await
        }
    };
    create(Some("AK/20260101/eu-west-1/sagemaker")).await.error(400, "IncompleteSignatureException");
    create(Some("AK/20260101/EU/sagemaker/aws4_request")).await.error(400, "IncompleteSignatureException");
    create(Some("AK/20260101/eu-west-1/s3/aws4_request")).await.error(400, "InvalidSignatureException");
    // Names are unique per region, so the same one is free in each.
    for (credential, region) in [(Some("AK/20260101/eu-west-1/sagemaker/aws4_request"), "eu-west-1"), (None, "local")] {
        let answer = create(credential).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let arn = format!("arn:aws:sagemaker:{region}:123456789012:hyper-parameter-tuning-job/same-name");
        assert!(answer.body.contains(&arn), "{answer:?}");
    }
}

#[tokio::test]
async fn health_says_whether_requests_are_taken() {
    let served = Served::new().await;
    assert_eq!(served.get("/healthz").await.status, 200);
    assert_eq!(served.get("/readyz").await.status, 200);
    served.readiness.set(false);
    assert_eq!(served.get("/healthz").await.status, 200);
    assert_eq!(served.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn the_document_lists_what_is_served() {
    let served = Served::new().await;
    let answer = served.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document: Value = serde_json::from_str(&answer.body).expect("a JSON document");
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            let answer = if let Some(target) = path.strip_prefix("/#") {
                let headers = [("host", "localhost"), ("x-amz-target", target)];
                served.send(&format!("{method} /"), &headers, b"{\"\":0}").await
            } else {
                let line = format!("{method} {}", path.replace("{name}", "none"));
                served.send(&line, &[("host", "localhost")], b"").await
            };
            assert_ne!(answer.header("x-amzn-errortype"), "unknownoperationexception", "{path}: {answer:?}");
        }
    }
    for path in api::paths().filter(|path| *path != "/") {
        assert!(paths.contains_key(path), "{path} is served, and the document lacks it");
    }
}

#[tokio::test]
async fn a_log_is_asked_for_in_whole_numbers() {
    let served = Served::new().await;
    let text = served.get("/v1/training-jobs/a/log?offset=x").await.error(400, "ValidationException");
    assert_eq!(text, "The query parameter offset must be a byte offset, 0 or more.");
    served.get("/v1/training-jobs/none/log").await.error(400, "ValidationException");
    for name in ["a%00b", "..%2F..", "%FF", "a_b"] {
        served.get(&format!("/v1/training-jobs/{name}/log")).await.error(400, "ValidationException");
    }
}

#[tokio::test]
async fn no_document_makes_the_service_fail() {
    let served = Served::new().await;
    let model = Model::builtin().expect("the built-in model");
    let mut runner = TestRunner::deterministic();
    let mut draw = |strategy: &BoxedStrategy<Value>| strategy.new_tree(&mut runner).expect("a value").current();
    let any = arbitrary().boxed();
    for operation in OPERATIONS {
        let input = valid(model, model.input(operation).expect("an operation of the model"));
        for at in 0..12 {
            let mut document = draw(&input);
            // The first ones stand as they are; the others have one place exchanged.
            if at >= 4 {
                exchange(&mut document, at * 7 - 28, draw(&any));
            }
            let answer = served.call(operation, document.to_string().as_bytes()).await;
            assert!(answer.status < 500, "{operation} {document}: {answer:?}");
        }
    }
}
