//! `POST /v1/training-jobs/{name}/interrupt`: a spot interruption on request. Our own extension; `tunesmith interrupt`
//! sends it.
//!
//! Invariant: 202 says that the interruption is committed, not that it is over. Which training jobs may be interrupted
//! is for the use case to say.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode, header};

use crate::api::Edge;
use crate::api::aws::error::AwsError;
use crate::api::aws::{service, signature};
use crate::domain::document::Document;

/// Answers one request; 202, as the training job's statuses tell when it is done.
pub(crate) async fn interrupt(
    State(edge): State<Edge>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let answer = async {
        let Path(name) = name.map_err(|rejection| AwsError::validation(rejection.body_text()))?;
        service::check("DescribeTrainingJob", &Document::object([("TrainingJobName", name.as_str().into())]))?;
        let mut scope = service::scope(&edge.settings, &headers)?;
        match query.as_deref().unwrap_or_default().split_once('=') {
            None if query.as_deref().unwrap_or_default().is_empty() => {}
            Some(("region", region)) if signature::is_region(region) => {
                if !headers.contains_key(header::AUTHORIZATION) {
                    region.clone_into(&mut scope.region);
                }
            }
            _ => {
                return Err(AwsError::validation(
                    "The query may hold region=, the name of a region, and nothing else.",
                ));
            }
        }
        let interrupted = crate::app::training_jobs::interrupt(&edge.app, &scope, &name).await;
        interrupted.map_err(|error| AwsError::from_app(&error, "InterruptTrainingJob"))
    };
    match answer.await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        Err(error) => error.into_response(),
    }
}
