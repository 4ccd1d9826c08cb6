//! `ManifestFile`: a JSON list, first `{"prefix": "s3://…"}`, then the names of objects relative to it.
//!
//! Invariant: every name has passed the rules of [`Location`], with its prefix and alone, and there are no more of them
//! than a channel may have objects. What the names stand for is looked up by the caller.

use serde::Deserialize;
use serde_json::json;

use super::ObjectsError;
use super::listing::MAX_OBJECTS;
use super::uri::Location;
use crate::domain::pipe::Piece;
use crate::domain::s3;

/// Largest manifest that is read, bytes.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// How much of a name that is refused is told.
const TOLD_CHARS: usize = 300;

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Head { prefix: String },
    Name(String),
}

/// What a manifest names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The bucket of all of it: there is one prefix.
    pub(super) bucket: String,
    /// Each object's path beneath the channel, and its key; a name that stands there twice is here twice.
    pub(super) named: Vec<(String, String)>,
}

/// Reads a manifest's text.
pub(super) fn parse(uri: &str, text: &[u8]) -> Result<Manifest, ObjectsError> {
    let wrong = |why: String| ObjectsError::Manifest { uri: uri.to_owned(), why };
    let items: Vec<Item> = serde_json::from_slice(text).map_err(|error| {
        wrong(format!("it is not a JSON list of {{\"prefix\": \"s3://bucket/…\"}} and then of names: {error}"))
    })?;
    if items.len() > MAX_OBJECTS {
        return Err(wrong(format!("it names more than {MAX_OBJECTS} objects")));
    }
    let mut items = items.into_iter();
    let Some(Item::Head { prefix }) = items.next() else {
        return Err(wrong("its first element is not {\"prefix\": \"s3://bucket/…\"}".to_owned()));
    };
    let (mut bucket, mut named) = (String::new(), Vec::with_capacity(items.len()));
    for item in items {
        let Item::Name(name) = item else { return Err(wrong("it has more than one prefix".to_owned())) };
        let refused = |why: &str| {
            let whole: String = format!("{prefix}{name}").chars().take(TOLD_CHARS).collect();
            wrong(format!("{whole:?} is refused: {why}"))
        };
        name.split('/').try_for_each(s3::check).map_err(refused)?;
        let location = Location::parse(&format!("{prefix}{name}")).map_err(|error| refused(error.why))?;
        // A prefix without a `/` could end within the bucket's name.
        if !bucket.is_empty() && bucket != location.bucket {
            return Err(wrong("its names are in more than one bucket: end the prefix with /".to_owned()));
        }
        bucket = location.bucket;
        named.push((name, location.segments.join("/")));
    }
    if named.is_empty() { Err(wrong("it names no object".to_owned())) } else { Ok(Manifest { bucket, named }) }
}

/// The list of what is streamed, in the order of the manifest; none where that is the order of the paths anyway.
pub(super) fn lines(named: &[(String, String)]) -> Option<Vec<u8>> {
    if named.is_sorted_by(|(before, _), (path, _)| before < path) {
        return None;
    }
    let mut lines = Vec::new();
    for (path, _) in named {
        write_line(&mut lines, &[Piece::File(path.clone())]);
    }
    Some(lines)
}

/// Adds an item to a list of what is streamed.
pub(super) fn write_line(lines: &mut Vec<u8>, pieces: &[Piece]) {
    lines.extend(json!(pieces).to_string().into_bytes());
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_beneath_the_channel_as_it_stands_in_the_manifest() {
        let manifest = parse("s3://b/m", br#"[{"prefix": "s3://data/p/x-"}, "a.csv", "s/b.csv"]"#).unwrap();
        assert_eq!(manifest.bucket, "data");
        assert_eq!(manifest.named, [("a.csv".into(), "p/x-a.csv".into()), ("s/b.csv".into(), "p/x-s/b.csv".into())]);
    }

    #[test]
    fn a_list_is_written_where_the_order_of_the_paths_is_not_the_manifests() {
        let lines = |names: &[&str]| {
            let named: Vec<_> = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
            lines(&named).map(|lines| String::from_utf8(lines).unwrap())
        };
        assert_eq!(lines(&["a", "a.b", "b"]), None);
        assert_eq!(lines(&["b", "a"]).unwrap(), "[{\"file\":\"b\"}]\n[{\"file\":\"a\"}]\n");
        assert_eq!(lines(&["a", "a"]).unwrap().lines().count(), 2, "what is named twice is streamed twice");
    }

    #[test]
    fn what_is_no_manifest_and_what_is_no_name_is_told() {
        let long = format!(r#"[{{"prefix": "s3://b/"}}, "{}"]"#, "x".repeat(256));
        for (text, why) in [
            ("{}", "not a JSON list"),
            ("[]", "first element"),
            (r#"["a"]"#, "first element"),
            (r#"[{"prefix": "s3://b/"}]"#, "names no object"),
            (r#"[{"prefix": "s3://b/"}, {"prefix": "s3://c/"}]"#, "more than one prefix"),
            (r#"[{"prefix": "s3://b/"}, 7]"#, "not a JSON list"),
            (r#"[{"prefix": "s3://b/"}, "../x"]"#, "s3://b/../x"),
            (r#"[{"prefix": "s3://b/p"}, "/etc/passwd"]"#, "s3://b/p/etc/passwd"),
            (r#"[{"prefix": "s3://b/"}, "a//b"]"#, "a//b"),
            (r#"[{"prefix": "s3://b/"}, "a/"]"#, "s3://b/a/"),
            (r#"[{"prefix": "s3://b/"}, "a\\..\\b"]"#, "backslash"),
            (r#"[{"prefix": "s3://b/"}, "a\u0000b"]"#, "a\\0b"),
            (r#"[{"prefix": "s3://b/../c/"}, "a"]"#, "s3://b/../c/a"),
            (r#"[{"prefix": "http://b/"}, "a"]"#, "http://b/a"),
            (r#"[{"prefix": "s3://b"}, "a/x", "c/x"]"#, "more than one bucket"),
            (&long, "longer than 255 bytes"),
        ] {
            let error = parse("s3://b/m", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("s3://b/m") && error.contains(why) && error.len() < 600, "{text}: {error}");
        }
    }
}
