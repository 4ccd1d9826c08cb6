//! Object storage: where channels come from and artifacts, checkpoints and logs go.
//!
//! Invariant: whatever a URI or an archive says, nothing outside the configured roots is read or written. Here the
//! store is a directory tree that stands for S3: `s3://bucket/key` is a file beneath a root.

use std::path::{Path, PathBuf};

use crate::domain::names::AttemptId;

/// The object store.
#[derive(Debug)]
pub struct Objects {
    root: PathBuf,
}

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// A URI that no request should hold: not `s3://bucket/…`, or with `..`, empty or control segments.
    #[error("{uri} is not a usable S3 URI: {why}")]
    InvalidUri {
        /// As given.
        uri: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Nothing there.
    #[error("no objects found under {uri}")]
    NotFound {
        /// As given.
        uri: String,
    },
    /// The file system failed.
    #[error("the object store failed while {doing}")]
    Io {
        /// What, with the path or URI.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Objects {
    /// A tree beneath `root` (`<root>/<bucket>/<key>`), with URI prefixes that are mapped to other folders.
    pub fn new(root: PathBuf, mapped: Vec<(String, PathBuf)>) -> Result<Self, ObjectsError> {
        let _ = mapped;
        Ok(Self { root })
    }

    /// A local path with all objects whose keys begin with the URI's key (`S3Prefix`): a folder, or a single file.
    pub async fn stage(&self, uri: &str) -> Result<PathBuf, ObjectsError> {
        let _ = (uri, &self.root);
        todo!()
    }

    /// A folder that stands for a prefix, made where it is missing: checkpoints.
    pub async fn directory(&self, uri: &str) -> Result<PathBuf, ObjectsError> {
        let _ = uri;
        todo!()
    }

    /// Packs a folder into a `.tar.gz` object, durably; follows no link out of the folder.
    pub async fn put_tar_gz(&self, folder: &Path, uri: &str) -> Result<(), ObjectsError> {
        let _ = (folder, uri);
        todo!()
    }

    /// Copies a folder's files to objects beneath a prefix, durably (`CompressionType: NONE`).
    pub async fn put_tree(&self, folder: &Path, uri: &str) -> Result<(), ObjectsError> {
        let _ = (folder, uri);
        todo!()
    }

    /// Keeps a file of a finished log and returns its object key.
    pub async fn keep_log(&self, attempt: AttemptId, first_offset: u64, file: &Path) -> Result<String, ObjectsError> {
        let _ = (attempt, first_offset, file);
        todo!()
    }

    /// Keeps bytes as a further file of a finished log and returns its object key.
    pub async fn keep_log_bytes(
        &self,
        attempt: AttemptId,
        first_offset: u64,
        bytes: &[u8],
    ) -> Result<String, ObjectsError> {
        let _ = (attempt, first_offset, bytes);
        todo!()
    }

    /// Bytes of a kept log file from `from` on, at most `max_bytes`.
    pub async fn read_log(&self, key: &str, from: u64, max_bytes: usize) -> Result<Vec<u8>, ObjectsError> {
        let _ = (key, from, max_bytes);
        todo!()
    }

    /// Forgets the kept log of an attempt.
    pub async fn remove_log(&self, attempt: AttemptId) -> Result<(), ObjectsError> {
        let _ = attempt;
        todo!()
    }
}
