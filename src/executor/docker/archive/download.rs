//! From an archive that a container left to a folder here.
//!
//! Invariant: such an archive may be hostile. Nothing is written outside the folder that it is unpacked into, whatever its
//! names and links say; only regular files, folders and relative links are; and it ends at its bounds.

use std::fs::Permissions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::query_parameters::DownloadFromContainerOptions;
use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions};
use futures_util::{Stream, StreamExt};
use nix::libc;
use tar::{EntryType, Header};
use tokio::sync::mpsc;

use super::compare::differing;
use super::{MAX_DEPTH, QUEUE, TransferError};
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::executor::docker::daemon::{self, Error};
use crate::executor::docker::unfinished;
use crate::executor::paths::open_for_reading;

/// Archives tell times in whole seconds: a file of so short an age may change once more without showing it.
const SETTLED_AFTER_MS: i64 = 2_000;

/// How much of an archive is taken.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor::docker) struct Bounds {
    pub(in crate::executor::docker) bytes: u64,
    pub(in crate::executor::docker) entries: u64,
    pub(in crate::executor::docker) known: Known,
}

/// What is not written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor::docker) enum Known {
    /// Nothing: what is there may have come from elsewhere.
    Nothing,
    /// Files whose size and time are those of what is there.
    ByTime,
    /// Of these, those that hold the same: a time is in whole seconds, of the daemon's clock.
    ByContent,
}

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor::docker) struct Source<'a> {
    pub(in crate::executor::docker) docker: &'a bollard::Docker,
    pub(in crate::executor::docker) container: &'a str,
    pub(in crate::executor::docker) path: &'a str,
    /// How long the daemon may send nothing.
    pub(in crate::executor::docker) patience: Duration,
}

/// Downloads a folder of a container into a folder here, which keeps what else it has. What stands at its path may be no
/// folder at all: then nothing is written.
pub(in crate::executor::docker) async fn download(
    source: Source<'_>,
    into: PathBuf,
    bounds: Bounds,
) -> Result<(), TransferError> {
    read(source, move |archive| {
        let folder = Dir::from_std_file(open_for_reading(&into).map_err(TransferError::Io)?);
        unfinished::remove(&folder, MAX_DEPTH).map_err(TransferError::Io)?;
        unpack(archive, &folder, bounds)
    })
    .await
}

