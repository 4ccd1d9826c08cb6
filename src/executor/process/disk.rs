//! How much disk an attempt takes, looked at from time to time while it runs.
//!
//! Invariant: a look goes on in short turns between whatever else the supervisor does, takes at most a twentieth of one
//! CPU, and follows no link out of the attempt's folders. What counts is what the disk holds: blocks, so that holes count
//! nothing, and a file with several names once. Files that were deleted while open, and files elsewhere on the machine,
//! are not seen.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::dir::{Dir, OwningIter};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use serde::{Deserialize, Serialize};

use crate::executor::disk_bound::DiskBound;
use crate::executor::paths::open_without_links;

/// How often to look, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long output and requests wait for a look.
const TURN: Duration = Duration::from_millis(2);

/// A turn is followed by this many times as long without one.
const REST: u32 = 19;

/// Folders within folders that are looked into, each of which costs two descriptors. An attempt with deeper ones is over
/// its limit: what they hold cannot be told.
const MAX_DEPTH: usize = 200;

/// What an attempt may take of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DiskLimit {
    /// Everything it writes to.
    pub(super) folders: Vec<PathBuf>,
    /// All of them together.
    #[serde(flatten)]
    pub(super) bound: DiskBound,
}

/// The looks at one attempt's folders.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    limit: &'a DiskLimit,
    due: Instant,
    next_look: Instant,
    look: Option<Look<'a>>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(limit: &'a DiskLimit) -> Self {
        let due = Instant::now() + LOOK_EVERY;
        Self { limit, due, next_look: due, look: None }
    }

    /// When the next turn is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Looks on for a short while. True where the attempt is over its limit.
    pub(super) fn turn(&mut self) -> bool {
        let begun = Instant::now();
        let look = self.look.get_or_insert_with(|| {
            self.next_look = begun + LOOK_EVERY;
            Look::new(self.limit)
        });
        let seen = look.go_on(begun + TURN);
        let rested = Instant::now() + begun.elapsed() * REST;
        self.due = rested;
        match seen {
            Seen::Exceeded => return true,
            Seen::Some => {}
            Seen::All => {
                self.look = None;
                self.due = rested.max(self.next_look);
            }
        }
        false
    }
}

/// How far a look has come.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Some,
    All,
    Exceeded,
}

/// One look: depth first. What cannot be looked at, or goes meanwhile, counts nothing.
#[derive(Debug)]
struct Look<'a> {
    left: u64,
    /// Files with several names that were counted.
    linked: HashSet<(u64, u64)>,
    /// The folders down to where it stands, each with the rest of its listing.
    open: Vec<(OwnedFd, OwningIter)>,
    folders: std::slice::Iter<'a, PathBuf>,
}

impl<'a> Look<'a> {
    fn new(limit: &'a DiskLimit) -> Self {
        Self { left: limit.bound.bytes, linked: HashSet::new(), open: Vec::new(), folders: limit.folders.iter() }
    }

    fn go_on(&mut self, until: Instant) -> Seen {
        loop {
            let Some((folder, listing)) = self.open.last_mut() else {
                let Some(next) = self.folders.next() else { return Seen::All };
                self.open.extend(open_without_links(next).ok().and_then(|place| open_folder(place.as_fd(), c".")));
                continue;
            };
            let Some(entry) = listing.next() else {
                self.open.pop();
                continue;
            };
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(meta) = fstatat(&*folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            let within = if is(SFlag::S_IFDIR, &meta) { open_folder(folder.as_fd(), name) } else { None };
            if !self.count(&meta) || (within.is_some() && self.open.len() == MAX_DEPTH) {
                return Seen::Exceeded;
            }
            self.open.extend(within);
            if Instant::now() >= until {
                return Seen::Some;
            }
        }
    }

    /// Takes what a file has from what is left; false where that is not enough.
    fn count(&mut self, meta: &FileStat) -> bool {
        if is(SFlag::S_IFREG, meta) && meta.st_nlink > 1 && !self.linked.insert((meta.st_dev, meta.st_ino)) {
            return true;
        }
        // In units of 512 bytes, whatever the file system's blocks are.
        let bytes = u64::try_from(meta.st_blocks).unwrap_or(0).saturating_mul(512);
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

fn is(kind: SFlag, meta: &FileStat) -> bool {
    meta.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Opens a folder that is no link, to be looked through; none where that fails.
fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> Option<(OwnedFd, OwningIter)> {
    let folder = open_unlocked(parent, name)?;
    // The listing takes a descriptor of its own; the other is what the entries are found from.
    let listing = Dir::from_fd(folder.try_clone().ok()?).ok()?;
    Some((folder, listing.into_iter()))
}

/// Opens a folder, unlocked where the program had locked it.
fn open_unlocked(parent: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags | OFlag::O_RDONLY, Mode::empty()) {
        Err(nix::Error::EACCES) => {
            // By its handle: under its name something else may stand by now.
            let place = openat(parent, name, flags | OFlag::O_PATH, Mode::empty()).ok()?;
            let path = format!("/proc/self/fd/{}", place.as_raw_fd());
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).ok()?;
            openat(&place, c".", flags | OFlag::O_RDONLY, Mode::empty()).ok()
        }
        other => other.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(folders: &[&std::path::Path], bytes: u64) -> DiskLimit {
        let folders = folders.iter().map(|folder| folder.canonicalize().unwrap()).collect();
        DiskLimit { folders, bound: DiskBound { bytes, advice: "write less".into() } }
    }

    /// Whether one whole look, in however many turns, finds it over its limit.
    fn is_exceeded(limit: &DiskLimit) -> bool {
        let mut look = Look::new(limit);
        loop {
            match look.go_on(Instant::now()) {
                Seen::Some => {}
                seen => return seen == Seen::Exceeded,
            }
        }
    }

    #[test]
    fn what_the_disk_holds_counts_wherever_it_stands() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(one.path().join("a/b")).unwrap();
        std::fs::write(one.path().join("a/b/f"), vec![1; 1 << 20]).unwrap();
        std::fs::write(two.path().join("g"), vec![1; 1 << 20]).unwrap();
        let both = [one.path(), two.path()];
        assert!(is_exceeded(&limit(&both, (2 << 20) - 1)));
        assert!(!is_exceeded(&limit(&both, (2 << 20) + (256 << 10))));
        assert!(!is_exceeded(&limit(&both[..1], (1 << 20) + (256 << 10))));
    }

    #[test]
    fn holes_links_and_further_names_count_nothing() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("big"), vec![1; 4 << 20]).unwrap();
        std::fs::File::create(folder.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        std::fs::write(folder.path().join("f"), vec![1; 1 << 20]).unwrap();
        for name in ["g", "h", "i"] {
            std::fs::hard_link(folder.path().join("f"), folder.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(outside.path(), folder.path().join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("big"), folder.path().join("file")).unwrap();
        assert!(!is_exceeded(&limit(&[folder.path()], (1 << 20) + (256 << 10))));
    }

    #[test]
    fn locked_and_very_deep_folders_hide_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let locked = folder.path().join("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::write(locked.join("f"), vec![1; 1 << 20]).unwrap();
        std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
        assert!(is_exceeded(&limit(&[folder.path()], 1 << 19)));

        let deep = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(deep.path().join("d/".repeat(MAX_DEPTH - 1))).unwrap();
        assert!(!is_exceeded(&limit(&[deep.path()], 1 << 30)));
        std::fs::create_dir_all(deep.path().join("d/".repeat(MAX_DEPTH))).unwrap();
        assert!(is_exceeded(&limit(&[deep.path()], 1 << 30)));
    }
}
