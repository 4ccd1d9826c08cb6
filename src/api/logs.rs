//! `GET /v1/training-jobs/{name}/log`: a training job's log, line by line. Our own extension; `tunesmith logs` reads
//! it.
//!
//! Invariant: the body is whole lines and nothing else; what a reader needs to go on is in the headers. What an offset
//! means, and where a log is kept, is for the use case to say.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::api::Edge;
use crate::api::aws::error::AwsError;
use crate::api::aws::{service, signature};
use crate::app::logs::LogPage;
use crate::domain::document::Document;

/// Where to go on reading.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("x-tunesmith-next-offset");
/// Which attempt it was; absent where there is none yet.
const ATTEMPT: HeaderName = HeaderName::from_static("x-tunesmith-attempt");
/// Whether nothing will ever follow of that attempt, or at all where there is none.
const END: HeaderName = HeaderName::from_static("x-tunesmith-end");

/// Answers one request.
pub(crate) async fn read(
    State(edge): State<Edge>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let answer = async {
        let Path(name) = name.map_err(|rejection| AwsError::validation(rejection.body_text()))?;
        service::check("DescribeTrainingJob", &Document::object([("TrainingJobName", name.as_str().into())]))?;
        let query = Query::parse(query.as_deref().unwrap_or_default())?;
        let mut scope = service::scope(&edge.settings, &headers)?;
        if let Some(region) = query.region.filter(|_| !headers.contains_key(header::AUTHORIZATION)) {
            scope.region = region;
        }
        crate::app::logs::read(&edge.app, &scope, &name, query.attempt, query.offset)
            .await
            .map_err(|error| AwsError::from_app(&error, "ReadTrainingJobLog"))
    };
    match answer.await {
        Ok(page) => lines(&page),
        Err(error) => error.into_response(),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    offset: u64,
    attempt: Option<u32>,
    region: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, AwsError> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = |what: &str| AwsError::validation(format!("The query parameter {name} must be {what}."));
            match name {
                "offset" => query.offset = value.parse().map_err(|_| wrong("a byte offset, 0 or more"))?,
                "attempt" => query.attempt = Some(value.parse().map_err(|_| wrong("the number of an attempt"))?),
                "region" if signature::is_region(value) => query.region = Some(value.to_owned()),
                "region" => return Err(wrong("the name of a region")),
                _ => {
                    return Err(AwsError::validation(
                        "The query has a parameter that is none of offset, attempt and region.",
                    ));
                }
            }
        }
        Ok(query)
    }
}

fn lines(page: &LogPage) -> Response<Body> {
    let mut text = Vec::new();
    for record in &page.lines {
        text.extend_from_slice(&record.line);
        text.push(b'\n');
    }
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(NEXT_OFFSET, HeaderValue::from(page.next_offset));
    if let Some(attempt) = page.attempt {
        headers.insert(ATTEMPT, HeaderValue::from(attempt));
    }
    headers.insert(END, HeaderValue::from_static(if page.end { "true" } else { "false" }));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_read_or_say_what_is_wrong() {
        let query = Query::parse("offset=12&attempt=2&region=eu-west-1").unwrap();
        assert_eq!(query, Query { offset: 12, attempt: Some(2), region: Some("eu-west-1".into()) });
        assert_eq!(Query::parse("").unwrap(), Query::default());
        for bad in ["offset=-1", "offset", "attempt=x", "region=..", "region=", "page=2"] {
            assert_eq!(Query::parse(bad).unwrap_err().code, "ValidationException", "{bad}");
        }
    }
}
