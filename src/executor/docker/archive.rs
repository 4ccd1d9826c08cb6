//! Folders to and from containers, as archives through the daemon's API.
//!
//! Invariant: an archive from a container may be hostile. Nothing is written outside the folder that it is unpacked into,
//! whatever its names and links say; only regular files, folders and relative links are; and it ends at its bounds.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::body_try_stream;
use bollard::query_parameters::{DownloadFromContainerOptions, UploadToContainerOptions};
use bytes::{Bytes, BytesMut};
use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use futures_util::{Stream, StreamExt};
use nix::libc;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::daemon::{self, Error};
use super::unfinished;
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::executor::paths::open_for_reading;

/// Pieces of an archive that wait on their way.
const QUEUE: usize = 8;

/// The size of a piece.
const PIECE: usize = 128 << 10;

/// Folders within folders of an archive from a container.
const MAX_DEPTH: usize = 64;

/// Archives tell times in whole seconds: a file of so short an age may change once more without showing it.
const SETTLED_AFTER_MS: i64 = 2_000;

/// What is wrong with an archive that a container left.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// The container's fault.
    #[error("{0}")]
    Refused(String),
    /// There is no such path in the container.
    #[error("the container has no such path")]
    Missing,
    /// The daemon.
    #[error("the Docker daemon failed")]
    Daemon(#[source] Error),
    /// This machine.
    #[error("the archive could not be read or written")]
    Io(#[source] io::Error),
}

/// How much of an archive is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Uploads what `fill` writes into an archive, to be unpacked at `path` of a container.
pub(super) async fn upload(
    docker: &bollard::Docker,
    container: &str,
    path: &str,
    fill: impl FnOnce(&mut Builder<Pieces>) -> io::Result<()> + Send + 'static,
) -> Result<(), TransferError> {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let packing = tokio::task::spawn_blocking(move || {
        let mut archive = Builder::new(Pieces { sender: sender.clone(), piece: BytesMut::new() });
        let packed = fill(&mut archive).and_then(|()| archive.into_inner()).and_then(|mut pieces| pieces.flush());
        if let Err(error) = &packed {
            // So that the daemon does not take half an archive for a whole one.
            let _ = sender.blocking_send(Err(io::Error::new(error.kind(), error.to_string())));
        }
        packed
    });
    let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let options = UploadToContainerOptions { path: path.to_owned(), ..UploadToContainerOptions::default() };
    let uploaded = docker.upload_to_container(container, Some(options), body_try_stream(body)).await;
    match (packing.await.unwrap_or_else(|error| Err(io::Error::other(error))), uploaded) {
        // The pipe is broken where the daemon would not have more: what it says counts.
        (Err(error), _) if error.kind() != ErrorKind::BrokenPipe => Err(TransferError::Io(error)),
        (_, Err(error)) if daemon::status(&error) == Some(404) => Err(TransferError::Missing),
        (_, Err(error)) => Err(TransferError::Daemon(error)),
        (Err(error), Ok(())) => Err(TransferError::Io(error)),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// The writing end of an upload.
#[derive(Debug)]
pub(super) struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Puts a folder into an archive.
pub(super) fn append_folder<W: Write>(archive: &mut Builder<W>, path: &str, mode: u32) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Directory, mode, 0, 0), format!("{path}/"), io::empty())
}

/// Puts a small file into an archive.
pub(super) fn append_file<W: Write>(archive: &mut Builder<W>, path: &str, text: &str) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64, 0), path, text.as_bytes())
}

/// Puts a folder's content, or a single file, into an archive beneath `path` (empty for its root). Links are kept as
/// they are, and what is neither file, folder nor link is left out. With `writable`, whoever runs may change it.
pub(super) fn append_tree<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    source: &Path,
    writable: bool,
) -> io::Result<()> {
    let opened = open_for_reading(source)?;
    if opened.metadata()?.is_file() {
        let path = path.join(source.file_name().unwrap_or(OsStr::new("data")));
        return append_regular(archive, &path, cap_std::fs::File::from_std(opened), writable);
    }
    append_content(archive, path, &Dir::from_std_file(opened), writable)
}

