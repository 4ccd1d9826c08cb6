//! What runs inside the helper: `tunesmith stream-channels <streams>`.
//!
//! Invariant: it says on its standard output that the first pipes are there, then what cannot be streamed, a line each (see
//! [`told`](crate::executor::pipe::told)); a pipe that has failed stays open until the helper is ended from outside.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};

use super::PIPES;
use crate::executor::paths::open_without_links;
use crate::executor::pipe::{self, Stream, Writers};

/// The command.
pub(super) const COMMAND: &str = "stream-channels";

/// What it says once the first pipes are there.
const READY: &str = "ready";

/// Whether a line says that the first pipes are there.
pub(in crate::executor::docker) fn is_ready(line: &[u8]) -> bool {
    line == READY.as_bytes()
}

/// The entry of `tunesmith stream-channels …`: none where the arguments ask for something else.
#[must_use]
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    let streams = arguments.next().and_then(|text| serde_json::from_str(text.to_str()?).ok());
    let Some(streams) = streams.filter(|_| arguments.next().is_none()) else {
        eprintln!("tunesmith {COMMAND} is started by the server, in a container of its own");
        return Some(ExitCode::from(2));
    };
    match prepare(streams) {
        Ok((streams, folder)) => pipe::serve(&streams, (folder.as_fd(), Writers::Alone), say),
        Err(error) => {
            eprintln!("the pipes could not be made: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn prepare(streams: Vec<Stream>) -> io::Result<(Vec<Stream>, OwnedFd)> {
    // Whichever user the training program is, it may read them.
    umask(Mode::from_bits_truncate(0o022));
    let folder = open_without_links(Path::new(PIPES))?;
    streams.iter().try_for_each(|stream| stream.prepare(folder.as_fd()))?;
    say(&format!("{READY}\n"));
    Ok((streams, folder))
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    // Without anybody who listens it is ended anyway.
    let _ = output.write_all(line.as_bytes()).and_then(|()| output.flush());
}
