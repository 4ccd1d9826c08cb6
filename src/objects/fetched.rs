//! Local copies of channels whose buckets are remote.
//!
//! Invariant: a copy is named by what is in it, is made once, whoever wants it, and is complete or not used. It is dropped
//! only where no attempt uses it. Beneath the root:
//!
//! - `sets/<identity>/`: a copy, named by what is in it: `data/`, its size in `bytes`, and once it is whole `complete`,
//!   whose time says when it was last asked for;
//! - `users/<attempt>/<identity>`: an attempt that may be reading a copy;
//! - `dropped/`: copies on their way out;
//! - `checkpoints/<attempt>/`: see `checkpoints`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::ObjectsError;
use super::buckets::Remote;
use super::listing::{Listing, Object};
use super::tree::failed;
use crate::domain::names::AttemptId;

/// Objects of one copy that are fetched at once.
const FETCHES_AT_ONCE: usize = 10;

/// How much disk copies take, and leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) max_bytes: u64,
    pub(super) min_free_bytes: u64,
}

/// The copies beneath a root.
#[derive(Debug)]
pub(super) struct Fetched {
    disk: Arc<Disk>,
    /// One at a time looks for room.
    making_room: tokio::sync::Mutex<()>,
}

/// Their folders.
#[derive(Debug)]
struct Disk {
    root: PathBuf,
    room: Room,
    /// One at a time fetches a copy or drops it; the others find it complete, or gone.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The name of a copy: the same for the same objects at the same places.
fn identity(listing: &Listing, remote: &Remote) -> String {
    let mut digest = Sha256::new_with_prefix(remote.identity.as_bytes());
    for (path, object) in &listing.files {
        let version = object.etag.as_ref().unwrap_or(&object.modified);
        digest.update(format!("\0{path}\0{}\0{}\0{version}\0", object.key, object.bytes));
    }
    short_name(digest)
}

impl Fetched {
    pub(super) fn open(root: PathBuf, limits: Room) -> Result<Self, ObjectsError> {
        for part in ["sets", "users", "checkpoints"] {
            let folder = root.join(part);
            std::fs::create_dir_all(&folder).map_err(failed(|| format!("making {}", folder.display())))?;
        }
        // What was being dropped when a server ended.
        empty_folder(&root.join("dropped"))?;
        let disk = Arc::new(Disk { root, room: limits, turns: Mutex::default() });
        Ok(Self { disk, making_room: tokio::sync::Mutex::default() })
    }

    /// A local path with all that a channel has, fetched where it is not there; the attempt keeps it until it is
    /// released.
    pub(super) async fn stage(
        &self,
        remote: &Remote,
        listing: &Listing,
        attempt: AttemptId,
    ) -> Result<PathBuf, ObjectsError> {
        let identity = identity(listing, remote);
        // Before it is looked for: from here on nobody drops it.
        let user = self.disk.root.join("users").join(attempt.to_string());
        let mark = || std::fs::create_dir_all(&user).and_then(|()| std::fs::write(user.join(&identity), ""));
        mark().map_err(failed(|| format!("writing {}", user.display())))?;
        let turn = self.disk.turn(&identity);
        let _one_at_a_time = turn.lock().await;
        let set = self.disk.root.join("sets").join(&identity);
        let complete = set.join("complete");
        if !complete.exists() {
            self.make_room(&identity, listing.bytes()).await?;
            fetch(remote, listing, &set).await?;
        }
        // Its time is when the copy was last asked for.
        std::fs::write(&complete, "").map_err(failed(|| format!("writing {}", complete.display())))?;
        let data = set.join("data");
        Ok(match listing.files.keys().next() {
            Some(name) if listing.single => data.join(name),
            _ => data,
        })
    }

    /// Drops copies that nobody uses, the longest unasked first, until one of so many bytes fits.
    async fn make_room(&self, identity: &str, bytes: u64) -> Result<(), ObjectsError> {
        let _one_at_a_time = self.making_room.lock().await;
        let (disk, identity) = (Arc::clone(&self.disk), identity.to_owned());
        // Removing a large copy takes its time.
        let made = tokio::task::spawn_blocking(move || disk.make_room(&identity, bytes)).await;
        let made = made.unwrap_or_else(|error| Err(io::Error::other(error)));
        match made.map_err(failed(|| "making room for a channel".to_owned()))? {
            None => Ok(()),
            Some(why) => Err(ObjectsError::NoRoom { bytes, why }),
        }
    }

    /// The attempts that may be reading copies.
    pub(super) fn users(&self) -> io::Result<Vec<AttemptId>> {
        let mut users = BTreeSet::new();
        for part in ["users", "checkpoints"] {
            for entry in std::fs::read_dir(self.disk.root.join(part))? {
                users.extend(entry?.file_name().to_str().and_then(|name| name.parse::<AttemptId>().ok()));
            }
        }
        Ok(users.into_iter().collect())
    }

