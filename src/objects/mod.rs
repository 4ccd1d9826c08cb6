//! Object storage: where channels come from and artifacts, checkpoints and logs go.
//!
//! Invariant: whatever a URI or an archive says, nothing outside the configured roots and buckets is read or written. A
//! bucket is a folder of a directory tree that stands for S3 (`s3://bucket/key` is a file beneath a root), unless the
//! configuration says that it is a real one. The service's own folders beneath the root (kept logs, gathered prefixes,
//! copies of what is remote) begin with a dot, as no bucket does.

mod archive;
mod augmented;
mod bounds;
mod buckets;
mod checkpoints;
mod fetched;
mod file_systems;
mod listing;
mod manifest;
mod pins;
mod staging;
mod tree;
mod uri;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio_util::sync::CancellationToken;

use uuid::Uuid;

use self::bounds::{Bounds, Limits};
use self::buckets::{Buckets, Remote};
pub use self::checkpoints::Saver;
use self::fetched::{Fetched, Room};
use self::file_systems::FileSystems;
use self::pins::Pins;
pub use self::staging::{Names, Staged};
use self::tree::{Tree, failed};
use self::uri::Location;
use crate::config::{Bucket, Channels};
use crate::domain::names::AttemptId;

/// Kept logs, beneath the root.
const LOGS: &str = ".logs";

/// What tuning jobs' channels were fixed to, beneath the root.
const PINS: &str = ".pins";

/// Copies of what is in remote buckets, beneath the root.
const FETCHED: &str = ".fetched";

/// What one artifact may be where nothing else is said: 50 GiB, a million files.
const ARTIFACT: Limits = Limits { bytes: 50 << 30, entries: 1_000_000 };

/// The object store. Its calls run their file work off the runtime's own threads.
#[derive(Debug)]
pub struct Objects {
    tree: Arc<Tree>,
    artifact: Limits,
    pins: Pins,
    file_systems: FileSystems,
    remote: Option<RemoteSide>,
}

/// What is not in the tree.
#[derive(Debug)]
struct RemoteSide {
    buckets: Buckets,
    fetched: Arc<Fetched>,
}

/// Codes of a store's answers that another try would get again.
const REFUSALS: [&str; 2] = ["NoSuchBucket", "AccessDenied"];

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
    /// No input data; in the service's words, and where to put some.
    #[error(
        "No S3 objects found under S3 URL \"{uri}\" given in input data source. On this server that is {}: put the \
         data there, or map the prefix to another folder with [[s3]] in the configuration.", place.display()
    )]
    NoInput {
        /// As given.
        uri: String,
        /// The path that stands for it.
        place: PathBuf,
    },
    /// No input data in a remote bucket; in the service's words.
    #[error("No S3 objects found under S3 URL \"{uri}\" given in input data source.")]
    NoRemoteInput {
        /// As given.
        uri: String,
    },
    /// No directory for a channel.
    #[error("the directory {directory} of the file system {file_system} can't be used: {why}")]
    NoDirectory {
        /// The file system's id.
        file_system: String,
        /// As given.
        directory: String,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest that is none.
    #[error("the manifest {uri} can't be used: {why}")]
    Manifest {
        /// Its URI.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object that a manifest names and that is not there.
    #[error("the manifest {manifest} names {object}, and there is no such object")]
    Missing {
        /// The manifest's URI.
        manifest: String,
        /// The object's URI.
        object: String,
    },
    /// A key that cannot be a path beneath a folder.
    #[error("the object with the key {key:?} has no place in a folder: {why}")]
    UnusableKey {
        /// The key.
        key: String,
        /// The rule it breaks.
        why: String,
    },
    /// An object that is not what it was when the tuning job began.
    #[error(
        "{uri} is no longer the object that it was when the tuning job first used it, and all its training jobs are to \
         have the same data: start another tuning job"
    )]
    Changed {
        /// The object.
        uri: String,
    },
    /// No disk for a channel's data.
    #[error("there is no room for a channel's {bytes} bytes on this server: {why}")]
    NoRoom {
        /// Its size.
        bytes: u64,
        /// What is in the way.
        why: String,
    },
    /// The remote store failed or refused.
    #[error("the S3 store failed while {doing}")]
    Remote {
        /// What, with the URI.
        doing: String,
        /// The cause.
        #[source]
        source: Box<object_store::Error>,
    },
    /// A folder that is not taken.
    #[error("failed while {doing}: {why}")]
    Unpackable {
        /// What, with the path or URI.
        doing: String,
        /// What is wrong with the folder.
        why: String,
    },
    /// A folder whose files are larger, holes counted, than an artifact may be.
    #[error("failed while {doing}: its files are larger than the {max_bytes} bytes that an artifact may have")]
    TooLarge {
        /// What, with the path or URI.
        doing: String,
        /// The limit.
        max_bytes: u64,
    },
    /// The caller gave it up; nothing was written.
    #[error("given up while {doing}")]
    Cancelled {
        /// What, with the path or URI.
        doing: String,
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

impl ObjectsError {
    /// Whether the store or the machine is to blame, so that the same may go well another time; else what was asked for
    /// is.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        use object_store::Error;
        match self {
            Self::Io { .. } | Self::NoRoom { .. } => true,
            Self::Remote { source, .. } => match &**source {
                Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::InvalidPath { .. } => false,
                // A listing that is refused has no kind of its own: the store's answer is all there is.
                other => {
                    let answer = crate::telemetry::chain(other);
                    !REFUSALS.iter().any(|code| answer.contains(&format!("<Code>{code}</Code>")))
                }
            },
            Self::InvalidUri { .. }
            | Self::NotFound { .. }
            | Self::NoInput { .. }
            | Self::NoRemoteInput { .. }
            | Self::NoDirectory { .. }
            | Self::Manifest { .. }
            | Self::Missing { .. }
            | Self::UnusableKey { .. }
            | Self::Changed { .. }
            | Self::Unpackable { .. }
            | Self::TooLarge { .. }
            | Self::Cancelled { .. } => false,
        }
    }
}