/// The beginning of a regular file of a container; none where it is anything else.
pub(in crate::executor::docker) async fn file_head(
    source: Source<'_>,
    bytes: u64,
) -> Result<Option<Vec<u8>>, TransferError> {
    read(source, move |archive| {
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

/// How large an archive of a path is, bytes: read no further than a little past `at_most`.
pub(in crate::executor::docker) async fn size(source: Source<'_>, at_most: u64) -> Result<u64, TransferError> {
    read(source, move |archive| {
        let read = io::copy(&mut archive.take(at_most.saturating_add(1)), &mut io::sink());
        read.map_err(TransferError::Io)
    })
    .await
}

/// Reads an archive from a container off the runtime's own threads. A daemon that breaks off is what went wrong then.
async fn read<T: Send + 'static>(
    source: Source<'_>,
    work: impl FnOnce(Incoming) -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let Source { docker, container, path, patience } = source;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reading =
        tokio::task::spawn_blocking(move || work(Incoming { receiver, piece: Bytes::new(), consumed: false }));
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let stream = docker.download_from_container(container, Some(options));
    let broken = forward(stream, sender, patience).await;
    let done = reading.await.unwrap_or_else(|error| Err(TransferError::Io(io::Error::other(error))));
    match broken {
        Some(error) if daemon::status(&error) == Some(404) => Err(TransferError::Missing),
        Some(error) => Err(TransferError::Daemon(error)),
        None => done,
    }
}

/// Hands pieces over until one side has no more, and tells of the end (none): a sender that goes without a word was
/// given up. What broke on the daemon's side; silence for so long breaks it, too.
async fn forward(
    stream: impl Stream<Item = Result<Bytes, Error>>,
    sender: mpsc::Sender<io::Result<Option<Bytes>>>,
    patience: Duration,
) -> Option<Error> {
    let mut stream = std::pin::pin!(stream);
    loop {
        match tokio::time::timeout(patience, stream.next()).await.unwrap_or(Some(Err(Error::RequestTimeoutError))) {
            Some(Ok(piece)) => {
                if sender.send(Ok(Some(piece))).await.is_err() {
                    return None;
                }
            }
            Some(Err(error)) => {
                let _ = sender.send(Err(ErrorKind::BrokenPipe.into())).await;
                return Some(error);
            }
            None => {
                let _ = sender.send(Ok(None)).await;
                return None;
            }
        }
    }
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
        let changed = settled(entry.header(), begun);
        let item = Item { kind, link: link.as_deref(), mode, size, changed };
        if bounds.known != Known::Nothing && kind.is_file() && is_there(folder, &path, &item) {
            if bounds.known == Known::ByContent
                && let Some(mut data) = differing(folder, &path, &mut entry).map_err(TransferError::Io)?
            {
                // With that time it would look as it was.
                place(folder, &path, &Item { changed: None, ..item }, &mut data).map_err(TransferError::Io)?;
            }
            continue;
        }
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
    use tar::Builder;

    use crate::executor::docker::archive::{append_folder, header};

    const WIDE: Bounds = Bounds { bytes: 1 << 20, entries: 100, known: Known::ByTime };

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
        let save = |mtime: i64, data: &[u8], known| {
            let mut archive = Builder::new(Vec::new());
            append_folder(&mut archive, "model", 0o755).unwrap();
            let mut header = header(EntryType::Regular, 0o640, data.len() as u64, mtime);
            archive.append_data(&mut header, "model/checkpoint", data).unwrap();
            let into = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
            unpack(&archive.into_inner().unwrap()[..], &into, Bounds { known, ..WIDE }).unwrap();
            let meta = std::fs::metadata(&place).unwrap();
            (meta.ino(), meta.mtime(), meta.mtime_nsec())
        };
        let take = |mtime, data: &[u8]| save(mtime, data, Known::ByTime);
        let first = take(1_000_000, b"one");
        assert_eq!((first.1, first.2), (1_000_000, 0));
        assert_eq!(take(1_000_000, b"one"), first);
        let second = take(1_000_001, b"two");
        assert_eq!((std::fs::read_to_string(&place).unwrap().as_str(), second.1), ("two", 1_000_001));
        take(1_000_001, b"three");
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "three", "of another size");

        // Changed within the second of a clock that is behind.
        take(1_000_001, b"seven");
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "three");
        let last = save(1_000_001, b"seven", Known::ByContent);
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "seven");
        assert!(last.1 > 1_000_001, "whoever looks at its time sees the change");
        let settled = save(1_000_002, b"seven", Known::ByContent);
        assert_eq!(save(1_000_002, b"seven", Known::ByContent), settled, "and none where there is none");

        // From somewhere else, such as another host.
        let mut archive = Builder::new(Vec::new());
        append_folder(&mut archive, "model", 0o755).unwrap();
        archive
            .append_data(&mut header(EntryType::Regular, 0o640, 5, 1_000_001), "model/checkpoint", &b"other"[..])
            .unwrap();
        let into = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        let all = Bounds { known: Known::Nothing, ..WIDE };
        unpack(&archive.into_inner().unwrap()[..], &into, all).unwrap();
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "other");

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

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_falls_silent_is_not_waited_for() {
        let stream =
            futures_util::stream::iter([Ok(Bytes::from_static(b"half"))]).chain(futures_util::stream::pending());
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let broken = forward(stream, sender, Duration::from_mins(1)).await;
        assert!(matches!(broken, Some(Error::RequestTimeoutError)), "{broken:?}");
        assert!(receiver.recv().await.unwrap().unwrap().is_some());
        assert!(receiver.recv().await.unwrap().is_err(), "half an archive is not the whole");
    }

    #[test]
    fn bombs_end_at_the_bounds() {
        use EntryType as T;
        let two: &[(&str, EntryType, &str, &[u8])] = &[
            ("model/", T::Directory, "", b""),
            ("model/a", T::Regular, "", b"12345"),
            ("model/b", T::Regular, "", b"12345"),
        ];
        assert_eq!(unpacked(two, Bounds { bytes: 10, entries: 2, ..WIDE }).1, Ok(()));
        assert!(unpacked(two, Bounds { bytes: 9, entries: 2, ..WIDE }).1.unwrap_err().contains("larger than 9 bytes"));
        assert!(unpacked(two, Bounds { bytes: 10, entries: 1, ..WIDE }).1.unwrap_err().contains("more than 1 files"));
        let deep = format!("model/{}x", "d/".repeat(44));
        let deep: &[(&str, EntryType, &str, &[u8])] = &[("m/", T::Directory, "", b""), (&deep, T::Regular, "", b"")];
        assert_eq!(unpacked(deep, WIDE).1, Ok(()));
    }
}
