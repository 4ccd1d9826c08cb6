//! Files that are being written into a folder, under names of their own until they are whole.
//!
//! Invariant: what a process that was killed left of them is never taken for a file of the folder, and goes with the next
//! download into it, or with the attempt that it was for.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use cap_std::fs::Dir;

use crate::executor::folder::found;
use crate::executor::paths::open_for_reading;

/// What their names begin with; 32 hexadecimal digits follow.
const PREFIX: &str = ".tunesmith-new-";

/// A name that no other has.
pub(super) fn name() -> String {
    format!("{PREFIX}{}", uuid::Uuid::new_v4().simple())
}

/// Whether a name is one of those.
pub(super) fn is_one(name: &OsStr) -> bool {
    let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    rest.is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes them from a folder and those within it, as deep as `depth`. What else unpacks there loses what it has under way.
pub(super) fn remove(folder: &Dir, depth: usize) -> io::Result<()> {
    for entry in folder.entries()? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() && depth > 0 {
            remove(&folder.open_dir(&name)?, depth - 1)?;
        } else if kind.is_file() && is_one(&name) {
            // A download that was given up may still be at its last file.
            found(folder.remove_file(&name))?;
        }
    }
    Ok(())
}

/// As [`remove`], of a folder that may not be there.
pub(super) fn remove_from(folder: &Path, depth: usize) -> io::Result<()> {
    let Some(opened) = found(open_for_reading(folder))? else { return Ok(()) };
    remove(&Dir::from_std_file(opened), depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_half_done_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir(at("deep")).unwrap();
        let others = ["file", ".tunesmith-new-mine", "deep/file"];
        for path in others.map(str::to_owned).into_iter().chain([name(), format!("deep/{}", name())]) {
            std::fs::write(at(&path), "").unwrap();
        }
        let opened = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
        remove(&opened, 8).unwrap();
        assert!(others.iter().all(|path| at(path).exists()));
        let left = |path: &str| std::fs::read_dir(at(path)).unwrap().count();
        assert_eq!((left("."), left("deep")), (3, 1));
    }
}