impl Objects {
    /// A tree beneath `root` (`<root>/<bucket>/<key>`), with URI prefixes that are mapped to other folders.
    #[expect(clippy::needless_pass_by_value, reason = "settings are given away once")]
    pub fn new(root: PathBuf, mapped: Vec<(String, PathBuf)>) -> Result<Self, ObjectsError> {
        let tree = Arc::new(Tree::open(&root, &mapped)?);
        let pins = Pins::new(tree.root.path().join(PINS));
        Ok(Self { tree, artifact: ARTIFACT, pins, file_systems: FileSystems::new(), remote: None })
    }

    /// Takes buckets from S3 rather than from the tree, and keeps copies of their channels within `channels`.
    pub fn with_buckets(
        mut self,
        buckets: Vec<Bucket>,
        default_region: &str,
        channels: Channels,
    ) -> Result<Self, ObjectsError> {
        if let Some(tree) = Arc::get_mut(&mut self.tree) {
            tree.min_free_bytes = channels.min_free_gib << 30;
        }
        if !buckets.is_empty() {
            let room = Room { max_bytes: channels.max_gib << 30, min_free_bytes: channels.min_free_gib << 30 };
            let fetched = Arc::new(Fetched::open(self.tree.root.path().join(FETCHED), room)?);
            self.remote = Some(RemoteSide { buckets: Buckets::new(buckets, default_region), fetched });
        }
        Ok(self)
    }

    /// The remote bucket of a location, with the copies; none where it is in the tree.
    fn remote(&self, location: &Location) -> Result<Option<(Remote, &Fetched)>, ObjectsError> {
        self.remote_bucket(&location.bucket)
    }

    fn remote_bucket(&self, bucket: &str) -> Result<Option<(Remote, &Fetched)>, ObjectsError> {
        let Some(side) = &self.remote else { return Ok(None) };
        Ok(side.buckets.find(bucket)?.map(|remote| (remote, &*side.fetched)))
    }

    /// Refuses artifacts of more bytes (holes of sparse files count), or of more files, folders and links.
    #[must_use]
    pub fn with_artifact_limits(mut self, max_bytes: u64, max_files: u64) -> Self {
        self.artifact = Limits { bytes: max_bytes, entries: max_files };
        self
    }

    /// Forgets prefixes that were gathered for attempts. Only while no attempt runs.
    pub async fn forget_gathered(&self) -> Result<(), ObjectsError> {
        self.blocking("forgetting gathered prefixes".to_owned(), Tree::forget_gathered).await
    }

