//! The part of a channel that one of several hosts gets (`ShardedByS3Key`).
//!
//! Invariant: of a channel's objects in the order of their keys, host i of n gets those whose number is i modulo n: the
//! shares are disjoint, together they are the channel, and they are a function of its keys. A link in a channel's folder
//! counts as an object; folders without objects are in no share.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use nix::libc;
use tar::{Builder, EntryType};

use super::archive::{append_folder, append_regular, header};
use crate::executor::keys;
use crate::executor::paths::open_for_reading;

/// Which part of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// From 0.
    pub(super) host: usize,
    /// Of how many hosts.
    pub(super) hosts: usize,
}

impl Share {
    /// Puts this part of a folder's files, or of a single file, into an archive.
    pub(super) fn append<W: Write>(self, archive: &mut Builder<W>, source: &Path) -> io::Result<()> {
        let opened = open_for_reading(source)?;
        if opened.metadata()?.is_file() {
            if self.host > 0 {
                return Ok(());
            }
            let name = source.file_name().unwrap_or(OsStr::new("data"));
            return append_regular(archive, Path::new(name), cap_std::fs::File::from_std(opened), false);
        }
        let folder = Dir::from_std_file(opened);
        let mut made = BTreeSet::new();
        for path in keys::objects(&folder)?.into_iter().skip(self.host).step_by(self.hosts) {
            let mut parents: Vec<&Path> = path.ancestors().skip(1).filter(|path| *path != Path::new("")).collect();
            parents.reverse();
            for parent in parents {
                if made.insert(parent.to_owned()) {
                    append_folder(archive, &parent.to_string_lossy(), 0o755)?;
                }
            }
            append_object(archive, &folder, &path)?;
        }
        Ok(())
    }
}

fn append_object<W: Write>(archive: &mut Builder<W>, folder: &Dir, path: &Path) -> io::Result<()> {
    let meta = folder.symlink_metadata(path)?;
    if meta.is_symlink() {
        let target = folder.read_link_contents(path)?;
        return archive.append_link(&mut header(EntryType::Symlink, 0o777, 0, meta.mtime()), path, target);
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    append_regular(archive, path, folder.open_with(path, &options)?, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(source: &Path, host: usize, hosts: usize) -> Vec<String> {
        let mut archive = Builder::new(Vec::new());
        Share { host, hosts }.append(&mut archive, source).unwrap();
        let bytes = archive.into_inner().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.header().entry_type().is_dir(), entry.path().unwrap().to_string_lossy().into_owned())
        });
        paths.filter(|(is_folder, _)| !is_folder).map(|(_, path)| path).collect()
    }

    #[test]
    fn shares_are_disjoint_and_together_all_of_it_in_the_order_of_keys() {
        let folder = tempfile::tempdir().unwrap();
        let keys = ["a.csv", "a/0", "a/1/deep", "a/2", "b", "c"];
        for key in keys {
            let path = folder.path().join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, key).unwrap();
        }
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        assert_eq!(share(folder.path(), 0, 1), keys);
        assert_eq!(share(folder.path(), 0, 2), ["a.csv", "a/1/deep", "b"]);
        assert_eq!(share(folder.path(), 1, 2), ["a/0", "a/2", "c"]);
        assert_eq!(share(folder.path(), 5, 8), ["c"]);
        assert!(share(folder.path(), 6, 8).is_empty(), "more hosts than objects");
        let one = folder.path().join("b");
        assert_eq!((share(&one, 0, 2), share(&one, 1, 2)), (vec!["b".to_owned()], vec![]));
    }
}
