//! What a channel's folder holds, in the order that a bucket shows its keys.
//!
//! Invariant: a function of the paths beneath the folder alone, so that all who divide a channel among them divide it in
//! the same way. A link counts as an object; folders without objects are nothing.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use cap_std::fs::Dir;

/// What a folder holds but folders, by paths in the order of keys.
pub(super) fn objects(folder: &Dir) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.try_clone()?, PathBuf::new())];
    while let Some((folder, within)) = folders.pop() {
        for entry in folder.entries()? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let path = within.join(&name);
            if kind.is_dir() {
                folders.push((folder.open_dir(&name)?, path));
            } else if kind.is_file() || kind.is_symlink() {
                found.push(path);
            }
        }
    }
    // As texts: among keys `a.b` stands before `a/b`.
    found.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(found)
}
