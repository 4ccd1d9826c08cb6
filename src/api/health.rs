//! Whether the server lives and takes requests, for those who start it and send it traffic.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};

use crate::api::Edge;

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// The server takes requests: it is not draining and its database answers.
pub(crate) async fn ready(State(edge): State<Edge>) -> Response<Body> {
    let (status, text) = if !edge.readiness.get() {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or draining\n")
    } else if let Err(error) = crate::app::health::check(&edge.app).await {
        tracing::warn!(%error, "the database does not answer");
        (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
    } else {
        (StatusCode::OK, "ready\n")
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