fn append_content<W: Write>(archive: &mut Builder<W>, path: &Path, folder: &Dir, writable: bool) -> io::Result<()> {
    // Names in order, so that one tree is one archive.
    let names: io::Result<BTreeSet<_>> = folder.entries()?.map(|entry| Ok(entry?.file_name())).collect();
    for name in names?.into_iter().filter(|name| !unfinished::is_one(name)) {
        let (name, path) = (Path::new(&name), path.join(&name));
        let meta = folder.symlink_metadata(name)?;
        if meta.is_dir() {
            let mode = if writable { 0o777 } else { 0o755 };
            archive.append_data(&mut header(EntryType::Directory, mode, 0, meta.mtime()), &path, io::empty())?;
            append_content(archive, &path, &folder.open_dir(name)?, writable)?;
        } else if meta.is_file() {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            append_regular(archive, &path, folder.open_with(name, &options)?, writable)?;
        } else if meta.is_symlink() {
            let target = folder.read_link_contents(name)?;
            archive.append_link(&mut header(EntryType::Symlink, 0o777, 0, meta.mtime()), &path, target)?;
        }
    }
    Ok(())
}

pub(super) fn append_regular<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    file: cap_std::fs::File,
    writable: bool,
) -> io::Result<()> {
    let meta = file.metadata()?;
    let mode = meta.mode() & 0o111 | if writable { 0o666 } else { 0o644 };
    let mut data = file.take(meta.len());
    archive.append_data(&mut header(EntryType::Regular, mode, meta.len(), meta.mtime()), path, &mut data)?;
    if data.limit() > 0 {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{} shrank", path.display())));
    }
    Ok(())
}

pub(super) fn header(kind: EntryType, mode: u32, size: u64, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header
}

/// Downloads a folder of a container into a folder here, which keeps what else it has. What stands at `path` may be no
/// folder at all: then nothing is written.
pub(super) async fn download(
    docker: &bollard::Docker,
    container: &str,
    path: &str,
    into: PathBuf,
    bounds: Bounds,
) -> Result<(), TransferError> {
    read(docker, container, path, move |archive| {
        let folder = Dir::from_std_file(open_for_reading(&into).map_err(TransferError::Io)?);
        unfinished::remove(&folder, MAX_DEPTH).map_err(TransferError::Io)?;
        unpack(archive, &folder, bounds)
    })
    .await
}

/// The beginning of a regular file of a container; none where it is anything else.
pub(super) async fn file_head(
    docker: &bollard::Docker,
    container: &str,
    path: &str,
    bytes: u64,
) -> Result<Option<Vec<u8>>, TransferError> {
    read(docker, container, path, move |archive| {
        let mut archive = tar::Archive::new(archive);
        let Some(entry) = archive.entries().map_err(TransferError::Io)?.next() else { return Ok(None) };
        let entry = entry.map_err(TransferError::Io)?;
        if !entry.header().entry_type().is_file() {
            return Ok(None);
        }
        let mut head = Vec::new();
        entry.take(bytes).read_to_end(&mut head).map_err(TransferError::Io)?;
        Ok(Some(head))
    })
    .await
}

/// Reads an archive from a container off the runtime's own threads. A daemon that breaks off is what went wrong then.
async fn read<T: Send + 'static>(
    docker: &bollard::Docker,
    container: &str,
    path: &str,
    work: impl FnOnce(Incoming) -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reading =
        tokio::task::spawn_blocking(move || work(Incoming { receiver, piece: Bytes::new(), consumed: false }));
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let stream = docker.download_from_container(container, Some(options));
    let broken = forward(stream, sender).await;
    let done = reading.await.unwrap_or_else(|error| Err(TransferError::Io(io::Error::other(error))));
    match broken {
        Some(error) if daemon::status(&error) == Some(404) => Err(TransferError::Missing),
        Some(error) => Err(TransferError::Daemon(error)),
        None => done,
    }
}

/// Hands pieces over until one side has no more, and tells of the end (none): a sender that goes without a word was
/// given up. What broke on the daemon's side.
async fn forward(
    stream: impl Stream<Item = Result<Bytes, Error>>,
    sender: mpsc::Sender<io::Result<Option<Bytes>>>,
) -> Option<Error> {
    let mut stream = std::pin::pin!(stream);
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => {
                if sender.send(Ok(Some(piece))).await.is_err() {
                    return None;
                }
            }
            Err(error) => {
                let _ = sender.send(Err(ErrorKind::BrokenPipe.into())).await;
                return Some(error);
            }
        }
    }
    let _ = sender.send(Ok(None)).await;
    None
}