    /// A folder for an attempt's checkpoints, with what is saved under a prefix: the prefix' own in the tree, made where
    /// it is missing; of a remote bucket a copy, to be saved by [`Objects::saver`].
    pub async fn checkpoints(&self, uri: &str, attempt: AttemptId) -> Result<PathBuf, ObjectsError> {
        let location = Location::parse(uri)?;
        if let Some((remote, fetched)) = self.remote(&location)? {
            let folder = fetched.checkpoints(attempt);
            checkpoints::fetch(&remote, &location, &folder).await?;
            return Ok(folder);
        }
        self.blocking(format!("making {uri}"), move |tree| tree.directory(&location)).await
    }

    /// What saves an attempt's checkpoints under a prefix; none where their folder is the prefix' own.
    pub fn saver(&self, uri: &str, attempt: AttemptId) -> Result<Option<Saver>, ObjectsError> {
        let location = Location::parse(uri)?;
        Ok(self.remote(&location)?.map(|(remote, fetched)| Saver {
            remote,
            location,
            folder: fetched.checkpoints(attempt),
            limits: self.artifact,
            saved: Arc::default(),
        }))
    }

    /// Lets go of the copies that an attempt used; its checkpoints may be many files. Twice is once.
    pub async fn release(&self, attempt: AttemptId) -> Result<(), ObjectsError> {
        let Some(side) = &self.remote else { return Ok(()) };
        let fetched = Arc::clone(&side.fetched);
        self.blocking(format!("releasing what attempt {attempt} used"), move |_| fetched.release(attempt)).await
    }

    /// Lets go of the copies of every attempt but these: a crash may have come before their release.
    pub fn release_all_but(&self, held: &[AttemptId]) -> Result<(), ObjectsError> {
        let Some(side) = &self.remote else { return Ok(()) };
        let users = side.fetched.users().map_err(failed(|| "looking for used copies".to_owned()))?;
        for attempt in users.into_iter().filter(|attempt| !held.contains(attempt)) {
            let released = side.fetched.release(attempt);
            released.map_err(failed(|| format!("releasing what attempt {attempt} used")))?;
        }
        Ok(())
    }

    /// Forgets what a tuning job's channels were fixed to: it is over.
    pub fn unpin(&self, tuning_job: Uuid) -> Result<(), ObjectsError> {
        self.pins.forget(tuning_job).map_err(failed(|| format!("forgetting the channels of {tuning_job}")))
    }

    /// Packs a folder into a `.tar.gz` object, durably; follows no link out of the folder. What the folder's owner locked
    /// is unlocked on the way.
    pub async fn put_tar_gz(&self, folder: &Path, uri: &str, cancelled: CancellationToken) -> Result<(), ObjectsError> {
        let (location, folder) = (Location::parse(uri)?, folder.to_owned());
        let bounds = Bounds::new(self.artifact, cancelled.clone());
        if let Some((remote, _)) = self.remote(&location)? {
            let packing = self.blocking(format!("packing {uri}"), move |tree| {
                let folder = Dir::open_ambient_dir(folder, ambient_authority())?;
                archive::measure(&folder, 0, &bounds)?;
                let bounds = bounds.again();
                tree.nameless(|file| archive::write_tar_gz(&folder, &bounds, io::BufWriter::new(file)))
            });
            let (file, bytes) = packing.await?;
            return remote.upload(&object_key(&location, Path::new("."))?, file, bytes, &cancelled).await;
        }
        self.blocking(format!("packing {uri}"), move |tree| {
            let folder = Dir::open_ambient_dir(folder, ambient_authority())?;
            archive::measure(&folder, 0, &bounds)?;
            let bounds = bounds.again();
            tree.put(&location, |file| archive::write_tar_gz(&folder, &bounds, io::BufWriter::new(file)))
        })
        .await
    }

    /// Copies a folder's files to objects beneath a prefix, durably (`CompressionType: NONE`). What the folder's owner
    /// locked is unlocked on the way.
    pub async fn put_tree(&self, folder: &Path, uri: &str, cancelled: CancellationToken) -> Result<(), ObjectsError> {
        let (location, folder) = (Location::parse(uri)?, folder.to_owned());
        if let Some((remote, _)) = self.remote(&location)? {
            let saver = Saver { remote, location, folder, limits: self.artifact, saved: Arc::default() };
            return saver.save(true, &cancelled).await;
        }
        let bounds = Bounds::new(self.artifact, cancelled);
        self.blocking(format!("copying to {uri}"), move |tree| {
            let folder = Dir::open_ambient_dir(folder, ambient_authority())?;
            let mut files = Vec::new();
            tree::list(&folder, Path::new("."), Path::new(""), 0, &bounds, &mut files)?;
            let bounds = bounds.again();
            let (base, prefix) = tree.locate(&location);
            for file in files {
                bounds.entry(0)?;
                let Some(source) = archive::open_regular(&folder, &file.source)? else { continue };
                let mut source = bounds.reading(source);
                let target = prefix.join(&file.target);
                tree.put_beneath(base, &target, |out| io::copy(&mut source, out).map(drop))?;
            }
            Ok(())
        })
        .await
    }

