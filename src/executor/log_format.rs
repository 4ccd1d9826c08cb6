//! The stored form of a log: stamped records, one after the other, as supervisors write them.
//!
//! Invariant: a record is a header line part `<epoch ms> <stream> ` and the line's bytes, ended by `\n`; it can be read
//! from any record's offset on without what came before.

use crate::executor::LogRecord;

/// Appends the stored form of a record to `out`.
pub fn write(record: &LogRecord, out: &mut Vec<u8>) {
    let _ = (record, out);
    todo!()
}

/// Reads whole records from `bytes`, which stand at `offset` of the log, and returns them with the offset after the last
/// whole one.
#[must_use]
pub fn read(bytes: &[u8], offset: u64) -> (Vec<LogRecord>, u64) {
    let _ = (bytes, offset);
    todo!()
}
