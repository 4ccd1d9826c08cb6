//! Folders that a training program wrote, as archives and as objects.
//!
//! Invariant: the folder may be hostile. Only regular files, folders and links that stay within are taken; nothing is
//! read through a link, and nothing that is no regular file is opened for long.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use cap_std::fs::{Dir, File, Metadata, MetadataExt, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::bounds::Bounds;

/// Packs a folder's content, in the order of its names.
pub(super) fn write_tar_gz(folder: &Dir, bounds: &Bounds, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(out, Compression::fast()));
    append_folder(&mut archive, folder, Path::new(""), 0, bounds)?;
    archive.into_inner()?.finish()?.flush()
}

fn append_folder<W: Write>(
    archive: &mut Builder<W>,
    folder: &Dir,
    path: &Path,
    depth: usize,
    bounds: &Bounds,
) -> io::Result<()> {
    for name in names(folder, depth, bounds)? {
        let name = Path::new(&name);
        let (meta, path) = (folder.symlink_metadata(name)?, path.join(name));
        bounds.bytes(0)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            archive.append_data(&mut header(&meta, EntryType::Directory, 0), &path, io::empty())?;
            append_folder(archive, &open_folder(folder, name)?, &path, depth + 1, bounds)?;
        } else if kind.is_file() {
            let Some(file) = open_regular(folder, name)? else { continue };
            let size = file.metadata()?.len();
            let mut data = bounds.reading(file).take(size);
            archive.append_data(&mut header(&meta, EntryType::Regular, size), &path, &mut data)?;
            if data.limit() > 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} shrank", path.display())));
            }
        } else if kind.is_symlink() {
            let target = folder.read_link_contents(name)?;
            if stays_within(&path, &target) {
                archive.append_link(&mut header(&meta, EntryType::Symlink, 0), &path, &target)?;
            }
        }
    }
    Ok(())
}

/// Goes through a folder as packing will, before anything is written.
pub(super) fn measure(folder: &Dir, depth: usize, bounds: &Bounds) -> io::Result<()> {
    for name in names(folder, depth, bounds)? {
        let name = Path::new(&name);
        let meta = folder.symlink_metadata(name)?;
        if meta.is_dir() {
            measure(&open_folder(folder, name)?, depth + 1, bounds)?;
        } else if meta.is_file() {
            bounds.bytes(meta.len())?;
        }
    }
    Ok(())
}

/// The names in a folder, in order.
pub(super) fn names(folder: &Dir, depth: usize, bounds: &Bounds) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in folder.entries()? {
        bounds.entry(depth)?;
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a folder within, unlocked where its owner had locked it: it is ours to read.
pub(super) fn open_folder(folder: &Dir, name: &Path) -> io::Result<Dir> {
    unlocked(folder, name, 0o700, || {
        let opened = folder.open_dir(name)?;
        // Opened as a place, which its owner's bits do not prevent; going through it they would, but for root.
        let open = opened.dir_metadata()?.mode() & 0o500 == 0o500 || nix::unistd::geteuid().is_root();
        if open { Ok(opened) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    })
}

/// Opens a file that is regular; none where it is none (any more). Never waits, as opening a FIFO would.
pub(super) fn open_regular(folder: &Dir, path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW);
    let file = unlocked(folder, path, 0o600, || folder.open_with(path, &options))?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Tries again with a mode of its own what permissions prevent.
fn unlocked<T>(folder: &Dir, path: &Path, mode: u32, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            folder.set_permissions(path, Permissions::from_mode(mode)).map_err(|_| error)?;
            open()
        }
        other => other,
    }
}

fn header(meta: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(meta.mode() & 0o777);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header
}

/// Whether a link at `path` leads to a place within the same folder, as its text says.
fn stays_within(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_lead_within_only() {
        for (path, target, within) in [
            ("a", "b", true),
            ("a/b", "../c", true),
            ("a/b", "../../c", false),
            ("a", "/etc/passwd", false),
            ("a", "b/../../c", false),
            ("a", "./b/../c", true),
        ] {
            assert_eq!(stays_within(Path::new(path), Path::new(target)), within, "{path} -> {target}");
        }
    }
}
