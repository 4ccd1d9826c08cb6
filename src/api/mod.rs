//! The HTTP edge: AWS JSON 1.1 over `POST /`, health, the API document, and of training jobs the log and the
//! interruption.
//!
//! Invariant: only this module knows axum and the wire; every byte from outside is bounded and checked here before a
//! use case sees it, and every response carries the request's id, save what hyper itself answers to a head that it
//! cannot read.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::app::App;

pub mod aws;
mod guard;
mod health;
mod interrupt;
mod logs;
mod server;

pub use server::serve;

use aws::error::AwsError;
use aws::tokens::Tokens;

/// Names a request, in its response and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Settings of the edge.
#[derive(Clone)]
pub struct ApiSettings {
    /// Twelve digits; in every ARN.
    pub account: String,
    /// The region of requests without a credential scope.
    pub default_region: String,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Seals `NextToken`s; kept in the data directory or the database, so that tokens outlive a restart.
    pub token_key: [u8; 32],
}

impl std::fmt::Debug for ApiSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiSettings")
            .field("account", &self.account)
            .field("default_region", &self.default_region)
            .field("max_body_bytes", &self.max_body_bytes)
            .finish_non_exhaustive()
    }
}

/// Set when the server drains: readiness goes red.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<std::sync::atomic::AtomicBool>);

impl Readiness {
    /// Ready from now on, or no more.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether the server takes requests.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// What every handler works with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) app: App,
    pub(crate) settings: Arc<ApiSettings>,
    pub(crate) readiness: Readiness,
    pub(crate) tokens: Arc<Tokens>,
}

/// Each path that is served, with what answers there.
fn routes() -> [(&'static str, MethodRouter<Edge>); 6] {
    [
        ("/", post(aws::service::handle)),
        ("/healthz", get(health::live)),
        ("/readyz", get(health::ready)),
        ("/openapi.json", get(document)),
        ("/v1/training-jobs/{name}/log", get(logs::read)),
        ("/v1/training-jobs/{name}/interrupt", post(interrupt::interrupt)),
    ]
}

/// The paths that are served; all operations of AWS are at `/`.
pub fn paths() -> impl Iterator<Item = &'static str> {
    routes().into_iter().map(|(path, _)| path)
}

/// All routes.
pub fn router(app: App, settings: ApiSettings, readiness: Readiness) -> Router {
    // Read now, so that the first request does not wait for it; a failure is told by each request.
    let _ = aws::model::Model::builtin();
    let _ = aws::support::Support::builtin();
    let tokens = Arc::new(Tokens::new(settings.token_key));
    let routes = routes()
        .into_iter()
        .fold(Router::<Edge>::new(), |router, (path, answer)| router.route(path, answer))
        .method_not_allowed_fallback(|| async { not_here(StatusCode::METHOD_NOT_ALLOWED) })
        .fallback(|| async { not_here(StatusCode::NOT_FOUND) })
        .with_state(Edge { app, settings: Arc::new(settings), readiness, tokens });
    enclose(routes)
}

/// What every response goes through, whichever route it comes from.
fn enclose(routes: Router) -> Router {
    routes.layer(CatchPanicLayer::custom(panicked)).layer(from_fn(admit))
}

/// Lets a request of this machine pass. Gives it an id, which every line of the log about it carries, and the response
/// the headers that all have.
async fn admit(request: Request, next: Next) -> Response<Body> {
    let id = Uuid::new_v4();
    let mut response = match guard::verdict(&request) {
        Ok(()) => next.run(request).instrument(tracing::error_span!("request", %id)).await,
        Err(text) => AwsError::new(StatusCode::FORBIDDEN, "AccessDeniedException", text).into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that the layer asks for")]
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a request panicked");
    AwsError::internal().into_response()
}

fn not_here(status: StatusCode) -> Response<Body> {
    let text = "There is nothing here. AWS operations are POST requests to / with an X-Amz-Target header; /openapi.json \
                lists all that is served.";
    AwsError::new(status, "UnknownOperationException", text).into_response()
}

async fn document() -> Response<Body> {
    let mut response = Response::new(Body::from(aws::model::DOCUMENT));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn get_panicking(host: &str) -> String {
        let routes = Router::new().route("/", get(|| async { panic!("password=hunter2") as String }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(serve(listener, enclose(routes), std::future::pending()));
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_failure_that_says_nothing() {
        let answer = get_panicking("localhost").await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        assert!(answer.contains("x-amzn-errortype: InternalFailure"), "{answer}");
        assert!(answer.contains("x-amzn-requestid: "), "{answer}");
        assert!(!answer.contains("hunter2"), "{answer}");
    }

    #[tokio::test]
    async fn no_route_is_reached_from_elsewhere() {
        let answer = get_panicking("evil.example").await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("x-amzn-requestid: "), "{answer}");
    }

    #[test]
    fn settings_show_no_key() {
        let settings = ApiSettings {
            account: "000000000000".into(),
            default_region: "us-east-1".into(),
            max_body_bytes: 1,
            token_key: [217; 32],
        };
        assert!(!format!("{settings:?}").contains("217"));
    }
}
