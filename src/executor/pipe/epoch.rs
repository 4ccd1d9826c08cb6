//! One epoch's bytes: objects and texts one after another, unpacked and framed as the channel says.
//!
//! Invariant: nothing is held in memory but a buffer. A record's length stands before its data, so that what is packed is
//! unpacked twice to be framed.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::source::{Part, Source};
use super::{Stream, StreamError, record_io};

const BUFFER_BYTES: usize = 64 << 10;

/// Writes the items of an epoch.
pub(super) fn write(stream: &Stream, source: &mut Source, order: &[usize], pipe: &File) -> Result<(), StreamError> {
    let mut writer = Writer { stream, out: BufWriter::with_capacity(BUFFER_BYTES, pipe) };
    for number in order {
        for part in source.item(*number).map_err(|error| writer.machine(error))? {
            match part {
                Part::Text(text) => writer.text(&text)?,
                Part::File(path) => {
                    let opened = source.file(&path).map_err(|error| {
                        let why = format!("the object {} cannot be read: {error}", path.display());
                        writer.machine(io::Error::new(error.kind(), why))
                    })?;
                    writer.object(&path, opened)?;
                }
            }
        }
    }
    let flushed = writer.out.flush();
    flushed.map_err(|error| writer.machine(error))
}

struct Writer<'a> {
    stream: &'a Stream,
    out: BufWriter<&'a File>,
}

impl Writer<'_> {
    fn machine(&self, source: io::Error) -> StreamError {
        StreamError::Machine { channel: self.stream.name.clone(), source }
    }

    fn refused(&self, why: String) -> StreamError {
        StreamError::Data { channel: self.stream.name.clone(), why }
    }

    fn text(&mut self, text: &str) -> Result<(), StreamError> {
        self.framed("an attribute", text.len() as u64, |writer| {
            writer.out.write_all(text.as_bytes()).map_err(|error| writer.machine(error))
        })
    }

    fn object(&mut self, path: &Path, (mut file, bytes): (File, u64)) -> Result<(), StreamError> {
        let what = format!("the object {}", path.display());
        // What consoles put for a folder is empty, and packed by nobody.
        if !self.stream.spec.gzip || bytes == 0 {
            return self.framed(&what, bytes, |writer| {
                let copied = io::copy(&mut file.take(bytes), &mut writer.out).map_err(|error| writer.machine(error))?;
                if copied == bytes {
                    return Ok(());
                }
                Err(writer.refused(format!("{what} has become shorter since the training job began")))
            });
        }
        let mut unpacked = 0;
        if self.stream.spec.record_io {
            // No more than a record may have, and one byte: what is packed may be far larger than it looks.
            let mut counted = MultiGzDecoder::new(&file).take(record_io::MAX_BYTES + 1);
            unpacked = io::copy(&mut counted, &mut io::sink()).map_err(|error| self.not_packed(&what, &error))?;
            file.rewind().map_err(|error| self.machine(error))?;
        }
        self.framed(&what, unpacked, |writer| {
            let length = writer.unpack(&what, &file)?;
            if writer.stream.spec.record_io && length != unpacked {
                return Err(writer.refused(format!("{what} has changed while it was streamed")));
            }
            Ok(())
        })
    }

    fn unpack(&mut self, what: &str, file: &File) -> Result<u64, StreamError> {
        let mut unpacking = MultiGzDecoder::new(file);
        let (mut buffer, mut written) = (vec![0; BUFFER_BYTES], 0);
        loop {
            match unpacking.read(&mut buffer).map_err(|error| self.not_packed(what, &error))? {
                0 => return Ok(written),
                length => {
                    self.out.write_all(&buffer[..length]).map_err(|error| self.machine(error))?;
                    written += length as u64;
                }
            }
        }
    }

    fn not_packed(&self, what: &str, error: &io::Error) -> StreamError {
        self.refused(format!("{what} is no gzip data, or not all of it: {error}. CompressionType is Gzip"))
    }

    /// Writes data with the frame around it, where there is to be one.
    fn framed(
        &mut self,
        what: &str,
        bytes: u64,
        data: impl FnOnce(&mut Self) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        if !self.stream.spec.record_io {
            return data(self);
        }
        let header = record_io::header(bytes).ok_or_else(|| {
            let most = record_io::MAX_BYTES;
            self.refused(format!("{what} is larger than the {most} bytes that a RecordIO record can have"))
        })?;
        self.out.write_all(&header).map_err(|error| self.machine(error))?;
        data(self)?;
        self.out.write_all(record_io::padding(bytes)).map_err(|error| self.machine(error))
    }
}
