//! How much of a folder is taken: its depth, its entries, its bytes, and how long its owner wants it.
//!
//! Invariant: every walk through a folder that a training program wrote, and every read of its files, goes through one of
//! these, so that neither a hostile folder nor a merely huge one holds a server for ever.

use std::cell::Cell;
use std::io::{self, Read};

use tokio_util::sync::CancellationToken;

/// Folders within folders. Trees of real programs are a handful deep; each level costs stack and a descriptor.
pub(super) const MAX_DEPTH: usize = 64;

/// How much of one folder is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    /// Files, folders and links.
    pub(super) entries: u64,
}

impl Limits {
    /// Of input: as many bytes as there are, and a walk that ends.
    pub(super) const INPUT: Self = Self { bytes: u64::MAX, entries: 1_000_000 };
}

/// What is left of a walk's limits.
#[derive(Debug)]
pub(super) struct Bounds {
    limits: Limits,
    bytes: Cell<u64>,
    entries: Cell<u64>,
    cancelled: CancellationToken,
}

/// Why a folder is not taken. Travels within an [`io::Error`] and comes out as an error of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its folders are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("it holds more than {0} files")]
    TooMany(u64),
    #[error("its files are larger than {0} bytes")]
    TooLarge(u64),
    /// Bytes that are wanted, and bytes that are to stay free.
    #[error("the disk has no more free than the {1} bytes that are to stay so")]
    NoRoom(u64, u64),
    #[error("it is not wanted any more")]
    Cancelled,
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::other(refusal)
    }
}

impl Bounds {
    pub(super) fn new(limits: Limits, cancelled: CancellationToken) -> Self {
        Self { limits, bytes: Cell::new(0), entries: Cell::new(0), cancelled }
    }

    /// The same limits, nothing used up: for going through a folder again.
    pub(super) fn again(&self) -> Self {
        Self::new(self.limits, self.cancelled.clone())
    }

    /// To be called for each entry; `depth` is the number of folders above it.
    pub(super) fn entry(&self, depth: usize) -> io::Result<()> {
        self.entries.set(self.entries.get() + 1);
        if depth >= MAX_DEPTH {
            return Err(Refusal::TooDeep.into());
        }
        if self.entries.get() > self.limits.entries {
            return Err(Refusal::TooMany(self.limits.entries).into());
        }
        self.bytes(0)
    }

    /// Counts bytes, holes of sparse files among them: reading those takes as long.
    pub(super) fn bytes(&self, more: u64) -> io::Result<()> {
        self.bytes.set(self.bytes.get().saturating_add(more));
        if self.cancelled.is_cancelled() {
            return Err(Refusal::Cancelled.into());
        }
        if self.bytes.get() > self.limits.bytes {
            return Err(Refusal::TooLarge(self.limits.bytes).into());
        }
        Ok(())
    }

    /// Counts what is read.
    pub(super) fn reading<R: Read>(&self, file: R) -> Reading<'_, R> {
        Reading { bounds: self, file }
    }
}

/// A file whose bytes count.
#[derive(Debug)]
pub(super) struct Reading<'a, R> {
    bounds: &'a Bounds,
    file: R,
}

impl<R: Read> Read for Reading<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.bounds.bytes(length as u64)?;
        Ok(length)
    }
}
