//! Settings of the folders that stand for network file systems.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[[file_systems]]`: a `FileSystemId` and the folder of this machine that is its root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileSystem {
    /// Such as `fs-0123abcd`.
    pub id: String,
    /// What requests call its type.
    #[serde(rename = "type")]
    pub kind: FileSystemType,
    /// Its root.
    pub path: PathBuf,
}

/// `FileSystemType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum FileSystemType {
    /// Amazon EFS.
    EFS,
    /// Amazon `FSx` for Lustre.
    FSxLustre,
}

impl FileSystem {
    /// What is wrong with the entries, and what to write instead.
    pub(super) fn fault(entries: &[Self]) -> Option<String> {
        let known = |id: &str| {
            let digits = id.strip_prefix("fs-").unwrap_or_default();
            (8..=18).contains(&digits.len()) && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        };
        if let Some(FileSystem { id, .. }) = entries.iter().find(|entry| !known(&entry.id)) {
            return Some(format!("{id:?} is no id that a request could hold: write fs- and 8 to 18 of 0-9 and a-f"));
        }
        let twice = |(at, entry): &(usize, &Self)| entries[..*at].iter().any(|earlier| earlier.id == entry.id);
        let (_, FileSystem { id, .. }) = entries.iter().enumerate().find(twice)?;
        Some(format!("{id} is there twice: give it one folder"))
    }
}
