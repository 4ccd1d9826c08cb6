//! One request through `POST /`: body, scope, target, service model, operation, answer.
//!
//! Invariant: nothing behind this file sees a document that the service model does not allow, and nothing is stored
//! before the whole document has been checked.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};

use crate::api::aws::error::{AwsError, MEDIA_TYPE};
use crate::api::aws::model::Model;
use crate::api::aws::{Answer, Call, decode, sagemaker, signature, support, validate};
use crate::api::{ApiSettings, Edge};
use crate::domain::document::Document;
use crate::domain::names::Scope;

/// What a client has for sending its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a body that is too large is read all the same, so that the client gets to reading the answer.
const DRAINED_BYTES: usize = 8 << 20;

/// Answers one request.
pub(crate) async fn handle(State(edge): State<Edge>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let operation = operation(&parts.headers);
    let outcome = match &operation {
        Ok(name) => answer(&edge, &parts.headers, body, name).await,
        Err(error) => Err(error.clone()),
    };
    let name = operation.as_deref().unwrap_or("unknown");
    match outcome {
        Ok(output) => {
            tracing::debug!(operation = name, "answered");
            success(output)
        }
        Err(error) => {
            tracing::debug!(operation = name, code = error.code, "refused");
            error.into_response()
        }
    }
}

async fn answer(edge: &Edge, headers: &HeaderMap, body: Body, operation: &str) -> Result<Answer, AwsError> {
    let body = read_body(body, edge.settings.max_body_bytes).await?;
    let scope = scope(&edge.settings, headers)?;
    if !sagemaker::OPERATIONS.contains(&operation) {
        return Err(unknown_operation(operation));
    }
    let (mut input, raw) = decode::decode(&body)?;
    check(operation, &input)?;
    // Past this point a null member is an absent one.
    input.remove_nulls();
    let call = Call { app: &edge.app, scope, input, raw, tokens: &edge.tokens };
    let outcome = sagemaker::dispatch(operation, call).await.ok_or_else(|| unknown_operation(operation))?;
    outcome.map_err(|error| AwsError::from_app(&error, operation))
}

/// Checks a document against the service model and against what is supported of it.
pub(crate) fn check(operation: &str, document: &Document<'_>) -> Result<(), AwsError> {
    let model = Model::builtin().map_err(|error| {
        tracing::error!(%error, "the service model cannot be read");
        AwsError::internal()
    })?;
    let input = model.input(operation).ok_or_else(|| unknown_operation(operation))?;
    validate::validate(model, input, document)?;
    support::check(operation, document).map_err(AwsError::validation)
}

/// The account and region that a request speaks of.
pub(crate) fn scope(settings: &ApiSettings, headers: &HeaderMap) -> Result<Scope, AwsError> {
    let region = signature::region(headers)?.unwrap_or_else(|| settings.default_region.clone());
    Ok(Scope { account: settings.account.clone(), region })
}

/// The operation that `X-Amz-Target` names; whether it is served is for the model to say.
fn operation(headers: &HeaderMap) -> Result<String, AwsError> {
    let mut targets = headers.get_all("x-amz-target").iter();
    let target = targets.next().and_then(|value| value.to_str().ok()).filter(|_| targets.next().is_none());
    let Some(target) = target else {
        return Err(AwsError::refused(
            "UnknownOperationException",
            "The request needs one X-Amz-Target header, such as SageMaker.ListHyperParameterTuningJobs.",
        ));
    };
    target.strip_prefix("SageMaker.").map(str::to_owned).ok_or_else(|| unknown_operation(target))
}

fn unknown_operation(name: &str) -> AwsError {
    let name = super::quote::clip(name);
    AwsError::refused(
        "UnknownOperationException",
        format!("There is no operation {name} here. /openapi.json lists the operations that are served."),
    )
}

/// Reads a whole body of at most `limit` bytes.
async fn read_body(body: Body, limit: usize) -> Result<Bytes, AwsError> {
    let announced = body.size_hint().lower();
    tokio::time::timeout(BODY_TIMEOUT, collect(body, limit)).await.unwrap_or_else(|_| {
        if announced > limit as u64 {
            return Err(too_large(limit));
        }
        let text = format!("The request body did not arrive within {} seconds.", BODY_TIMEOUT.as_secs());
        Err(AwsError::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", text))
    })
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, AwsError> {
    let announced = body.size_hint().lower();
    let mut is_too_large = announced > limit as u64;
    let mut kept = BytesMut::with_capacity(if is_too_large { 0 } else { usize::try_from(announced).unwrap_or(0) });
    let mut read = 0;
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| {
            AwsError::refused("SerializationException", format!("The request body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len();
        is_too_large |= read > limit;
        if !is_too_large {
            kept.extend_from_slice(&data);
        } else if read > limit.saturating_add(DRAINED_BYTES) {
            break;
        }
    }
    if is_too_large { Err(too_large(limit)) } else { Ok(kept.freeze()) }
}

fn too_large(limit: usize) -> AwsError {
    let text = format!("The request body is larger than {limit} bytes. Send a smaller document.");
    AwsError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException", text)
}

/// An operation without output answers with an empty body, as the service does.
fn success(Answer(output): Answer) -> Response<Body> {
    let mut response = Response::new(Body::from(output));
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    response
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use axum::body::HttpBody;

    /// A client that announces a body of so many bytes and sends none of it.
    struct Stalled(u64);

    impl HttpBody for Stalled {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> hyper::body::SizeHint {
            hyper::body::SizeHint::with_exact(self.0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stalls_is_given_up() {
        let error = read_body(Body::new(Stalled(10)), 10).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (408, "RequestTimeoutException"));
        // What it announced would have been refused whole.
        let error = read_body(Body::new(Stalled(11)), 10).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (413, "RequestEntityTooLargeException"));
    }

    #[tokio::test]
    async fn a_body_fits_up_to_its_last_byte() {
        assert_eq!(read_body(Body::from("0123456789"), 10).await.unwrap(), "0123456789");
        let error = read_body(Body::from("0123456789a"), 10).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (413, "RequestEntityTooLargeException"));
    }
}
