//! Which objects a channel has, and where each stands beneath its folder.
//!
//! Invariant: every path is plain names and none is another's folder: whatever a bucket or a manifest holds, what is
//! written for a channel stays beneath it. Keys that break this are refused by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ObjectsError;
use super::buckets::Remote;
use super::uri::Location;
use crate::domain::s3;

/// Objects that one channel may have.
pub(super) const MAX_OBJECTS: usize = 1_000_000;

/// An object as its store shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    /// Its key in the bucket.
    pub(super) key: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Its `ETag`; none where the store shows none.
    pub(super) etag: Option<String>,
    /// When it was written.
    pub(super) modified: String,
}

/// What a channel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The bucket of all of it.
    pub(super) bucket: String,
    /// Where each object goes beneath the channel, by its path.
    pub(super) files: BTreeMap<String, Object>,
    /// Whether the URI names one object rather than a folder of them.
    pub(super) single: bool,
    /// The name of the list of what is streamed, where that is not each object in the order of the paths; see `pins`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<String>,
    /// What further buckets have of the channel: an augmented manifest may name objects of several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<Listing>,
}

impl Listing {
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|object| object.bytes).sum()
    }

    /// What a prefix names in a remote bucket, as [`super::Objects::stage`] says it; none where that is nothing.
    pub(super) async fn of_prefix(remote: &Remote, location: &Location) -> Result<Option<Self>, ObjectsError> {
        let prefix = location.segments.join("/");
        let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut objects = remote.list(if location.is_folder { &folder } else { &prefix }).await?;
        let single = objects.iter().any(|object| object.key == prefix) && !location.is_folder;
        let cut = if single {
            objects.retain(|object| object.key == prefix);
            // An empty one may be a folder of a console's.
            if objects.iter().all(|object| object.bytes == 0) && remote.look_up(vec![prefix.clone()]).await?.is_err() {
                return Ok(None);
            }
            prefix.rfind('/').map_or(0, |slash| slash + 1)
        } else if objects.iter().any(|object| object.key.starts_with(&folder)) {
            objects.retain(|object| object.key.starts_with(&folder));
            folder.len()
        } else {
            prefix.rfind('/').map_or(0, |slash| slash + 1)
        };
        if objects.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            bucket: location.bucket.clone(),
            files: beyond(objects, cut)?,
            single,
            list: None,
            others: Vec::new(),
        }))
    }
}

/// Where each object goes: its key from `cut` on.
pub(super) fn beyond(objects: Vec<Object>, cut: usize) -> Result<BTreeMap<String, Object>, ObjectsError> {
    let path = |object: Object| match object.key.get(cut..) {
        Some(path) => Ok((path.to_owned(), object)),
        None => Err(ObjectsError::UnusableKey { key: object.key, why: "it is cut within a character".to_owned() }),
    };
    placed(objects.into_iter().map(path).collect::<Result<_, _>>()?)
}

/// Objects at their paths. One whose path is none beneath a folder is refused.
pub(super) fn placed(objects: Vec<(String, Object)>) -> Result<BTreeMap<String, Object>, ObjectsError> {
    for (path, object) in &objects {
        let unusable = |why: &str| ObjectsError::UnusableKey { key: object.key.clone(), why: why.to_owned() };
        path.split('/').try_for_each(s3::check).map_err(unusable)?;
    }
    let files: BTreeMap<String, Object> = objects.into_iter().collect();
    // In the order of the paths what lies beneath `a` need not follow `a` at once: `a.b` stands before `a/b`.
    for (path, object) in &files {
        let inner = path.match_indices('/').map(|(slash, _)| &path[..slash]);
        if let Some(parent) = inner.into_iter().find(|parent| files.contains_key(*parent)) {
            let why = format!("{parent} is an object too, and no file system has a file that is also a folder");
            return Err(ObjectsError::UnusableKey { key: object.key.clone(), why });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> Object {
        Object { key: key.into(), bytes: 1, etag: None, modified: String::new() }
    }

    #[test]
    fn keys_that_are_no_paths_beneath_a_folder_are_refused_by_name() {
        let long = format!("in/{}", "x".repeat(256));
        for key in ["in/../x", "in/..", "in//x", "in/./x", "in/a\\..\\x", "in/a\nb", "in/", "in/a/", long.as_str()] {
            let error = beyond(vec![object(key)], 3).unwrap_err();
            assert!(matches!(&error, ObjectsError::UnusableKey { key: named, .. } if named == key), "{key}: {error}");
        }
        for keys in [["in/a", "in/a/b"], ["in/a/b/c", "in/a"], ["in/a", "in/a/b/c"]] {
            let error = beyond([keys[0], "in/a.b", keys[1]].map(object).into(), 3).unwrap_err();
            assert!(error.to_string().contains("a is an object too"), "{error}");
        }
        let fine = beyond(["in/a.b/c", "in/a/b", "in/ab"].map(object).into(), 3).unwrap();
        assert_eq!(fine.keys().collect::<Vec<_>>(), ["a.b/c", "a/b", "ab"]);
    }
}
