//! Local copies of channels whose buckets are remote.
//!
//! Invariant: which objects a channel has is fixed when a tuning job first stages it, so that all its training jobs train
//! on the same data; a copy is made once, whoever wants it, and is complete or not used. A copy is dropped only where no
//! attempt uses it. Beneath the root:
//!
//! - `pins/<tuning job>/<channel>`: the listing that a tuning job's channel was fixed to;
//! - `sets/<identity>/`: a copy, named by what is in it: `data/`, its size in `bytes`, and once it is whole `complete`,
//!   whose time says when it was last asked for;
//! - `users/<attempt>/<identity>`: an attempt that may be reading a copy;
//! - `checkpoints/<attempt>/`: see `checkpoints`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::ObjectsError;
use super::buckets::{Object, Remote};
use super::tree::failed;
use super::uri::Location;
use crate::domain::names::AttemptId;
use crate::domain::s3;

/// Objects of one copy that are fetched at once.
const FETCHES_AT_ONCE: usize = 10;

/// Objects that one channel may have.
const MAX_OBJECTS: usize = 1_000_000;

/// How much disk copies take, and leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) max_bytes: u64,
    pub(super) min_free_bytes: u64,
}

/// The copies beneath a root.
#[derive(Debug)]
pub(super) struct Fetched {
    root: PathBuf,
    room: Room,
    /// One at a time fetches a copy; the others find it complete.
    fetching: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// One at a time looks for room.
    making_room: tokio::sync::Mutex<()>,
}

/// What a channel was fixed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    /// Where each object goes beneath the copy, by its path.
    files: BTreeMap<String, Object>,
    /// Whether the URI names one object rather than a folder of them.
    single: bool,
}

impl Pin {
    /// The name of a copy: the same for the same objects at the same places.
    fn identity(&self, remote: &Remote) -> String {
        let mut digest = Sha256::new_with_prefix(remote.identity.as_bytes());
        for (path, object) in &self.files {
            let version = object.etag.as_ref().unwrap_or(&object.modified);
            digest.update(format!("\0{path}\0{}\0{}\0{version}\0", object.key, object.bytes));
        }
        short_name(digest)
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|object| object.bytes).sum()
    }
}

impl Fetched {
    pub(super) fn open(root: PathBuf, limits: Room) -> Result<Self, ObjectsError> {
        for part in ["pins", "sets", "users", "checkpoints"] {
            let folder = root.join(part);
            std::fs::create_dir_all(&folder).map_err(failed(|| format!("making {}", folder.display())))?;
        }
        Ok(Self { root, room: limits, fetching: Mutex::default(), making_room: tokio::sync::Mutex::default() })
    }

