//! How much of the disk an attempt may take, in the words that users are told.

use serde::{Deserialize, Serialize};

/// A bound, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskBound {
    pub(super) bytes: u64,
    /// What to change.
    pub(super) advice: String,
}

impl DiskBound {
    /// The smaller of what the request asks for and what the server allows by a setting; none where there is neither.
    pub(super) fn of(asked: Option<u64>, allowed: Option<u64>, setting: &str) -> Option<Self> {
        let asked = asked.map(|bytes| (bytes, "ask for a larger VolumeSizeInGB, or write less".to_owned()));
        let allowed = allowed.map(|bytes| (bytes, format!("write less, or raise {setting} of the server")));
        let (bytes, advice) = asked.into_iter().chain(allowed).min_by_key(|(bytes, _)| *bytes)?;
        Some(Self { bytes, advice })
    }

    /// What to tell whoever asked for the training job.
    pub(super) fn message(&self) -> String {
        let gib = self.bytes >> 30;
        let size = if gib << 30 == self.bytes { format!("{gib} GiB") } else { format!("{} bytes", self.bytes) };
        format!("the training job used more than {size} of disk: {}", self.advice)
    }
}
