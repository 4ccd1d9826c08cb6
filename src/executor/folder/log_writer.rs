//! From the bytes of two streams to stamped records in capped segments.
//!
//! Invariant: taking bytes never fails and never waits for a reader: past the cap, or once the disk refuses, output is
//! read and dropped behind one mark. Memory is bounded: one line piece a stream and one batch. Where the bytes come from,
//! and what is needed to go on after an end in the middle, is left to others.

use std::fs::File;
use std::io::{self, Write};

use super::Folder;
use crate::domain::time::Timestamp;
use crate::executor::{Stream, log_format};

/// A longer line comes in pieces.
const MAX_LINE: usize = 1 << 20;
/// How much of stderr is kept aside for the exit record.
const TAIL: usize = 2048;

/// The log of one attempt.
#[derive(Debug)]
pub(in crate::executor) struct LogWriter {
    folder: Folder,
    segment: Option<File>,
    segment_bytes: u64,
    max_segment: u64,
    total: u64,
    cap: u64,
    closed: bool,
    batch: Vec<u8>,
    stdout: Splitter,
    stderr: Splitter,
    tail: Tail,
}

impl LogWriter {
    /// Nothing is created before the first record.
    pub(in crate::executor) fn new(folder: Folder, max_segment: u64, cap: u64) -> Self {
        Self {
            folder,
            segment: None,
            segment_bytes: 0,
            max_segment,
            total: 0,
            cap,
            closed: false,
            batch: Vec::new(),
            stdout: Splitter::default(),
            stderr: Splitter::default(),
            tail: Tail::default(),
        }
    }

    /// A log that goes on where its segments end, of which the last begins at `last` and all of them hold `total`.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn resume(mut self, last: u64, total: u64) -> io::Result<Self> {
        if total > 0 {
            self.segment = Some(File::options().append(true).open(self.folder.log(last))?);
            self.segment_bytes = total - last;
            self.total = total;
        }
        Ok(self)
    }

    /// Takes bytes of a stream as they were read.
    pub(in crate::executor) fn take(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        if stream == Stream::Stderr {
            self.tail.take(bytes);
        }
        if !self.closed {
            let splitter = if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
            let batch = &mut self.batch;
            splitter.split(bytes, |line| log_format::write_line(now, stream, line, batch));
        }
        self.flush(now);
    }

    /// Adds a line that was split off elsewhere, to be written with what comes after it.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn add_line(&mut self, stream: Stream, line: &[u8], time: Timestamp) {
        if !self.closed {
            log_format::write_line(time, stream, line, &mut self.batch);
        }
    }

    /// How long the log will be with what waits to be written, and how much that is.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn lengths(&self) -> (u64, usize) {
        (self.total + self.batch.len() as u64, self.batch.len())
    }

    /// Whether output is only dropped any more.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Adds a remark of the service's own.
    pub(in crate::executor) fn remark(&mut self, text: &str, now: Timestamp) {
        self.add_remark(text, now);
        self.flush(now);
    }

    /// As `remark`, to be written with what comes after it.
    pub(in crate::executor) fn add_remark(&mut self, text: &str, now: Timestamp) {
        if !self.closed {
            log_format::write_line(now, Stream::Service, text.as_bytes(), &mut self.batch);
        }
    }

    /// Writes what is left of lines without an end.
    pub(in crate::executor) fn finish(&mut self, now: Timestamp) {
        if !self.closed {
            let batch = &mut self.batch;
            for (stream, splitter) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
                splitter.end(|line| log_format::write_line(now, stream, line, batch));
            }
        }
        self.flush(now);
    }

    /// Takes nothing more.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn close(&mut self) {
        self.closed = true;
    }

    /// The last whole lines of stderr, at most 2 KiB.
    pub(in crate::executor) fn stderr_tail(&self) -> String {
        self.tail.text()
    }

    /// Writes what was added.
    pub(in crate::executor) fn flush(&mut self, now: Timestamp) {
        if self.batch.is_empty() {
            return;
        }
        let over = self.total + self.batch.len() as u64 > self.cap;
        if over {
            self.batch.truncate(whole_records(&self.batch, self.cap.saturating_sub(self.total)));
            let mark = format!("log truncated: output past {} bytes is not kept", self.cap);
            log_format::write_line(now, Stream::Service, mark.as_bytes(), &mut self.batch);
        }
        // A full disk must not hold the program up; the log ends here then.
        self.closed = self.append().is_err() || over;
        self.batch.clear();
    }

    fn append(&mut self) -> io::Result<()> {
        if self.segment.is_none() || self.segment_bytes >= self.max_segment {
            self.segment = Some(File::create(self.folder.log(self.total))?);
            self.segment_bytes = 0;
        }
        if let Some(segment) = &mut self.segment {
            segment.write_all(&self.batch)?;
        }
        self.segment_bytes += self.batch.len() as u64;
        self.total += self.batch.len() as u64;
        Ok(())
    }
}