    /// Lets go of what an attempt used. Twice is once.
    pub(super) fn release(&self, attempt: AttemptId) -> io::Result<()> {
        let checkpoints = self.checkpoints(attempt);
        remove(&unfinished(&checkpoints))?;
        remove(&checkpoints)?;
        remove(&self.disk.root.join("users").join(attempt.to_string()))
    }

    /// The folder of an attempt's checkpoints.
    pub(super) fn checkpoints(&self, attempt: AttemptId) -> PathBuf {
        self.disk.root.join("checkpoints").join(attempt.to_string())
    }
}

impl Disk {
    /// As [`Fetched::make_room`]; what is in the way where there is none.
    fn make_room(&self, identity: &str, bytes: u64) -> io::Result<Option<String>> {
        let sets = self.sets()?;
        let used = self.used()?;
        let promised = self.promised(sets.iter().filter(|set| set.identity != identity), &used)?;
        // What an earlier fetch has brought is on the disk already.
        let to_come = bytes.saturating_sub(bytes_beneath(&self.root.join("sets").join(identity).join("data"))?);
        let mut taken: u64 = sets.iter().filter(|set| set.identity != identity).map(|set| set.bytes).sum();
        let mut unused: Vec<&Set> =
            sets.iter().filter(|set| set.identity != identity && !used.contains(&set.identity)).collect();
        unused.sort_by_key(|set| set.asked_at);
        let mut unused = unused.into_iter();
        loop {
            let free = free_bytes(&self.root)?.saturating_sub(promised);
            let lacking = if taken.saturating_add(bytes) > self.room.max_bytes {
                format!("channels may take {} bytes together, and those in use take {taken}", self.room.max_bytes)
            } else if free < to_come.saturating_add(self.room.min_free_bytes) {
                format!("the disk has {free} bytes free, of which {} are to stay so", self.room.min_free_bytes)
            } else {
                break;
            };
            let Some(set) = unused.next() else { return Ok(Some(lacking)) };
            if self.drop_unused(&set.identity)? {
                tracing::info!(identity = %set.identity, bytes = set.bytes, "a local copy of a channel was dropped");
                taken = taken.saturating_sub(set.bytes);
            }
        }
        // Counted from here on.
        let set = self.root.join("sets").join(identity);
        std::fs::create_dir_all(set.join("data"))?;
        std::fs::write(set.join("bytes"), bytes.to_string())?;
        Ok(None)
    }

    fn turn(&self, identity: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds, or a long life would gather one for each content that ever was.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(identity.to_owned()).or_default())
    }

    /// Drops a copy, unless somebody has come to use it meanwhile. It goes as a whole: a part of it is never found.
    fn drop_unused(&self, identity: &str) -> io::Result<bool> {
        let turn = self.turn(identity);
        let Ok(_one_at_a_time) = turn.try_lock() else { return Ok(false) };
        if self.used()?.contains(identity) {
            return Ok(false);
        }
        let dropped = self.root.join("dropped").join(Uuid::new_v4().simple().to_string());
        std::fs::rename(self.root.join("sets").join(identity), &dropped)?;
        std::fs::remove_dir_all(dropped)?;
        Ok(true)
    }

    /// What fetches that are under way have still to bring, bytes.
    fn promised<'a>(&self, sets: impl Iterator<Item = &'a Set>, used: &BTreeSet<String>) -> io::Result<u64> {
        let mut promised = 0_u64;
        for set in sets.filter(|set| set.asked_at.is_none() && used.contains(&set.identity)) {
            let there = bytes_beneath(&self.root.join("sets").join(&set.identity).join("data"))?;
            promised = promised.saturating_add(set.bytes.saturating_sub(there));
        }
        Ok(promised)
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
}

/// A copy on the disk.
struct Set {
    identity: String,
    bytes: u64,
    /// None while it is not complete.
    asked_at: Option<SystemTime>,
}

/// Fetches what a copy lacks.
async fn fetch(remote: &Remote, listing: &Listing, set: &Path) -> Result<(), ObjectsError> {
    let parts = set.join("unfinished");
    empty_folder(&parts)?;
    fetch_into(remote, &listing.files, &set.join("data"), &parts).await?;
    std::fs::remove_dir_all(&parts).map_err(failed(|| format!("removing {}", parts.display())))
}

