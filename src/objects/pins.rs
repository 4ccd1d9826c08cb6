//! What the channels of tuning jobs were fixed to.
//!
//! Invariant: a channel is listed for its tuning job's first training job, and that listing counts for all the others,
//! whoever lists at the same time and whatever becomes of the bucket or of the manifest.
//! Beneath the root: `<tuning job>/<channel>`, a listing each, and lists of what is streamed under names of their own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::ObjectsError;
use super::fetched::short_name;
use super::listing::Listing;
use super::tree::failed;

/// The listings beneath a root.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    /// Held by whoever lists channels of a tuning job: others wait for that instead of listing them, too.
    turns: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

impl Pins {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, turns: Mutex::default() }
    }

    /// The lock of those who list channels of a tuning job.
    pub(super) fn turn(&self, tuning_job: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(tuning_job).or_default())
    }

    /// What a channel was fixed to, if it was. `channel` tells a tuning job's channels apart.
    pub(super) async fn find(&self, tuning_job: Uuid, channel: &str) -> Result<Option<Listing>, ObjectsError> {
        let file = self.file(tuning_job, channel);
        let doing = format!("reading {}", file.display());
        let reading = tokio::task::spawn_blocking(move || match std::fs::read(&file) {
            // Torn by a power failure, it is made again: nothing was fetched after it yet.
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        reading.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed(|| doing))
    }

    /// Fixes a channel, with the lines of its list, and says to what: another attempt may have been quicker.
    pub(super) async fn fix(
        &self,
        tuning_job: Uuid,
        channel: &str,
        listing: Listing,
        list: Option<Vec<u8>>,
    ) -> Result<Listing, ObjectsError> {
        let file = self.file(tuning_job, channel);
        let doing = format!("writing {}", file.display());
        let writing = tokio::task::spawn_blocking(move || fix(&file, listing, list.as_deref()));
        writing.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed(|| doing))
    }

    /// Where the list of a channel that was fixed is.
    pub(super) fn list(&self, tuning_job: Uuid, listing: &Listing) -> Option<PathBuf> {
        Some(self.folder(tuning_job).join(listing.list.as_ref()?))
    }

    /// Forgets what a tuning job's channels were fixed to: it is over.
    pub(super) fn forget(&self, tuning_job: Uuid) -> io::Result<()> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(&tuning_job);
        match std::fs::remove_dir_all(self.folder(tuning_job)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn folder(&self, tuning_job: Uuid) -> PathBuf {
        self.root.join(tuning_job.simple().to_string())
    }

    fn file(&self, tuning_job: Uuid, channel: &str) -> PathBuf {
        self.folder(tuning_job).join(short_name(Sha256::new_with_prefix(channel)))
    }
}

fn fix(file: &Path, mut listing: Listing, lines: Option<&[u8]>) -> io::Result<Listing> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder)?;
    listing.list = lines.map(|lines| write_list(folder, lines)).transpose()?;
    let unfinished = folder.join(Uuid::new_v4().simple().to_string());
    std::fs::write(&unfinished, serde_json::to_vec(&listing)?)?;
    let linked = std::fs::hard_link(&unfinished, file);
    std::fs::remove_file(&unfinished)?;
    match linked {
        // Another attempt may have fixed it meanwhile: its listing counts then.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if let Ok(theirs) = serde_json::from_slice(&std::fs::read(file)?) {
                return Ok(theirs);
            }
            std::fs::write(file, serde_json::to_vec(&listing)?)?;
            Ok(listing)
        }
        other => other.map(|()| listing),
    }
}

/// Writes a list, on the disk before anything names it.
fn write_list(folder: &Path, lines: &[u8]) -> io::Result<String> {
    let name = format!("{}.list", Uuid::new_v4().simple());
    let mut file = File::create_new(folder.join(&name))?;
    file.write_all(lines)?;
    file.sync_all()?;
    Ok(name)
}
