//! S3 URIs, checked so far that their parts can be file names: the one reading that requests and the object store share.
//!
//! Invariant: a [`Location`]'s bucket and segments are plain names: none is empty, `.` or `..`, none holds a separator
//! or a control character, and no bucket is one of the service's own folders (which begin with a dot).

/// Longest name that common file systems take, bytes.
const MAX_NAME: usize = 255;

/// `s3://bucket/seg/ments`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key, without a `/` at its end.
    pub segments: Vec<String>,
    /// Whether the key ended with `/` or was empty: a prefix that ends at a folder's boundary.
    pub is_folder: bool,
}

/// A URI that no request should hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri} is not a usable S3 URI: {why}")]
pub struct InvalidUri {
    /// As given.
    pub uri: String,
    /// The rule it breaks.
    pub why: &'static str,
}

impl Location {
    /// Takes a URI apart.
    pub fn parse(uri: &str) -> Result<Self, InvalidUri> {
        let invalid = |why| InvalidUri { uri: uri.to_owned(), why };
        let rest = uri.strip_prefix("s3://").ok_or_else(|| invalid("it does not begin with s3://"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let in_buckets = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(in_buckets) || bucket.starts_with('.') || bucket.len() > MAX_NAME {
            return Err(invalid(
                "the bucket must be 1 to 255 letters, digits, hyphens, underscores and dots, with no dot at its beginning",
            ));
        }
        let is_folder = key.is_empty() || key.ends_with('/');
        let named = key.strip_suffix('/').unwrap_or(key);
        let segments: Vec<String> = named.split('/').filter(|_| !key.is_empty()).map(str::to_owned).collect();
        segments.iter().try_for_each(|segment| check(segment)).map_err(invalid)?;
        Ok(Self { bucket: bucket.to_owned(), segments, is_folder })
    }
}

/// Whether a part of a key can be a file's name, or the rule that it breaks.
pub fn check(segment: &str) -> Result<(), &'static str> {
    match segment {
        "" | "." | ".." => Err("its key has an empty part, `.` or `..`"),
        _ if segment.len() > MAX_NAME => Err("a part of its key is longer than 255 bytes"),
        _ if segment.contains('\\') => Err("its key holds a backslash"),
        _ if segment.chars().any(char::is_control) => Err("its key holds a control character"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> (String, String, bool) {
        let location = Location::parse(uri).unwrap();
        (location.bucket, location.segments.join("/"), location.is_folder)
    }

    #[test]
    fn bucket_and_key() {
        assert_eq!(parts("s3://b"), ("b".into(), String::new(), true));
        assert_eq!(parts("s3://b/"), ("b".into(), String::new(), true));
        assert_eq!(parts("s3://my.b-1/a/b c+ü"), ("my.b-1".into(), "a/b c+ü".into(), false));
        assert_eq!(parts("s3://My_Bucket/k"), ("My_Bucket".into(), "k".into(), false));
        assert_eq!(parts("s3://b/a/..b/.c/"), ("b".into(), "a/..b/.c".into(), true));
    }

    #[test]
    fn hostile_uris_are_refused() {
        let long = format!("s3://b/{}", "x".repeat(256));
        for uri in [
            "",
            "b/k",
            "https://b/k",
            "S3://b/k",
            "s3://",
            "s3:///k",
            "s3://../k",
            "s3://.logs/k",
            "s3://b c/k",
            "s3://b/..",
            "s3://b/../c",
            "s3://b/a/../../c",
            "s3://b/./a",
            "s3://b//a",
            "s3://b/a//",
            "s3://b//",
            "s3://b/a\\..\\b",
            "s3://b/a\0b",
            "s3://b/a\nb",
            "s3://b/\u{85}",
            long.as_str(),
        ] {
            assert!(matches!(Location::parse(uri), Err(InvalidUri { .. })), "{uri:?}");
        }
    }
}
