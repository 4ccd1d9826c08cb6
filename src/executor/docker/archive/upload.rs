//! From folders here to an archive that a daemon unpacks in a container.
//!
//! Invariant: one tree is one archive, whenever it is made; what is neither file, folder nor link is in none.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::body_try_stream;
use bollard::query_parameters::UploadToContainerOptions;
use bytes::{Bytes, BytesMut};
use cap_std::fs::{Dir, MetadataExt, OpenOptions, OpenOptionsExt};
use nix::libc;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{QUEUE, TransferError};
use crate::executor::docker::daemon::{self, Error};
use crate::executor::docker::unfinished;
use crate::executor::paths::open_for_reading;

/// The size of a piece.
const PIECE: usize = 128 << 10;

/// Uploads what `fill` writes into an archive, to be unpacked at `path` of a container. The daemon may take nothing for so
/// long.
pub(in crate::executor::docker) async fn upload(
    docker: &bollard::Docker,
    container: &str,
    path: &str,
    patience: Duration,
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
    let turn = Arc::new(Mutex::new(Some(Instant::now())));
    let of_daemon = Arc::clone(&turn);
    let body = futures_util::stream::poll_fn(move |context| {
        let piece = receiver.poll_recv(context);
        *turn.lock().unwrap_or_else(PoisonError::into_inner) = piece.is_ready().then(Instant::now);
        piece
    });
    let options = UploadToContainerOptions { path: path.to_owned(), ..UploadToContainerOptions::default() };
    let uploaded = tokio::select! {
        uploaded = docker.upload_to_container(container, Some(options), body_try_stream(body)) => uploaded,
        () = has_stalled(&of_daemon, patience) => return Err(TransferError::Daemon(Error::RequestTimeoutError)),
    };
    match (packing.await.unwrap_or_else(|error| Err(io::Error::other(error))), uploaded) {
        // The pipe is broken where the daemon would not have more: what it says counts.
        (Err(error), _) if error.kind() != ErrorKind::BrokenPipe => Err(TransferError::Io(error)),
        (_, Err(error)) if daemon::status(&error) == Some(404) => Err(TransferError::Missing),
        (_, Err(error)) => Err(TransferError::Daemon(error)),
        (Err(error), Ok(())) => Err(TransferError::Io(error)),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// Returns once it has been the daemon's turn to ask for more for so long: since when it is, or none while it waits for
/// what is slow to be read here.
async fn has_stalled(of_daemon: &Mutex<Option<Instant>>, patience: Duration) {
    loop {
        let since = *of_daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let due = since.unwrap_or_else(Instant::now) + patience;
        if due <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

/// The writing end of an upload.
#[derive(Debug)]
pub(in crate::executor::docker) struct Pieces {
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
pub(in crate::executor::docker) fn append_folder<W: Write>(
    archive: &mut Builder<W>,
    path: &str,
    mode: u32,
) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Directory, mode, 0, 0), format!("{path}/"), io::empty())
}

/// Puts a small file into an archive.
pub(in crate::executor::docker) fn append_file<W: Write>(
    archive: &mut Builder<W>,
    path: &str,
    text: &str,
) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64, 0), path, text.as_bytes())
}

/// Puts a folder's content, or a single file, into an archive beneath `path` (empty for its root). Links are kept as
/// they are, and what is neither file, folder nor link is left out. With `writable`, whoever runs may change it.
pub(in crate::executor::docker) fn append_tree<W: Write>(
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

pub(in crate::executor::docker) fn append_regular<W: Write>(
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

pub(in crate::executor::docker) fn header(kind: EntryType, mode: u32, size: u64, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header
}