/// A folder for parts, without those that an earlier fetch left.
pub(super) fn empty_folder(parts: &Path) -> Result<(), ObjectsError> {
    match std::fs::remove_dir_all(parts) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(parts),
    }
    .map_err(failed(|| format!("making {}", parts.display())))
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
    for (path, object) in files {
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
        // Its own name: what a fetch that was given up still does to the disk, it does to another file.
        let part = parts.join(Uuid::new_v4().simple().to_string());
        let (remote, object) = (remote.clone(), object.clone());
        fetches.spawn(async move {
            if !remote.fetch(&object, &part).await? {
                return Ok(());
            }
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

/// Where the parts of checkpoints stand.
pub(super) fn unfinished(checkpoints: &Path) -> PathBuf {
    checkpoints.with_extension("unfinished")
}

/// Removes a folder; one that is not there is removed. A training program may have locked folders of its own beneath.
fn remove(folder: &Path) -> io::Result<()> {
    let removed = match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            unlock(folder)?;
            std::fs::remove_dir_all(folder)
        }
        other => other,
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder and those beneath it their owner's to change. Nobody else is at them: their program has ended.
fn unlock(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

/// The bytes of the files beneath a folder; none where it is not there.
fn bytes_beneath(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => bytes = bytes.saturating_add(meta.len()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(folder)?;
    Ok(disk.blocks_available() * disk.fragment_size())
}

/// The first half of a digest: a file's name.
pub(super) fn short_name(digest: Sha256) -> String {
    let (mut half, digest) = ([0; 16], digest.finalize());
    half.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(half).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of so many bytes that was last asked for at a time.
    fn copy(fetched: &Fetched, identity: &str, bytes: u64, asked_at_s: u64) {
        let set = fetched.disk.root.join("sets").join(identity);
        std::fs::create_dir_all(&set).unwrap();
        std::fs::write(set.join("bytes"), bytes.to_string()).unwrap();
        let complete = std::fs::File::create(set.join("complete")).unwrap();
        complete.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(asked_at_s)).unwrap();
    }

    #[tokio::test]
    async fn room_is_made_of_what_nobody_uses_the_longest_unasked_first() {
        let folder = tempfile::tempdir().unwrap();
        let fetched = Fetched::open(folder.path().join("f"), Room { max_bytes: 100, min_free_bytes: 0 }).unwrap();
        for (identity, bytes, asked_at_s) in [("used", 40, 1), ("old", 20, 2), ("older", 20, 1), ("new", 20, 3)] {
            copy(&fetched, identity, bytes, asked_at_s);
        }
        let user = AttemptId { training_job: Uuid::from_u128(5), number: 1 };
        let marks = fetched.disk.root.join("users").join(user.to_string());
        std::fs::create_dir(&marks).unwrap();
        std::fs::write(marks.join("used"), "").unwrap();
        let left = || {
            let mut left: Vec<_> = fetched.disk.sets().unwrap().into_iter().map(|set| set.identity).collect();
            left.sort();
            left.join(" ")
        };
        fetched.make_room("first", 30).await.unwrap();
        assert_eq!(left(), "first new used", "90 bytes in all");
        let error = fetched.make_room("second", 65).await.unwrap_err();
        assert!(matches!(error, ObjectsError::NoRoom { bytes: 65, .. }), "{error}");
        assert!(error.is_infrastructure(), "later there may be room");
        assert_eq!(left(), "used", "what is used stays");
        fetched.release(user).unwrap();
        fetched.make_room("second", 65).await.unwrap();
        assert_eq!(left(), "second");
    }

    #[tokio::test]
    async fn a_copy_that_is_wanted_meanwhile_is_not_dropped_and_what_is_there_already_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let fetched = Fetched::open(folder.path().join("f"), Room { max_bytes: 100, min_free_bytes: 0 }).unwrap();
        copy(&fetched, "wanted", 60, 1);
        let turn = fetched.disk.turn("wanted");
        let held = turn.lock().await;
        fetched.make_room("other", 60).await.unwrap_err();
        assert!(fetched.disk.root.join("sets/wanted/complete").exists());
        drop(held);
        fetched.make_room("other", 60).await.unwrap();
        assert!(!fetched.disk.root.join("sets/wanted").exists());
        assert_eq!(std::fs::read_dir(fetched.disk.root.join("dropped")).unwrap().count(), 0);
        std::fs::create_dir_all(fetched.disk.root.join("sets/other/data/a")).unwrap();
        std::fs::write(fetched.disk.root.join("sets/other/data/a/b"), "12345").unwrap();
        assert_eq!(bytes_beneath(&fetched.disk.root.join("sets/other/data")).unwrap(), 5);
    }

    #[tokio::test]
    async fn a_disk_without_room_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room { max_bytes: u64::MAX, min_free_bytes: u64::MAX };
        let fetched = Fetched::open(folder.path().join("f"), room).unwrap();
        let error = fetched.make_room("any", 1).await.unwrap_err().to_string();
        assert!(error.contains("bytes free"), "{error}");
    }
}
