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
    // By path: handles on all that are still to be looked through may be more than a process can have.
    let mut folders = vec![PathBuf::new()];
    while let Some(within) = folders.pop() {
        let entries = if within.as_os_str().is_empty() { folder.entries()? } else { folder.read_dir(&within)? };
        for entry in entries {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let path = within.join(&name);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() || kind.is_symlink() {
                found.push(path);
            }
        }
    }
    // As texts: among keys `a.b` stands before `a/b`.
    found.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(found)
}
