//! Deleting what attempts left behind, however hostile.
//!
//! Invariant: neither the stack nor the number of open descriptors depends on how deep a tree is; no link is followed; and
//! whatever is left over keeps its attempt's name in the trash, so that it is found again. The attempt must have ended.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use uuid::Uuid;

use crate::domain::names::AttemptId;

/// Folders that are open at once; deeper ones are moved up into the trash first.
const MAX_DEPTH: usize = 32;

/// How often a folder is gone through until it is empty: some file systems skip names while others are deleted.
const MAX_PASSES: usize = 100;

/// A name in the trash for an attempt's folder, or for a part of it.
pub(in crate::executor) fn trash_name(id: AttemptId) -> String {
    format!("{}{}", trash_prefix(id), Uuid::new_v4().simple())
}

fn trash_prefix(id: AttemptId) -> String {
    format!("{id}-")
}

/// Deletes everything of an attempt from the trash.
pub(in crate::executor) fn remove_attempt(trash: &Path, id: AttemptId) -> io::Result<()> {
    let prefix = trash_prefix(id);
    for entry in std::fs::read_dir(trash)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(prefix.as_bytes()) {
            remove_tree(trash, &name)?;
        }
    }
    Ok(())
}

/// Deletes what removals that were cut short left. What cannot be deleted is reported and stays.
pub(in crate::executor) fn empty(trash: &Path) {
    let names = std::fs::read_dir(trash)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>());
    let complain = |path: &Path, error: &io::Error| {
        tracing::warn!(path = %path.display(), %error, "what removed attempts left could not be deleted");
    };
    match names {
        Ok(names) => {
            for name in names {
                if let Err(error) = remove_tree(trash, &name) {
                    complain(&trash.join(name), &error);
                }
            }
        }
        Err(error) => complain(trash, &error),
    }
}

/// Deletes a tree that stands in the trash.
pub(in crate::executor) fn remove_tree(trash: &Path, name: &OsStr) -> io::Result<()> {
    let trash = Dir::open(trash, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut removal = Removal {
        trash: trash.as_fd(),
        name: name.as_bytes(),
        moved: Vec::new(),
        root: nix::unistd::geteuid().is_root(),
    };
    let mut next = Some(CString::new(name.as_bytes())?);
    while let Some(name) = next {
        match removal.entry(trash.as_fd(), &name, None, 0) {
            // Somebody else is at it, too.
            Ok(()) | Err(nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        next = removal.moved.pop();
    }
    Ok(())
}

struct Removal<'a> {
    trash: BorrowedFd<'a>,
    /// What all its parts are called after.
    name: &'a [u8],
    moved: Vec<CString>,
    root: bool,
}

impl Removal<'_> {
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, kind: Option<Type>, depth: usize) -> nix::Result<()> {
        let is_folder = if let Some(kind) = kind {
            kind == Type::Directory
        } else {
            let mode = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode;
            mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
        };
        if !is_folder {
            return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        }
        if !self.root {
            // A job may have taken its own folders' permissions away. It has ended: nothing changes under our feet.
            fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
        }
        if depth == MAX_DEPTH {
            let moved = [self.name, b"-", Uuid::new_v4().simple().to_string().as_bytes()].concat();
            // Its names grow with no depth: each begins with the whole tree's.
            let moved = CString::new(moved).map_err(|_| nix::Error::EINVAL)?;
            renameat(parent, name, self.trash, moved.as_c_str())?;
            self.moved.push(moved);
            return Ok(());
        }
        for _ in 0..MAX_PASSES {
            // Most are empty, and need not be opened.
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Err(nix::Error::ENOTEMPTY | nix::Error::EEXIST) => self.content(parent, name, depth)?,
                other => return other,
            }
        }
        Err(nix::Error::ENOTEMPTY)
    }

    fn content(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::openat(parent, name, flags, Mode::empty())?;
        let listing = Dir::openat(&folder, c".", flags, Mode::empty())?;
        for entry in listing {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match self.entry(folder.as_fd(), name, entry.file_type(), depth + 1) {
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Folders within folders, deeper than descriptors last.
    fn dig(top: &Path, levels: usize) {
        std::fs::create_dir(top).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut here = nix::fcntl::open(top, flags, Mode::empty()).unwrap();
        for _ in 0..levels {
            nix::sys::stat::mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
            here = nix::fcntl::openat(&here, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_goes() {
        let trash = tempfile::tempdir().unwrap();
        dig(&trash.path().join("x"), 3_000);
        remove_tree(trash.path(), OsStr::new("x")).unwrap();
        assert_eq!(std::fs::read_dir(trash.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_not_followed_and_locked_folders_go() {
        let (trash, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("f"), "kept").unwrap();
        let locked = trash.path().join("x/a/b");
        std::fs::create_dir_all(&locked).unwrap();
        symlink(outside.path(), locked.join("link")).unwrap();
        std::fs::write(locked.join("f"), "").unwrap();
        for folder in [&locked, locked.parent().unwrap()] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(trash.path(), OsStr::new("x")).unwrap();
        assert!(!trash.path().join("x").exists());
        assert_eq!(std::fs::read_to_string(outside.path().join("f")).unwrap(), "kept");
    }
}
