//! Paths that a training job may have had its hands on.
//!
//! Invariant: what is opened is what stands under the name, never what a link there leads to.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

/// Opens a path, as a place, on which no link stands: what was checked under this name before is what is opened now, or
/// nothing is, whatever another job has put there since.
pub(super) fn open_without_links(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut parts = path.components().peekable();
    if parts.next() != Some(Component::RootDir) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the path is not absolute"));
    }
    let mut here = open("/", flags | OFlag::O_DIRECTORY, Mode::empty())?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the path holds `..`"));
        };
        // On the way a link is no folder; at the end it would be opened itself.
        let kind = if parts.peek().is_some() { OFlag::O_DIRECTORY } else { OFlag::empty() };
        here = openat(&here, name, flags | kind, Mode::empty())?;
    }
    if fstat(&here)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits() {
        return Err(nix::Error::ELOOP.into());
    }
    Ok(here)
}

/// The same, to be read.
#[cfg(feature = "docker")]
pub(super) fn open_for_reading(path: &Path) -> io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;

    let place = open_without_links(path)?;
    std::fs::File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}