/// The length of the whole records within the first `limit` bytes.
fn whole_records(batch: &[u8], limit: u64) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(batch.len());
    batch[..limit].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1)
}

/// The end of a stream.
#[derive(Debug, Default)]
pub(in crate::executor) struct Tail(Vec<u8>);

impl Tail {
    pub(in crate::executor) fn take(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(2 * TAIL)..]);
        if self.0.len() > 4 * TAIL {
            self.0.drain(..self.0.len() - 2 * TAIL);
        }
    }

    /// Its last whole lines, at most 2 KiB.
    pub(in crate::executor) fn text(&self) -> String {
        let mut tail = self.0.as_slice();
        if tail.len() > TAIL {
            tail = &tail[tail.len() - TAIL..];
            if let Some(end) = tail.iter().position(|&b| b == b'\n').filter(|&end| end + 1 < tail.len()) {
                tail = &tail[end + 1..];
            }
        }
        let text = String::from_utf8_lossy(tail);
        let text = text.trim_end();
        // A replacement character is longer than the byte that it stands for.
        let mut from = text.len().saturating_sub(TAIL);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text[from..].to_owned()
    }
}

/// Cuts a byte stream at `\n`, `\r` and `\r\n`.
#[derive(Debug, Default)]
pub(in crate::executor) struct Splitter {
    partial: Vec<u8>,
    after_return: bool,
}

impl Splitter {
    /// Bytes that are in no line yet, and whether the last one taken may be half a line end.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn pending(&self) -> (usize, bool) {
        (self.partial.len(), self.after_return)
    }

    /// Says that a `\r` was the last byte before those that come.
    #[cfg(feature = "docker")]
    pub(in crate::executor) fn after_return(&mut self) {
        self.after_return = true;
    }

    /// What is left of a line without an end.
    pub(in crate::executor) fn end(&mut self, line: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial.clear();
        }
    }

    /// Takes bytes, and gives the lines that they complete.
    pub(in crate::executor) fn split(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        if self.after_return && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        if bytes.is_empty() {
            return;
        }
        self.after_return = bytes.last() == Some(&b'\r');
        while let Some(end) = bytes.iter().position(|&b| b == b'\n' || b == b'\r') {
            self.emit(&bytes[..end], bytes[end] == b'\n', &mut line);
            let ended_by_both = bytes[end..].starts_with(b"\r\n");
            bytes = &bytes[end + 1 + usize::from(ended_by_both)..];
        }
        self.partial.extend_from_slice(bytes);
        while self.partial.len() >= MAX_LINE {
            line(&self.partial[..MAX_LINE]);
            self.partial.drain(..MAX_LINE);
        }
    }

    /// A progress bar's lone `\r` before its text is no empty line; `\n` after nothing is one.
    fn emit(&mut self, end: &[u8], by_newline: bool, line: &mut impl FnMut(&[u8])) {
        if self.partial.is_empty() {
            if by_newline || !end.is_empty() {
                end.chunks(MAX_LINE).for_each(&mut *line);
                if end.is_empty() {
                    line(b"");
                }
            }
            return;
        }
        self.partial.extend_from_slice(end);
        self.partial.chunks(MAX_LINE).for_each(line);
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(reads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for read in reads {
            splitter.split(read, |line| lines.push(line.to_vec()));
        }
        lines
    }

    #[test]
    fn a_line_ends_at_either_return_or_both_however_reads_fall() {
        let expected: Vec<Vec<u8>> = [&b"a"[..], b"b", b"", b"c"].map(Vec::from).into();
        let text = b"a\r\nb\n\n\rc\r\r\n";
        assert_eq!(lines(&[text]), expected);
        for cut in 0..text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
        assert_eq!(lines(&text.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_long_line_comes_in_pieces_of_1_mib() {
        let text = vec![b'x'; MAX_LINE + 10];
        for reads in [vec![&text[..], b"\n"], text.chunks(65536).chain([&b"\n"[..]]).collect()] {
            let sizes: Vec<usize> = lines(&reads).iter().map(Vec::len).collect();
            assert_eq!(sizes, [MAX_LINE, 10]);
        }
    }

    #[test]
    fn the_tail_is_whole_lines_of_valid_text() {
        let mut log = LogWriter::new(Folder::new("/nonexistent".into()), 1, 0);
        for i in 0..1000 {
            log.take(Stream::Stderr, format!("line {i} \u{fc}\n").as_bytes(), Timestamp(0));
        }
        let tail = log.stderr_tail();
        assert!(tail.len() <= TAIL && tail.starts_with("line ") && tail.ends_with("line 999 \u{fc}"), "{tail}");
        log.take(Stream::Stderr, &[0xff; 5000], Timestamp(0));
        assert!(log.stderr_tail().len() <= TAIL && log.stderr_tail().starts_with('\u{fffd}'));
    }
}
