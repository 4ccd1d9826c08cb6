//! `AugmentedManifestFile`: a JSON document on each line, of whose members some are streamed.
//!
//! Invariant: of a member whose name ends with `-ref` the value is an S3 URI that has passed the rules of [`Location`],
//! and its object is streamed; of any other the value is, as it stands in the line, as JSON. Where the objects are in
//! one bucket the list has their keys, else the bucket's name before each. Lines, their number, buckets and the
//! whole are bounded. What the URIs name is looked up by the caller.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::value::RawValue;

use super::ObjectsError;
use super::listing::MAX_OBJECTS;
use super::manifest::write_line;
use super::uri::Location;
use crate::domain::pipe::Piece;

/// The longest line, bytes.
const MAX_LINE: usize = 1 << 20;

/// The longest list, bytes: a member may be asked for more than once.
const MAX_LIST: usize = 256 << 20;

/// The most buckets: each is a copy of its own, and a mount of its own in a container.
const MAX_BUCKETS: usize = 100;

/// How much of what is refused is told.
const TOLD_CHARS: usize = 300;

/// What an augmented manifest has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Augmented {
    /// The objects' keys, each once, by bucket.
    pub(super) objects: BTreeMap<String, BTreeSet<String>>,
    /// The list of what is streamed.
    pub(super) lines: Vec<u8>,
}

/// Reads an augmented manifest's text, as far as these members go.
pub(super) fn parse(uri: &str, text: &[u8], attributes: &[String]) -> Result<Augmented, ObjectsError> {
    let all = read(uri, text, attributes, false)?;
    if all.objects.len() <= 1 {
        return Ok(all);
    }
    // Each may be large.
    drop(all);
    read(uri, text, attributes, true)
}

fn read(uri: &str, text: &[u8], attributes: &[String], with_buckets: bool) -> Result<Augmented, ObjectsError> {
    let wrong = |why: String| ObjectsError::Manifest { uri: uri.to_owned(), why };
    let mut all = Augmented { objects: BTreeMap::new(), lines: Vec::new() };
    let (mut items, mut objects) = (0, 0);
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1_usize..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let refused = |why: String| wrong(format!("line {number}: {why}"));
        items += 1;
        if items > MAX_OBJECTS {
            return Err(wrong(format!("it has more than {MAX_OBJECTS} lines")));
        }
        let (pieces, new) = pieces(line, attributes, &mut all.objects, with_buckets).map_err(refused)?;
        write_line(&mut all.lines, &pieces);
        if all.objects.len() > MAX_BUCKETS {
            return Err(refused(format!("its objects are in more than {MAX_BUCKETS} buckets")));
        }
        objects += new;
        if objects > MAX_OBJECTS || all.lines.len() > MAX_LIST {
            return Err(wrong(format!(
                "it names more than {MAX_OBJECTS} objects, or more than {MAX_LIST} bytes of text"
            )));
        }
    }
    if items == 0 { Err(wrong("it has no line".to_owned())) } else { Ok(all) }
}

/// What is streamed of a line. Its objects are added to all of them; how many there were not before.
fn pieces(
    line: &[u8],
    attributes: &[String],
    all: &mut BTreeMap<String, BTreeSet<String>>,
    with_bucket: bool,
) -> Result<(Vec<Piece>, usize), String> {
    if line.len() > MAX_LINE {
        return Err(format!("it is longer than {MAX_LINE} bytes"));
    }
    let members: HashMap<String, &RawValue> =
        serde_json::from_slice(line).map_err(|error| format!("it is no JSON object: {error}"))?;
    let (mut pieces, mut new) = (Vec::with_capacity(attributes.len()), 0);
    for name in attributes {
        let value = members.get(name).ok_or_else(|| format!("it has no attribute {name}"))?.get();
        if !name.ends_with("-ref") {
            pieces.push(Piece::Text(value.to_owned()));
            continue;
        }
        let uri: String = serde_json::from_str(value).map_err(|_| format!("{name} is no text with an S3 URI"))?;
        let refused = |why: &str| format!("{name}: {:?} is refused: {why}", told(&uri));
        let Location { bucket, segments, is_folder } = Location::parse(&uri).map_err(|error| refused(error.why))?;
        if is_folder {
            return Err(refused("it names no object"));
        }
        let key = segments.join("/");
        pieces.push(Piece::File(if with_bucket { format!("{bucket}/{key}") } else { key.clone() }));
        new += usize::from(all.entry(bucket).or_default().insert(key));
    }
    Ok((pieces, new))
}

