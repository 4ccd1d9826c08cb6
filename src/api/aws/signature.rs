//! What a request's signature says of its scope. The signature itself is not verified: the server keeps to loopback.
//!
//! Invariant: a region that comes out fits `[a-z0-9-]{1,32}`, so it can stand in keys and ARNs as it is.

use axum::http::{HeaderMap, header};

use crate::api::aws::error::AwsError;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The region of the credential scope; none where the request is not signed.
pub fn region(headers: &HeaderMap) -> Result<Option<String>, AwsError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(incomplete("The request has more than one Authorization header."));
    }
    let text = value.to_str().map_err(|_| incomplete("The Authorization header is not ASCII text."))?;
    let rest = text
        .strip_prefix(ALGORITHM)
        .filter(|rest| rest.starts_with(' '))
        .ok_or_else(|| incomplete(format!("The Authorization header must begin with '{ALGORITHM}'.")))?;
    let parameter = |name: &str| {
        let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        found
            .filter(|value| !value.is_empty())
            .ok_or_else(|| incomplete(format!("The Authorization header requires the '{name}' parameter.")))
    };
    let credential = parameter("Credential")?;
    parameter("SignedHeaders")?;
    parameter("Signature")?;
    scope_region(credential).map(|region| Some(region.to_owned()))
}

/// Whether a text can be a region's name.
#[must_use]
pub fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The region of `<access key>/<date>/<region>/<service>/aws4_request`.
fn scope_region(credential: &str) -> Result<&str, AwsError> {
    let form =
        || incomplete("The Credential must have the form <access key>/<yyyymmdd>/<region>/sagemaker/aws4_request.");
    // The access key comes first and is the only part that may hold a slash.
    let mut parts = credential.rsplitn(5, '/');
    let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or_else(form);
    let (terminator, service, region, date, _key) = (next()?, next()?, next()?, next()?, next()?);
    if terminator != "aws4_request" || date.len() != 8 || !date.bytes().all(|b| b.is_ascii_digit()) {
        return Err(form());
    }
    if !is_region(region) {
        return Err(incomplete(
            "The region of the Credential must have 1 to 32 characters, each a lower-case letter, a digit or a hyphen.",
        ));
    }
    if service != "sagemaker" {
        let text = "Credential should be scoped to correct service: 'sagemaker'.";
        return Err(AwsError::refused("InvalidSignatureException", text));
    }
    Ok(region)
}

fn incomplete(text: impl Into<String>) -> AwsError {
    AwsError::refused("IncompleteSignatureException", text)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(authorization: &str) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        region(&headers).map_err(|e| e.code)
    }

    fn signed(credential: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature=0a")
    }

    #[test]
    fn a_scope_gives_its_region() {
        assert_eq!(region(&HeaderMap::new()), Ok(None));
        assert_eq!(read(&signed("AK/20260101/eu-west-1/sagemaker/aws4_request")), Ok(Some("eu-west-1".into())));
        assert_eq!(read(&signed("A/K/20260101/r/sagemaker/aws4_request")), Ok(Some("r".into())));
        let dense = signed("AK/20260101/local/sagemaker/aws4_request").replace(", ", ",");
        assert_eq!(read(&dense), Ok(Some("local".into())));
    }

    #[test]
    fn malformed_authorizations_are_incomplete() {
        for bad in [
            "Bearer x",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256Credential=AK/20260101/r/sagemaker/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AK/20260101/r/sagemaker/aws4_request",
            &signed(""),
            &signed("AK"),
            &signed("AK/20260101/r/sagemaker"),
            &signed("AK/2026-1-1/r/sagemaker/aws4_request"),
            &signed("AK/20260101//sagemaker/aws4_request"),
            &signed("AK/20260101/US_EAST/sagemaker/aws4_request"),
            &signed("AK/20260101/../sagemaker/aws4_request"),
            &signed(&format!("AK/20260101/{}/sagemaker/aws4_request", "r".repeat(33))),
        ] {
            assert_eq!(read(bad), Err("IncompleteSignatureException"), "{bad}");
        }
        let foreign = signed("AK/20260101/r/s3/aws4_request");
        assert_eq!(read(&foreign), Err("InvalidSignatureException"));
    }

    proptest! {
        #[test]
        fn any_header_is_answered(text in "[ -~]{0,120}") {
            if let Ok(Some(region)) = read(&format!("AWS4-HMAC-SHA256 {text}")) {
                prop_assert!(is_region(&region));
            }
        }
    }
}