    /// Keeps a file of a finished log and returns its object key. The file itself stays; keeping it again is harmless.
    pub async fn keep_log(&self, attempt: AttemptId, first_offset: u64, file: &Path) -> Result<String, ObjectsError> {
        let (key, kept, file) = (log_key(attempt, first_offset), log_path(attempt, first_offset), file.to_owned());
        let doing = format!("keeping the log {}", file.display());
        self.blocking(doing, move |tree| {
            let root = &tree.root.dir;
            let Some((parent, name)) = file.parent().zip(file.file_name()) else {
                return Err(ErrorKind::InvalidFilename.into());
            };
            let from = Dir::open_ambient_dir(parent, ambient_authority())?;
            root.create_dir_all(kept.parent().unwrap_or(Path::new(LOGS)))?;
            match from.hard_link(name, root, &kept) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                // Another file system, or one without links.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    let mut source = from.open(name)?;
                    tree.put_beneath(&tree.root, &kept, |out| io::copy(&mut source, out).map(drop))
                }
                other => other,
            }
        })
        .await?;
        Ok(key)
    }

    /// Keeps bytes as a further file of a finished log and returns its object key.
    pub async fn keep_log_bytes(
        &self,
        attempt: AttemptId,
        first_offset: u64,
        bytes: &[u8],
    ) -> Result<String, ObjectsError> {
        let (key, kept, bytes) = (log_key(attempt, first_offset), log_path(attempt, first_offset), bytes.to_owned());
        let keep = move |tree: &Tree| tree.put_beneath(&tree.root, &kept, |out| io::Write::write_all(out, &bytes));
        self.blocking(format!("keeping the log {key}"), keep).await?;
        Ok(key)
    }

    /// Bytes of a kept log file from `from` on, at most `max_bytes`.
    pub async fn read_log(&self, key: &str, from: u64, max_bytes: usize) -> Result<Vec<u8>, ObjectsError> {
        let not_found = || ObjectsError::NotFound { uri: key.to_owned() };
        let kept = kept_path(key).ok_or_else(not_found)?;
        let bytes = self.blocking(format!("reading the log {key}"), move |tree| {
            use std::io::{Read, Seek, SeekFrom};
            let mut file = match tree.root.dir.open(kept) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(max_bytes as u64).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        });
        bytes.await?.ok_or_else(not_found)
    }

    /// Forgets the kept log of an attempt.
    pub async fn remove_log(&self, attempt: AttemptId) -> Result<(), ObjectsError> {
        self.blocking(format!("removing the log of attempt {attempt}"), move |tree| {
            match tree.root.dir.remove_dir_all(Path::new(LOGS).join(attempt.to_string())) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Tree) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ObjectsError> {
        let tree = self.tree.clone();
        let done = tokio::task::spawn_blocking(move || work(&tree)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed(|| doing))
    }
}

/// The key of a path beneath a location; `.` is the location's own.
fn object_key(location: &Location, path: &Path) -> Result<String, ObjectsError> {
    let mut segments = location.segments.clone();
    for part in path.components().filter(|part| *part != std::path::Component::CurDir) {
        let Some(name) = part.as_os_str().to_str() else {
            let key = path.to_string_lossy().into_owned();
            return Err(ObjectsError::UnusableKey { key, why: "it is not UTF-8".to_owned() });
        };
        segments.push(name.to_owned());
    }
    Ok(segments.join("/"))
}

fn log_key(attempt: AttemptId, first_offset: u64) -> String {
    format!("{attempt}/{first_offset:020}")
}

fn log_path(attempt: AttemptId, first_offset: u64) -> PathBuf {
    Path::new(LOGS).join(log_key(attempt, first_offset))
}

/// Where a kept log file is; none for a key that [`Objects::keep_log`] never returned.
fn kept_path(key: &str) -> Option<PathBuf> {
    let (attempt, first_offset) = key.split_once('/')?;
    Some(log_path(attempt.parse().ok()?, first_offset.parse().ok()?))
}

#[cfg(test)]
mod tests;
