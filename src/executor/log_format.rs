//! The stored form of a log: stamped records, one after the other, as supervisors write them.
//!
//! Invariant: a record is a header line part `<epoch ms> <stream> ` and the line's bytes, ended by `\n`; it can be read
//! from any record's offset on without what came before. Who splits output into lines, and where the bytes are kept, is
//! left to others.

use std::io::Write;

use crate::domain::time::Timestamp;
use crate::executor::{LogRecord, Stream};

/// No header is longer: 20 characters of time, the stream, two spaces.
pub const MAX_HEADER: usize = 24;

/// Appends the stored form of a record to `out`.
pub fn write(record: &LogRecord, out: &mut Vec<u8>) {
    write_line(record.time, record.stream, &record.line, out);
}

/// Appends one line as a record to `out`. The line holds no `\n`.
pub fn write_line(time: Timestamp, stream: Stream, line: &[u8], out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{} {} ", time.0, letter(stream));
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// Reads whole records from `bytes`, which stand at `offset` of the log, and returns them with the offset after the last
/// whole one. Bytes between two `\n` that are no record (a damaged file) are passed over.
#[must_use]
pub fn read(bytes: &[u8], offset: u64) -> (Vec<LogRecord>, u64) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes[at..].iter().position(|&b| b == b'\n') {
        if let Some((time, stream, line)) = parse(&bytes[at..at + length]) {
            records.push(LogRecord { offset: offset + at as u64, time, stream, line: line.to_vec() });
        }
        at += length + 1;
    }
    (records, offset + at as u64)
}

/// The time of the record that `bytes` begin with.
#[must_use]
pub fn first_time(bytes: &[u8]) -> Option<Timestamp> {
    parse(bytes).map(|(time, ..)| time)
}

fn parse(record: &[u8]) -> Option<(Timestamp, Stream, &[u8])> {
    let space = record.iter().take(MAX_HEADER).position(|&b| b == b' ')?;
    let time = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
    let (&[letter, b' '], line) = record[space + 1..].split_first_chunk::<2>()? else { return None };
    Some((Timestamp(time), stream(letter)?, line))
}

fn letter(stream: Stream) -> char {
    match stream {
        Stream::Stdout => 'o',
        Stream::Stderr => 'e',
        Stream::Service => 's',
    }
}

fn stream(letter: u8) -> Option<Stream> {
    match letter {
        b'o' => Some(Stream::Stdout),
        b'e' => Some(Stream::Stderr),
        b's' => Some(Stream::Service),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, stream: Stream, line: &[u8]) -> LogRecord {
        LogRecord { offset, time: Timestamp(1_700_000_000_123), stream, line: line.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_back_with_its_offsets() {
        let mut out = Vec::new();
        let mut records = Vec::new();
        for (stream, line) in
            [(Stream::Stdout, &b"auc=0.5"[..]), (Stream::Stderr, b""), (Stream::Service, b" \xff\x00 x ")]
        {
            let next = record(100 + out.len() as u64, stream, line);
            write(&next, &mut out);
            records.push(next);
        }
        assert_eq!(read(&out, 100), (records.clone(), 100 + out.len() as u64));

        let second = usize::try_from(records[1].offset - 100).unwrap();
        assert_eq!(read(&out[second..], records[1].offset).0, records[1..], "readable from any record on");
        assert_eq!(read(&out[..out.len() - 1], 100).1, records[2].offset, "a record half written is left for later");
        assert_eq!(first_time(&out), Some(Timestamp(1_700_000_000_123)));
    }

    #[test]
    fn bytes_that_are_no_record_are_passed_over() {
        let (records, next) = read(b"garbage\n\n12 x y\n5 o fine\n", 0);
        assert_eq!(
            records,
            [LogRecord { offset: 16, time: Timestamp(5), stream: Stream::Stdout, line: b"fine".into() }]
        );
        assert_eq!(next, 25);
    }
}