fn told(text: &str) -> String {
    text.chars().take(TOLD_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, attributes: &[&str]) -> Result<Augmented, String> {
        let attributes: Vec<String> = attributes.iter().map(|name| (*name).to_owned()).collect();
        parse("s3://b/m", text.as_bytes(), &attributes).map_err(|error| error.to_string())
    }

    #[test]
    fn attributes_are_streamed_in_the_order_asked_for_and_as_they_stand() {
        let text = concat!(
            r#"{"image-ref": "s3://data/x/1.jpg", "is-a-cat": 1, "more": {"b": 1.50,  "a": [null]}, "other": 7}"#,
            "\r\n\n",
            r#"{"more": "te\u00fct", "is-a-cat": 0, "image-ref": "s3://data/x/1.jpg"}"#,
        );
        let Augmented { objects, lines } = parsed(text, &["more", "image-ref", "is-a-cat"]).unwrap();
        assert_eq!(objects, BTreeMap::from([("data".to_owned(), BTreeSet::from(["x/1.jpg".to_owned()]))]));
        let lines = String::from_utf8(lines).unwrap();
        let items: Vec<Vec<Piece>> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let item = |more: &str, cat: &str| {
            vec![Piece::Text(more.into()), Piece::File("x/1.jpg".into()), Piece::Text(cat.into())]
        };
        assert_eq!(items, [item(r#"{"b": 1.50,  "a": [null]}"#, "1"), item(r#""te\u00fct""#, "0")]);
    }

    #[test]
    fn no_object_needs_to_be_named() {
        let augmented = parsed("{\"a\": 1}", &["a"]).unwrap();
        assert_eq!((augmented.objects.len(), augmented.lines.len()), (0, 15));
    }

    #[test]
    fn the_bucket_stands_before_each_key_where_there_are_several() {
        let text = "{\"r-ref\": \"s3://b/x\"}\n{\"r-ref\": \"s3://c/x\"}\n{\"r-ref\": \"s3://b/y\"}";
        let Augmented { objects, lines } = parsed(text, &["r-ref"]).unwrap();
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(objects, BTreeMap::from([("b".to_owned(), keys(&["x", "y"])), ("c".to_owned(), keys(&["x"]))]));
        assert_eq!(lines, b"[{\"file\":\"b/x\"}]\n[{\"file\":\"c/x\"}]\n[{\"file\":\"b/y\"}]\n");
    }

    #[test]
    fn no_more_buckets_are_named_than_can_be_mounted() {
        let line = |nth| format!("{{\"r-ref\": \"s3://bucket-{nth}/x\"}}\n");
        let text = |buckets| (0..buckets).map(line).collect::<Vec<_>>().concat();
        assert_eq!(parsed(&text(MAX_BUCKETS), &["r-ref"]).unwrap().objects.len(), MAX_BUCKETS);
        let refused = parsed(&text(MAX_BUCKETS + 1), &["r-ref"]).unwrap_err();
        assert!(refused.contains("line 101: its objects are in more than 100 buckets"), "{refused}");
    }

    #[test]
    fn what_is_no_augmented_manifest_is_told_with_its_line() {
        let long = format!("{{\"r-ref\": \"s3://b/x\", \"long\": \"{}\"}}", "x".repeat(MAX_LINE));
        let deep = format!("{{\"r-ref\": {}}}", "[".repeat(100_000));
        for (text, why) in [
            ("", "no line"),
            ("\n \n", "no line"),
            ("{}", "line 1: it has no attribute r-ref"),
            ("{\"r-ref\": \"s3://b/x\"}\nnonsense", "line 2: it is no JSON object"),
            ("[1]", "line 1: it is no JSON object"),
            (r#"{"r-ref": "s3://b/x"} {}"#, "it is no JSON object"),
            (r#"{"r-ref": 7}"#, "r-ref is no text"),
            (r#"{"r-ref": "http://b/x"}"#, "does not begin with s3://"),
            (r#"{"r-ref": "s3://b/../x"}"#, "`..`"),
            (r#"{"r-ref": "s3://b/x/"}"#, "names no object"),
            (r#"{"r-ref": "s3://b"}"#, "names no object"),
            (&long, "longer than 1048576 bytes"),
            (&deep, "line 1: it is no JSON object"),
        ] {
            let error = parsed(text, &["r-ref"]).unwrap_err();
            assert!(error.contains("s3://b/m") && error.contains(why) && error.len() < 600, "{why}: {error}");
        }
        let uri = format!("{{\"r-ref\": \"http://{}\"}}", "x".repeat(10_000));
        assert!(parsed(&uri, &["r-ref"]).unwrap_err().len() < 600);
    }
}