/// The reading end of a download.
#[derive(Debug)]
struct Incoming {
    receiver: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    consumed: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.consumed {
            match self.receiver.blocking_recv().ok_or(ErrorKind::BrokenPipe)?? {
                Some(piece) => self.piece = piece,
                None => self.consumed = true,
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Unpacks what stands beneath the archive's first folder.
fn unpack(archive: impl Read, folder: &Dir, bounds: Bounds) -> Result<(), TransferError> {
    let begun = Clock::System.now();
    let (mut entries, mut bytes) = (0, 0_u64);
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(TransferError::Io)? {
        let mut entry = entry.map_err(TransferError::Io)?;
        let kind = entry.header().entry_type();
        if entries == 0 && !kind.is_dir() {
            return Ok(());
        }
        entries += 1;
        // The folder itself is the first.
        if entries > bounds.entries.saturating_add(1) {
            return Err(TransferError::Refused(format!("it holds more than {} files", bounds.entries)));
        }
        let path = entry.path().map_err(TransferError::Io)?.into_owned();
        let Some(path) = beneath(&path) else { continue };
        if path.components().count() > MAX_DEPTH {
            return Err(TransferError::Refused(format!("its folders are nested more than {MAX_DEPTH} deep")));
        }
        let link = entry.link_name().map_err(TransferError::Io)?.map(std::borrow::Cow::into_owned);
        let size = entry.size();
        bytes = bytes.saturating_add(size);
        if bytes > bounds.bytes {
            return Err(TransferError::Refused(format!("its files are larger than {} bytes", bounds.bytes)));
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777 | 0o600;
        let item = Item { kind, link: link.as_deref(), mode, size, changed: settled(entry.header(), begun) };
        place(folder, &path, &item, &mut entry).map_err(TransferError::Io)?;
    }
    Ok(())
}

/// The path without its first folder; none for that folder, and for a path that leads out of it.
fn beneath(path: &Path) -> Option<PathBuf> {
    let mut within = PathBuf::new();
    for (at, component) in path.components().filter(|component| *component != Component::CurDir).enumerate() {
        match component {
            Component::Normal(_) if at == 0 => {}
            Component::Normal(name) => within.push(name),
            _ => return None,
        }
    }
    (!within.as_os_str().is_empty()).then_some(within)
}

/// What an archive says of an entry.
struct Item<'a> {
    kind: EntryType,
    link: Option<&'a Path>,
    mode: u32,
    /// Of a file, bytes.
    size: u64,
    /// When it changed last, where that tells this content from others.
    changed: Option<SystemTime>,
}

/// When an entry was changed, where it is not so lately that it may be changed again within the same second. Time 0 is
/// what programs set that care for no times.
fn settled(header: &Header, now: Timestamp) -> Option<SystemTime> {
    let seconds = header.mtime().ok().filter(|seconds| *seconds > 0)?;
    let age_ms = now.since_ms(Timestamp(i64::try_from(seconds).ok()?.checked_mul(1000)?));
    let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    (age_ms >= SETTLED_AFTER_MS).then_some(changed)
}

/// Whether a file is there already: it is not written anew, so that who looks at its time sees no change.
fn is_there(folder: &Dir, path: &Path, item: &Item) -> bool {
    let there = folder.symlink_metadata(path).ok().filter(|meta| meta.is_file() && meta.len() == item.size);
    let times = there.and_then(|meta| Some((meta.modified().ok()?.into_std(), item.changed?)));
    times.is_some_and(|(there, changed)| there == changed)
}

/// Puts one entry in its place. What cannot be there because of what else the archive put there is left out; the disk's
/// errors are errors.
fn place(folder: &Dir, path: &Path, item: &Item, data: &mut impl Read) -> io::Result<()> {
    let Item { kind, link, .. } = *item;
    let parent = path.parent().unwrap_or(Path::new(""));
    if kind.is_dir() {
        return tolerated(folder.create_dir_all(path));
    }
    if !parent.as_os_str().is_empty() {
        tolerated(folder.create_dir_all(parent))?;
    }
    if kind.is_symlink() {
        let Some(target) = link.filter(|target| target.is_relative()) else { return Ok(()) };
        let _ = folder.remove_file(path);
        return tolerated(folder.symlink_contents(target, path));
    }
    if kind.is_hard_link() {
        let Some(target) = link.and_then(beneath) else { return Ok(()) };
        let _ = folder.remove_file(path);
        return tolerated(folder.hard_link(target, folder, path));
    }
    if !kind.is_file() {
        return Ok(());
    }
    if is_there(folder, path, item) {
        return Ok(());
    }
    // Under another name first: a reader sees the old file or the new one, and a link in its place is not followed.
    let name = path.file_name().unwrap_or_default();
    let new = parent.join(unfinished::name());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let file = match folder.open_with(&new, &options) {
        Ok(file) => file,
        Err(error) => return tolerated(Err(error)),
    };
    let written = write(file.into_std(), item, data);
    let placed = written.and_then(|()| tolerated(folder.rename(&new, folder, parent.join(name))));
    if placed.is_err() || folder.symlink_metadata(&new).is_ok() {
        let _ = folder.remove_file(&new);
    }
    placed
}

/// Writes a file to its end: an archive that ends before it leaves what was there.
fn write(mut file: std::fs::File, item: &Item, data: &mut impl Read) -> io::Result<()> {
    if io::copy(data, &mut file)? < item.size {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    file.set_permissions(Permissions::from_mode(item.mode))?;
    // A file system that cannot keep it has the file written again.
    let _ = item.changed.map(|changed| file.set_modified(changed));
    Ok(())
}

/// An entry may stand in another's way, or behind a link that leads out: its own fault. A full disk is not.
fn tolerated(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EROFS)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;

    const WIDE: Bounds = Bounds { bytes: 1 << 20, entries: 100 };

    fn entry(archive: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, link: &str, data: &[u8]) {
        let mut header = header(kind, 0o640, data.len() as u64, 0);
        // Names as no honest archiver writes them.
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, data).unwrap();
    }

    fn unpacked(entries: &[(&str, EntryType, &str, &[u8])], bounds: Bounds) -> (tempfile::TempDir, Result<(), String>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("into")).unwrap();
        let mut archive = Builder::new(Vec::new());
        for (path, kind, link, data) in entries {
            entry(&mut archive, path, *kind, link, data);
        }
        let bytes = archive.into_inner().unwrap();
        let into = Dir::open_ambient_dir(folder.path().join("into"), ambient_authority()).unwrap();
        let done = unpack(&bytes[..], &into, bounds).map_err(|error| error.to_string());
        (folder, done)
    }

    #[test]
    fn files_folders_and_links_come_as_they_were() {
        use EntryType as T;
        let (folder, done) = unpacked(
            &[
                ("model/", T::Directory, "", b""),
                ("model/a/b", T::Regular, "", b"text"),
                ("model/a/link", T::Symlink, "b", b""),
                ("model/twin", T::Link, "model/a/b", b""),
            ],
            WIDE,
        );
        assert_eq!(done, Ok(()));
        for name in ["a/b", "a/link", "twin"] {
            assert_eq!(std::fs::read_to_string(folder.path().join("into").join(name)).unwrap(), "text");
        }
    }

    #[test]
    fn nothing_is_written_outside() {
        use EntryType as T;
        let (folder, done) = unpacked(
            &[
                ("model/", T::Directory, "", b""),
                ("model/../../out", T::Regular, "", b"x"),
                ("/out", T::Regular, "", b"x"),
                ("../out", T::Regular, "", b"x"),
                ("model/up", T::Symlink, "../..", b""),
                ("model/up/out", T::Regular, "", b"x"),
                ("model/abs", T::Symlink, "/tmp", b""),
                ("model/abs/tunesmith-out", T::Regular, "", b"x"),
                ("model/passwd", T::Link, "/etc/passwd", b""),
                ("model/passwd2", T::Link, "../../../etc/passwd", b""),
                ("model/fifo", T::Fifo, "", b""),
                ("model/device", T::Char, "", b""),
                ("model/dir", T::Directory, "", b""),
                ("model/dir", T::Regular, "", b"x"),
                ("model/good", T::Regular, "", b"x"),
            ],
            WIDE,
        );
        assert_eq!(done, Ok(()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the folder unpacked into");
        assert!(!Path::new("/tmp/tunesmith-out").exists());
        let mut names: Vec<_> = std::fs::read_dir(folder.path().join("into"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["abs", "dir", "good", "up"]);
        assert!(folder.path().join("into/abs").is_dir(), "a folder of its own, no link");
    }

    #[test]
    fn what_is_no_folder_is_nothing() {
        let link: &[(&str, EntryType, &str, &[u8])] = &[("model", EntryType::Symlink, "/etc", b"")];
        let (folder, done) = unpacked(link, WIDE);
        assert_eq!((done, std::fs::read_dir(folder.path().join("into")).unwrap().count()), (Ok(()), 0));
    }

    #[test]
    fn a_file_that_has_not_changed_stays_as_it_is() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoint");
        let take = |mtime: i64, data: &[u8]| {
            let mut archive = Builder::new(Vec::new());
            append_folder(&mut archive, "model", 0o755).unwrap();
            let mut header = header(EntryType::Regular, 0o640, data.len() as u64, mtime);
            archive.append_data(&mut header, "model/checkpoint", data).unwrap();
            let into = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
            unpack(&archive.into_inner().unwrap()[..], &into, WIDE).unwrap();
            let meta = std::fs::metadata(&place).unwrap();
            (meta.ino(), meta.mtime(), meta.mtime_nsec())
        };
        let first = take(1_000_000, b"one");
        assert_eq!((first.1, first.2), (1_000_000, 0));
        assert_eq!(take(1_000_000, b"one"), first);
        let second = take(1_000_001, b"two");
        assert_eq!((std::fs::read_to_string(&place).unwrap().as_str(), second.1), ("two", 1_000_001));
        take(1_000_001, b"three");
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "three", "of another size");

        // Changed within a second, or with no times at all.
        for mtime in [Clock::System.now().0 / 1000, 0] {
            take(mtime, b"1");
            take(mtime, b"2");
            assert_eq!(std::fs::read_to_string(&place).unwrap(), "2");
        }
    }

    #[test]
    fn half_an_archive_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoint");
        std::fs::write(&place, "whole").unwrap();
        let mut archive = Builder::new(Vec::new());
        entry(&mut archive, "model/", EntryType::Directory, "", b"");
        entry(&mut archive, "model/checkpoint", EntryType::Regular, "", &[b'x'; 4096]);
        let half = Bytes::from(archive.into_inner().unwrap()).slice(..2048);
        let into = || Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        assert!(unpack(&half[..], &into(), WIDE).is_err());

        // Nobody waits for it any more: that is not its end.
        let (sender, receiver) = mpsc::channel(QUEUE);
        sender.try_send(Ok(Some(half))).unwrap();
        drop(sender);
        let mut given_up = Incoming { receiver, piece: Bytes::new(), consumed: false };
        let error = io::copy(&mut given_up, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);

        assert_eq!(std::fs::read_to_string(place).unwrap(), "whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    }

    #[test]
    fn bombs_end_at_the_bounds() {
        use EntryType as T;
        let two: &[(&str, EntryType, &str, &[u8])] = &[
            ("model/", T::Directory, "", b""),
            ("model/a", T::Regular, "", b"12345"),
            ("model/b", T::Regular, "", b"12345"),
        ];
        assert_eq!(unpacked(two, Bounds { bytes: 10, entries: 2 }).1, Ok(()));
        assert!(unpacked(two, Bounds { bytes: 9, entries: 2 }).1.unwrap_err().contains("larger than 9 bytes"));
        assert!(unpacked(two, Bounds { bytes: 10, entries: 1 }).1.unwrap_err().contains("more than 1 files"));
        let deep = format!("model/{}x", "d/".repeat(44));
        let deep: &[(&str, EntryType, &str, &[u8])] = &[("m/", T::Directory, "", b""), (&deep, T::Regular, "", b"")];
        assert_eq!(unpacked(deep, WIDE).1, Ok(()));
    }
}