    /// A local path with all objects whose keys begin with the location's, as its tuning job first found them; the
    /// attempt keeps it until it is released. None where there is no object.
    pub(super) async fn stage(
        &self,
        remote: &Remote,
        location: &Location,
        attempt: AttemptId,
        tuning_job: Uuid,
    ) -> Result<Option<PathBuf>, ObjectsError> {
        let Some(pin) = self.pinned(remote, location, tuning_job).await? else { return Ok(None) };
        let identity = pin.identity(remote);
        // Before it is looked for: from here on nobody drops it.
        let user = self.root.join("users").join(attempt.to_string());
        let mark = || std::fs::create_dir_all(&user).and_then(|()| std::fs::write(user.join(&identity), ""));
        mark().map_err(failed(|| format!("writing {}", user.display())))?;
        let lock = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(fetching.entry(identity.clone()).or_default())
        };
        let _one_at_a_time = lock.lock().await;
        let set = self.root.join("sets").join(&identity);
        let complete = set.join("complete");
        if !complete.exists() {
            self.make_room(&identity, pin.bytes()).await?;
            fetch(remote, &pin, &set).await?;
        }
        // Its time is when the copy was last asked for.
        std::fs::write(&complete, "").map_err(failed(|| format!("writing {}", complete.display())))?;
        let data = set.join("data");
        Ok(Some(match pin.files.keys().next() {
            Some(name) if pin.single => data.join(name),
            _ => data,
        }))
    }

    /// The listing that the tuning job has fixed, or now fixes.
    async fn pinned(
        &self,
        remote: &Remote,
        location: &Location,
        tuning_job: Uuid,
    ) -> Result<Option<Pin>, ObjectsError> {
        let digest = Sha256::new_with_prefix(format!("{}\0{location:?}", remote.identity));
        let folder = self.root.join("pins").join(tuning_job.simple().to_string());
        let file = folder.join(short_name(digest));
        match std::fs::read(&file) {
            // Torn by a power failure, it is made again: nothing was fetched after it yet.
            Ok(text) => {
                if let Ok(pin) = serde_json::from_slice(&text) {
                    return Ok(Some(pin));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(|| format!("reading {}", file.display()))(error)),
        }
        let Some(pin) = list(remote, location).await? else { return Ok(None) };
        let write = || -> io::Result<Pin> {
            std::fs::create_dir_all(&folder)?;
            let unfinished = folder.join(Uuid::new_v4().simple().to_string());
            std::fs::write(&unfinished, serde_json::to_vec(&pin)?)?;
            // Another attempt may have fixed it meanwhile: its listing counts then.
            let linked = std::fs::hard_link(&unfinished, &file);
            std::fs::remove_file(&unfinished)?;
            match linked {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let text = std::fs::read(&file)?;
                    if let Ok(theirs) = serde_json::from_slice(&text) {
                        return Ok(theirs);
                    }
                    std::fs::write(&file, serde_json::to_vec(&pin)?)?;
                    Ok(pin.clone())
                }
                other => other.map(|()| pin.clone()),
            }
        };
        write().map(Some).map_err(failed(|| format!("writing {}", file.display())))
    }

    /// Drops copies that nobody uses, the longest unasked first, until one of so many bytes fits.
    async fn make_room(&self, identity: &str, bytes: u64) -> Result<(), ObjectsError> {
        let _one_at_a_time = self.making_room.lock().await;
        let make = || -> io::Result<Option<String>> {
            let sets = self.sets()?;
            let used = self.used()?;
            let mut taken: u64 = sets.iter().filter(|set| set.identity != identity).map(|set| set.bytes).sum();
            let mut unused: Vec<&Set> =
                sets.iter().filter(|set| set.identity != identity && !used.contains(&set.identity)).collect();
            unused.sort_by_key(|set| set.asked_at);
            let mut unused = unused.into_iter();
            loop {
                let free = free_bytes(&self.root)?;
                let lacking = if taken.saturating_add(bytes) > self.room.max_bytes {
                    format!("channels may take {} bytes together, and those in use take {taken}", self.room.max_bytes)
                } else if free < bytes.saturating_add(self.room.min_free_bytes) {
                    format!("the disk has {free} bytes free, of which {} are to stay so", self.room.min_free_bytes)
                } else {
                    break;
                };
                let Some(set) = unused.next() else { return Ok(Some(lacking)) };
                tracing::info!(identity = %set.identity, bytes = set.bytes, "a local copy of a channel is dropped");
                std::fs::remove_dir_all(self.root.join("sets").join(&set.identity))?;
                taken = taken.saturating_sub(set.bytes);
            }
            // Counted from here on.
            let set = self.root.join("sets").join(identity);
            std::fs::create_dir_all(set.join("data"))?;
            std::fs::write(set.join("bytes"), bytes.to_string())?;
            Ok(None)
        };
        match make().map_err(failed(|| "making room for a channel".to_owned()))? {
            None => Ok(()),
            Some(why) => Err(ObjectsError::NoRoom { bytes, why }),
        }
    }

    fn sets(&self) -> io::Result<Vec<Set>> {
        let mut sets = Vec::new();
        for entry in std::fs::read_dir(self.root.join("sets"))? {
            let entry = entry?;
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
            let asked = std::fs::metadata(entry.path().join("complete")).and_then(|meta| meta.modified());
            sets.push(Set {
                identity: entry.file_name().to_string_lossy().into_owned(),
                bytes: read("bytes").and_then(|text| text.parse().ok()).unwrap_or(0),
                asked_at: asked.ok(),
            });
        }
        Ok(sets)
    }

    /// The copies that attempts use.
    fn used(&self) -> io::Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for user in std::fs::read_dir(self.root.join("users"))? {
            for mark in std::fs::read_dir(user?.path())? {
                used.insert(mark?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(used)
    }

    /// The attempts that may be reading copies.
    pub(super) fn users(&self) -> io::Result<Vec<AttemptId>> {
        let mut users = BTreeSet::new();
        for part in ["users", "checkpoints"] {
            for entry in std::fs::read_dir(self.root.join(part))? {
                users.extend(entry?.file_name().to_str().and_then(|name| name.parse::<AttemptId>().ok()));
            }
        }
        Ok(users.into_iter().collect())
    }

    /// Lets go of what an attempt used. Twice is once.
    pub(super) fn release(&self, attempt: AttemptId) -> io::Result<()> {
        for part in ["users", "checkpoints"] {
            match std::fs::remove_dir_all(self.root.join(part).join(attempt.to_string())) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets what a tuning job's channels were fixed to: it is over.
    pub(super) fn unpin(&self, tuning_job: Uuid) -> io::Result<()> {
        match std::fs::remove_dir_all(self.root.join("pins").join(tuning_job.simple().to_string())) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The folder of an attempt's checkpoints.
    pub(super) fn checkpoints(&self, attempt: AttemptId) -> PathBuf {
        self.root.join("checkpoints").join(attempt.to_string())
    }
}

/// A copy on the disk.
struct Set {
    identity: String,
    bytes: u64,
    /// None while it is not complete.
    asked_at: Option<SystemTime>,
}

/// What a location names, as [`super::Objects::stage`] says it; none where that is nothing.
async fn list(remote: &Remote, location: &Location) -> Result<Option<Pin>, ObjectsError> {
    let prefix = location.segments.join("/");
    let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let mut objects = remote.list(if location.is_folder { &folder } else { &prefix }).await?;
    if objects.len() > MAX_OBJECTS {
        let why = format!("it holds more than {MAX_OBJECTS} objects");
        return Err(ObjectsError::Unpackable { doing: format!("listing {prefix}"), why });
    }
    let single = objects.iter().any(|object| object.key == prefix) && !location.is_folder;
    let cut = if single {
        objects.retain(|object| object.key == prefix);
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
    Ok(Some(Pin { files: placed(objects, cut)?, single }))
}

/// Where each object goes: its key from `cut` on. A key that is no path beneath a folder is refused.
pub(super) fn placed(objects: Vec<Object>, cut: usize) -> Result<BTreeMap<String, Object>, ObjectsError> {
    let mut files = BTreeMap::new();
    for object in objects {
        let unusable = |why: &str| ObjectsError::UnusableKey { key: object.key.clone(), why: why.to_owned() };
        let path = object.key.get(cut..).ok_or_else(|| unusable("it is cut within a character"))?.to_owned();
        path.split('/').try_for_each(s3::check).map_err(unusable)?;
        files.insert(path, object);
    }
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

/// Fetches what a copy lacks.
async fn fetch(remote: &Remote, pin: &Pin, set: &Path) -> Result<(), ObjectsError> {
    let parts = set.join("unfinished");
    std::fs::create_dir_all(&parts).map_err(failed(|| format!("making {}", parts.display())))?;
    fetch_into(remote, &pin.files, &set.join("data"), &parts).await?;
    std::fs::remove_dir_all(&parts).map_err(failed(|| format!("removing {}", parts.display())))
}

/// Fetches the objects that a folder lacks, some at once, each to a name among `parts` first, so that one that is there
/// is whole.
pub(super) async fn fetch_into(
    remote: &Remote,
    files: &BTreeMap<String, Object>,
    data: &Path,
    parts: &Path,
) -> Result<(), ObjectsError> {
    let mut fetches = JoinSet::new();
    let mut folders = BTreeSet::new();
    for (nth, (path, object)) in files.iter().enumerate() {
        let target = data.join(path);
        if std::fs::metadata(&target).is_ok_and(|meta| meta.len() == object.bytes) {
            continue;
        }
        if let Some(parent) = target.parent().filter(|parent| folders.insert(parent.to_path_buf())) {
            std::fs::create_dir_all(parent).map_err(failed(|| format!("making {}", parent.display())))?;
        }
        if fetches.len() == FETCHES_AT_ONCE {
            one_of(&mut fetches).await?;
        }
        let (remote, object, part) = (remote.clone(), object.clone(), parts.join(nth.to_string()));
        fetches.spawn(async move {
            remote.fetch(&object, &part).await?;
            std::fs::rename(&part, &target).map_err(failed(|| format!("naming {}", target.display())))
        });
    }
    while !fetches.is_empty() {
        one_of(&mut fetches).await?;
    }
    Ok(())
}

/// Waits for one of the fetches; the first failure ends the others.
async fn one_of(fetches: &mut JoinSet<Result<(), ObjectsError>>) -> Result<(), ObjectsError> {
    match fetches.join_next().await {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(failed(|| "fetching objects".to_owned())(io::Error::other(error))),
    }
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(folder)?;
    Ok(disk.blocks_available() * disk.fragment_size())
}

/// The first half of a digest: a file's name.
fn short_name(digest: Sha256) -> String {
    let (mut half, digest) = ([0; 16], digest.finalize());
    half.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(half).simple().to_string()
}
