//! The folders of one executor's attempts: what may be asked of any of them, whatever runs behind it.
//!
//! Invariant: all state is in the folders; this can be dropped and made again at any moment. Starting and ending what
//! runs is left to the executors.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::watch::Watches;
use super::{Folder, STOP, found, removal};
use crate::domain::names::AttemptId;
use crate::executor::{ExecutorError, LogChunk, LogFile};

/// `attempts` and `trash` beneath an executor's directory.
#[derive(Debug)]
pub(in crate::executor) struct Attempts {
    folders: PathBuf,
    trash: PathBuf,
    watches: Watches,
}

impl Attempts {
    /// Makes the directories where they are missing. To be called within a tokio runtime.
    pub(in crate::executor) fn open(directory: &Path) -> io::Result<Self> {
        let (folders, trash) = (directory.join("attempts"), directory.join("trash"));
        for path in [&folders, &trash] {
            std::fs::create_dir_all(path)?;
        }
        // However much a job left there, it must not keep the server from starting.
        let emptied = trash.clone();
        std::thread::spawn(move || removal::empty(&emptied));
        Ok(Self { folders, trash, watches: Watches::start() })
    }

    /// Where the folders are.
    pub(in crate::executor) fn path(&self) -> &Path {
        &self.folders
    }

    pub(in crate::executor) fn folder(&self, id: AttemptId) -> Folder {
        Folder::new(self.folders.join(id.to_string()))
    }

    pub(in crate::executor) async fn list(&self) -> Result<Vec<AttemptId>, ExecutorError> {
        let folders = self.folders.clone();
        blocking("listing attempts".into(), move || {
            let mut ids = Vec::new();
            for entry in std::fs::read_dir(folders)? {
                ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<AttemptId>().ok()));
            }
            ids.sort_unstable();
            Ok(ids)
        })
        .await
    }

    pub(in crate::executor) async fn changed(&self, id: AttemptId, at_most: Duration) {
        self.watches.changed(id, &self.folder(id), at_most).await;
    }

    pub(in crate::executor) async fn logs(
        &self,
        id: AttemptId,
        from_offset: u64,
        max_bytes: usize,
    ) -> Result<LogChunk, ExecutorError> {
        let (folder, doing) = (self.folder(id), || format!("reading the log of attempt {id}"));
        // Most looks find nothing new, which is told sooner than a thread for file work wakes up.
        if !folder.has_log_after(from_offset).map_err(|error| failed(doing())(error))? {
            return Ok(LogChunk { records: Vec::new(), next_offset: from_offset });
        }
        blocking(doing(), move || folder.read_log(from_offset, max_bytes)).await
    }

    pub(in crate::executor) fn stop(&self, id: AttemptId) -> Result<(), ExecutorError> {
        self.folder(id).request(STOP).map_err(failed(format!("stopping attempt {id}")))
    }

    pub(in crate::executor) fn log_files(&self, id: AttemptId) -> Result<Vec<LogFile>, ExecutorError> {
        let folder = self.folder(id);
        folder.log_files().map_err(failed(format!("listing the log of attempt {id}")))
    }

    /// Deletes the folder of an attempt that has ended.
    pub(in crate::executor) async fn discard(&self, id: AttemptId) -> Result<(), ExecutorError> {
        let (folder, trash) = (self.folder(id), self.trash.clone());
        blocking(format!("removing attempt {id}"), move || {
            // In one step it is no attempt any more; half a folder would look like one that was never started.
            let name = removal::trash_name(id);
            match found(std::fs::rename(folder.path(), trash.join(&name)))? {
                Some(()) => removal::remove_tree(&trash, name.as_ref()),
                // A removal that came this far before may not have come to its end.
                None => removal::remove_attempt(&trash, id),
            }
        })
        .await?;
        self.watches.forget(id);
        Ok(())
    }
}

/// Runs file work off the runtime's own threads.
pub(in crate::executor) async fn blocking<T: Send + 'static>(
    doing: String,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ExecutorError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed(doing))
}

pub(in crate::executor) fn failed(doing: String) -> impl FnOnce(io::Error) -> ExecutorError {
    move |source| ExecutorError::Infrastructure { doing, source }
}

/// The identity of this data directory, made on first use.
pub(in crate::executor) fn own_id(data_dir: &Path) -> io::Result<Uuid> {
    let path = data_dir.join("executor-id");
    if let Some(text) = found(std::fs::read_to_string(&path))? {
        return text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let (id, temporary) = (Uuid::new_v4(), data_dir.join("executor-id.tmp"));
    std::fs::write(&temporary, format!("{id}\n"))?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(temporary, path)?;
    Ok(id)
}
