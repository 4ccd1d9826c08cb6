//! Checkpoints of a training job in a remote bucket: down before an attempt, up while it runs and after it.
//!
//! Invariant: what an attempt finds is what earlier ones have saved. A file is saved again only after it changed, and one
//! that may be in the middle of being written waits, but for the last time. Nothing is deleted in the bucket. The folder
//! is the training program's, and may be hostile.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio_util::sync::CancellationToken;

use super::bounds::{Bounds, Limits};
use super::buckets::Remote;
use super::fetched::{empty_folder, fetch_into, unfinished};
use super::listing::beyond;
use super::tree::{self, Listed, failed};
use super::uri::Location;
use super::{ObjectsError, archive, object_key};

/// A file that has not changed for so long is taken to be whole.
const WHOLE_AFTER: Duration = Duration::from_secs(3);

/// Fetches what is saved under a location into a new folder, for an attempt.
pub(super) async fn fetch(remote: &Remote, location: &Location, folder: &Path) -> Result<(), ObjectsError> {
    let prefix = object_key(location, Path::new("."))?;
    let prefix = if prefix.is_empty() { prefix } else { format!("{prefix}/") };
    let saved = remote.list(&prefix).await?;
    let parts = unfinished(folder);
    std::fs::create_dir_all(folder).map_err(failed(|| format!("making {}", folder.display())))?;
    empty_folder(&parts)?;
    fetch_into(remote, &beyond(saved, prefix.len())?, folder, &parts).await?;
    std::fs::remove_dir_all(&parts).map_err(failed(|| format!("removing {}", parts.display())))
}

/// Whether an executor that copies checkpoints out of a container has not finished a file: it goes by another name then.
fn is_half_written(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".tunesmith-new-"))
}

/// Saves one attempt's checkpoints. Clones share what they know to be saved.
#[derive(Debug, Clone)]
pub struct Saver {
    pub(super) remote: Remote,
    pub(super) location: Location,
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
    pub(super) saved: Arc<Mutex<HashMap<PathBuf, Version>>>,
}

/// What tells a file from what it was.
pub(super) type Version = (u64, SystemTime);

impl Saver {
    /// Saves what has changed since the last time; `ended`: nobody writes any more. A file that can't be saved does not
    /// keep the others from it: the first error is told at the end.
    pub async fn save(&self, ended: bool, cancelled: &CancellationToken) -> Result<(), ObjectsError> {
        let (saver, bounds) = (self.clone(), Bounds::new(self.limits, cancelled.clone()));
        let Some((folder, files)) = self.blocking(move || saver.list(&bounds)).await? else { return Ok(()) };
        let folder = Arc::new(folder);
        // One file at a time is open, however many there are.
        let mut first_error = None;
        for file in files {
            match self.save_one(&folder, file, ended, cancelled).await {
                Err(error @ ObjectsError::Cancelled { .. }) => return Err(error),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
                Ok(()) => {}
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn save_one(
        &self,
        folder: &Arc<Dir>,
        Listed { source, target }: Listed,
        ended: bool,
        cancelled: &CancellationToken,
    ) -> Result<(), ObjectsError> {
        let (saver, folder, path) = (self.clone(), Arc::clone(folder), target.clone());
        let changed = self.blocking(move || saver.open_changed(&folder, &source, &path, ended)).await?;
        let Some((file, version)) = changed else { return Ok(()) };
        let key = object_key(&self.location, &target)?;
        self.remote.upload(&key, file, version.0, cancelled).await?;
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).insert(target, version);
        Ok(())
    }

    /// The folder and its files; none where the program has removed it.
    fn list(&self, bounds: &Bounds) -> io::Result<Option<(Dir, Vec<Listed>)>> {
        let folder = match Dir::open_ambient_dir(&self.folder, ambient_authority()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut files = Vec::new();
        match tree::list(&folder, Path::new("."), Path::new(""), 0, bounds, &mut files) {
            // A file that went while this looked: the rest is seen the next time.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
        files.retain(|file| !is_half_written(&file.target));
        Ok(Some((folder, files)))
    }

    /// A file that is to be saved; none where it is saved as it stands, may be being written, or is no file any more.
    fn open_changed(
        &self,
        folder: &Dir,
        source: &Path,
        target: &Path,
        ended: bool,
    ) -> io::Result<Option<(std::fs::File, Version)>> {
        let file = match archive::open_regular(folder, source) {
            Ok(Some(file)) => file.into_std(),
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let version = (meta.len(), meta.modified()?);
        let known = self.saved.lock().unwrap_or_else(PoisonError::into_inner).get(target) == Some(&version);
        let settled = ended || version.1.elapsed().is_ok_and(|age| age >= WHOLE_AFTER);
        Ok((settled && !known).then_some((file, version)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ObjectsError> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(failed(|| format!("saving {}", self.folder.display())))
    }
}
