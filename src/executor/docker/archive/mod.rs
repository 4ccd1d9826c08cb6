//! Folders to and from containers, as archives through the daemon's API.
//!
//! Invariant: neither way waits for ever: a daemon that moves no byte for as long as it may be out of reach has failed.

mod compare;
mod download;
mod upload;

use std::io;

pub(super) use self::download::{Bounds, Known, Source, download, file_head, size};
pub(super) use self::upload::{Pieces, append_file, append_folder, append_regular, append_tree, header, upload};
use super::daemon::Error;

/// Pieces of an archive that wait on their way.
const QUEUE: usize = 8;

/// Folders within folders of an archive from a container.
pub(super) const MAX_DEPTH: usize = 64;

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
