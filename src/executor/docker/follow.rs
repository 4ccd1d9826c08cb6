//! From the log of each of an attempt's containers, as the daemon keeps it, to the attempt's one log, and how far that
//! has come.
//!
//! Invariant: however often the supervisor ends in between, each line of each container is stored once. A record's time
//! is the daemon's, so that what is stored is a function of what the daemon keeps; how far it was taken is written
//! before what was taken is, with the length that the log will have, and the length that it has tells which of the last
//! two positions holds.
//!
//! A position is the time (to the nanosecond) of a frame, and how many frames of that time there were: a line of more
//! than 16 KiB comes in several frames of one time. It stands after the last frame that left no unfinished line, with
//! the number of bytes since then that are in records already.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};

use super::daemon::Error;
use super::stamp::Stamp;
use crate::domain::time::Timestamp;
use crate::executor::Stream;
use crate::executor::folder::Folder;
use crate::executor::folder::log_writer::{LogWriter, Splitter, Tail};

/// What is taken before it is written.
const BATCH: usize = 256 << 10;

/// How many frames are taken before they are written.
const FRAMES: usize = 10_000;

/// A position's room in its file, for each container.
const SLOT: usize = 1024;

/// Lines of the two streams may stand a little out of the order of their times.
const DISORDER_SECONDS: i64 = 2;

/// A frame's place in its stream: its time, and which of that time it is, from 1.
type Place = (Stamp, u32);

/// How far one stream of one container was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reached {
    /// The last frame that left no unfinished line.
    place: Place,
    /// Bytes of the frames after it that are in records.
    recorded: u64,
}

/// One of the two positions in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The length of the log where this holds.
    total: u64,
    /// Nothing more is taken.
    closed: bool,
    /// Of the first container.
    stdout: Reached,
    stderr: Reached,
    /// Of each of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<(Reached, Reached)>,
}

/// How one stream is being taken.
#[derive(Debug, Default)]
struct Taking {
    /// Frames up to here are done with.
    done: Place,
    /// The frame last seen, done with or not.
    seen: Place,
    /// No frame was seen that is not done with.
    catching_up: bool,
    /// Bytes that are in records already.
    skip: u64,
    safe: Place,
    /// Bytes after `safe`, skipped ones too.
    since_safe: u64,
    splitter: Splitter,
}

impl Taking {
    fn after(reached: Reached) -> Self {
        Self { done: reached.place, catching_up: true, skip: reached.recorded, safe: reached.place, ..Self::default() }
    }

    fn reached(&self) -> Reached {
        let recorded = (self.since_safe + self.skip).saturating_sub(self.splitter.pending().0 as u64);
        Reached { place: self.safe, recorded }
    }
}

/// How the log of one container is being taken.
#[derive(Debug, Default)]
struct Host {
    stdout: Taking,
    stderr: Taking,
    /// Of stderr, whether the log takes it or not.
    tail: Tail,
}

/// One attempt's log on its way.
#[derive(Debug)]
pub(super) struct Follower {
    log: LogWriter,
    positions: File,
    /// Which of the two comes next.
    next: u64,
    hosts: Vec<Host>,
    /// Frames that were not taken before.
    taken: u64,
    /// When the containers were started.
    begun_at: Timestamp,
}

/// What comes after frames that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// More of them.
    More,
    /// Others, which are to be asked for: the log is full, and it is stderr alone that still counts.
    Others,
    /// Nothing: they were all.
    Nothing,
    /// What the daemon kept to itself when it broke off.
    TheRest,
}

/// Frames as they come.
pub(super) type Frames = BoxStream<'static, Result<LogOutput, Error>>;

impl Follower {
    /// Goes on where an earlier supervisor ended, with the logs of so many containers.
    pub(super) fn open(folder: &Folder, hosts: usize, segment_bytes: u64, max_log_bytes: u64) -> io::Result<Self> {
        let path = folder.path().join("positions");
        let positions = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (position, slot) = newest(&positions, hosts, length(folder)?);
        let last = cut(folder, position.total)?;
        let max_log_bytes = if position.closed { position.total } else { max_log_bytes };
        let mut log = LogWriter::new(folder.clone(), segment_bytes, max_log_bytes).resume(last, position.total)?;
        if position.closed {
            log.close();
        }
        let reached = std::iter::once((position.stdout, position.stderr)).chain(position.others);
        let host = |(stdout, stderr)| Host {
            stdout: Taking::after(stdout),
            stderr: Taking::after(stderr),
            tail: Tail::default(),
        };
        let mut hosts_taken: Vec<Host> = reached.take(hosts).map(host).collect();
        // None of the others was taken from before the first position was written.
        hosts_taken.resize_with(hosts, || host((Reached::default(), Reached::default())));
        let begun_at = folder.started_at()?.unwrap_or(Timestamp(0));
        Ok(Self { log, positions, next: 1 - slot, hosts: hosts_taken, taken: 0, begun_at })
    }

    /// To be told where that was not known when this was opened.
    pub(super) fn begin(&mut self, at: Timestamp) {
        self.begun_at = at;
    }

    /// The last whole lines of a container's stderr since this was opened.
    pub(super) fn stderr_tail(&self, host: usize) -> String {
        self.hosts[host].tail.text()
    }

    /// Asks for all frames of a container that are not done with, and waits for more where `follow`. Of a log that is
    /// full, for those of stderr alone: their end is told.
    pub(super) fn frames(&mut self, host: usize, docker: &bollard::Docker, container: &str, follow: bool) -> Frames {
        let Host { stdout, stderr, .. } = &mut self.hosts[host];
        for taking in [&mut *stdout, &mut *stderr] {
            (taking.seen, taking.catching_up) = (Place::default(), true);
        }
        let since = stdout.done.0.max(stderr.done.0).seconds() - DISORDER_SECONDS;
        let options = LogsOptions {
            follow,
            stdout: !self.log.is_closed(),
            stderr: true,
            timestamps: true,
            since: i32::try_from(since.max(0)).unwrap_or(0),
            tail: "all".to_owned(),
            ..LogsOptions::default()
        };
        docker.logs(container, Some(options)).boxed()
    }

    /// Takes a frame and those that are there already, and writes them.
    pub(super) fn take(
        &mut self,
        host: usize,
        frame: LogOutput,
        frames: &mut Frames,
        now: Timestamp,
    ) -> io::Result<Next> {
        let was_closed = self.log.is_closed();
        self.add(host, frame);
        let (mut next, mut taken) = (Next::More, 0);
        // A flood must not keep the clock from being looked at.
        while self.log.lengths().1 < BATCH && taken < FRAMES {
            match frames.next().now_or_never() {
                None => break,
                Some(Some(Ok(frame))) => {
                    self.add(host, frame);
                    taken += 1;
                }
                Some(end) => {
                    next = if end.is_none() { Next::Nothing } else { Next::TheRest };
                    break;
                }
            }
        }
        self.write(now)?;
        let has_closed = self.log.is_closed() != was_closed;
        Ok(if next == Next::More && has_closed { Next::Others } else { next })
    }

    /// How many frames were taken since this was opened, whether the log had room for them or not.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Adds a remark of the service's own.
    pub(super) fn remark(&mut self, text: &str, now: Timestamp) -> io::Result<()> {
        self.log.add_remark(text, now);
        self.write(now)
    }

    /// Writes what is left of lines without an end.
    pub(super) fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        let Self { log, hosts, .. } = self;
        for Host { stdout, stderr, .. } in hosts {
            stdout.splitter.end(|line| log.add_line(Stream::Stdout, line, now));
            stderr.splitter.end(|line| log.add_line(Stream::Stderr, line, now));
        }
        self.write(now)
    }

    fn add(&mut self, host: usize, frame: LogOutput) {
        let Self { log, hosts, begun_at, taken, .. } = self;
        let Host { stdout, stderr, tail } = &mut hosts[host];
        let (stream, message) = match frame {
            LogOutput::StdErr { message } => (Stream::Stderr, message),
            // A container with a terminal has one stream.
            LogOutput::StdOut { message } | LogOutput::Console { message } => (Stream::Stdout, message),
            LogOutput::StdIn { .. } => return,
        };
        let taking = if stream == Stream::Stderr { stderr } else { stdout };
        let (stamp, mut bytes) = stamped(&message).unwrap_or((taking.seen.0, &message));
        taking.seen = if stamp == taking.seen.0 { (stamp, taking.seen.1 + 1) } else { (stamp, 1) };
        // Only among what is sent again: later the daemon's clock may be set back.
        if taking.catching_up && taking.seen <= taking.done {
            return;
        }
        taking.catching_up = false;
        *taken += 1;
        taking.done = taking.seen;
        taking.since_safe += bytes.len() as u64;
        if stream == Stream::Stderr {
            tail.take(bytes);
        }
        let skipped = usize::try_from(taking.skip).unwrap_or(usize::MAX).min(bytes.len());
        if skipped > 0 {
            taking.skip -= skipped as u64;
            if bytes[skipped - 1] == b'\r' {
                taking.splitter.after_return();
            }
            bytes = &bytes[skipped..];
        }
        if !log.is_closed() {
            let time = told(stamp, *begun_at);
            taking.splitter.split(bytes, |line| log.add_line(stream, line, time));
        }
        if taking.splitter.pending() == (0, false) && taking.skip == 0 {
            (taking.safe, taking.since_safe) = (taking.done, 0);
        }
    }

    fn write(&mut self, now: Timestamp) -> io::Result<()> {
        let (total, waiting) = self.log.lengths();
        if waiting == 0 {
            return Ok(());
        }
        let mut reached = self.hosts.iter().map(|host| (host.stdout.reached(), host.stderr.reached()));
        let (stdout, stderr) = reached.next().unwrap_or_default();
        let mut position = Position { total, closed: false, stdout, stderr, others: reached.collect() };
        self.put(&position)?;
        self.log.flush(now);
        if self.log.is_closed() {
            (position.total, position.closed) = (self.log.lengths().0, true);
            self.put(&position)?;
        }
        Ok(())
    }

    fn put(&mut self, position: &Position) -> io::Result<()> {
        let mut text = serde_json::to_vec(position)?;
        let slot = SLOT * self.hosts.len();
        text.resize(slot - 1, b' ');
        text.push(b'\n');
        self.positions.write_all_at(&text, self.next * slot as u64)?;
        self.next = 1 - self.next;
        Ok(())
    }
}

/// When a line was written. Podman tells whole seconds: within the one in which it began, nothing was before.
fn told(stamp: Stamp, begun_at: Timestamp) -> Timestamp {
    let time = stamp.timestamp();
    if time.0.div_euclid(1000) == begun_at.0.div_euclid(1000) { time.max(begun_at) } else { time }
}

/// The time before a frame's text, and the text.
fn stamped(message: &[u8]) -> Option<(Stamp, &[u8])> {
    let space = message.iter().take(40).position(|&b| b == b' ')?;
    let stamp = Stamp::parse(std::str::from_utf8(&message[..space]).ok()?)?;
    Some((stamp, &message[space + 1..]))
}

/// The position that holds for a log of a length, and where in the file it stands. Of two that fit none, the longer.
fn newest(positions: &File, hosts: usize, length: u64) -> (Position, u64) {
    let mut found = (Position::default(), 1);
    let mut text = vec![0; SLOT * hosts];
    for slot in [0, 1] {
        let Ok(()) = positions.read_exact_at(&mut text, slot * (SLOT * hosts) as u64) else { continue };
        let Ok(position) = serde_json::from_slice::<Position>(&text) else { continue };
        if position.total <= length && position.total >= found.0.total {
            found = (position, slot);
        }
    }
    found
}

/// The length of all segments.
fn length(folder: &Folder) -> io::Result<u64> {
    Ok(folder.log_files()?.last().map_or(0, |file| file.first_offset + file.bytes))
}

/// Cuts off what an end in the middle of writing left past `total`; where the last segment begins.
fn cut(folder: &Folder, total: u64) -> io::Result<u64> {
    let mut last = 0;
    for file in folder.log_files()? {
        if file.first_offset >= total {
            std::fs::remove_file(&file.path)?;
            continue;
        }
        last = file.first_offset;
        if file.first_offset + file.bytes > total {
            shorten(&file.path, total - file.first_offset)?;
        }
    }
    Ok(last)
}

fn shorten(path: &Path, length: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(stderr: bool, second: u32, text: &str) -> LogOutput {
        let message = Bytes::from(format!("2026-11-21T09:00:{second:02}.000000001Z {text}"));
        if stderr { LogOutput::StdErr { message } } else { LogOutput::StdOut { message } }
    }

    /// What the daemon keeps: lines, pieces of a long line (of one time), progress bars, both streams.
    fn kept() -> Vec<LogOutput> {
        let mut frames = vec![frame(false, 1, "one\n"), frame(true, 1, "warned\n"), frame(false, 2, "a\rb\rc")];
        frames.extend([frame(false, 2, "d\r"), frame(false, 2, "\n"), frame(true, 2, "half ")]);
        frames.extend([frame(false, 3, "two\n"), frame(true, 2, "whole\n"), frame(false, 4, "x\r\ny\n")]);
        frames.extend([frame(false, 4, "same time\n"), frame(false, 5, "no end")]);
        frames
    }

    fn text(folder: &Folder) -> Vec<(Stream, String)> {
        let chunk = folder.read_log(0, 1 << 20).unwrap();
        chunk.records.iter().map(|r| (r.stream, String::from_utf8(r.line.clone()).unwrap())).collect()
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        (dir, folder)
    }

    /// Takes the frames from the beginning, as a new supervisor is sent them, up to a number of new ones.
    fn run(folder: &Folder, batch: usize, upto: usize, finish: bool) {
        let mut follower = Follower::open(folder, 1, 40, 1 << 20).unwrap();
        let frames = kept();
        for (at, frame) in frames.into_iter().enumerate().take(upto) {
            follower.add(0, frame);
            if at % batch == 0 {
                follower.write(Timestamp(0)).unwrap();
            }
        }
        follower.write(Timestamp(0)).unwrap();
        if finish {
            follower.finish(Timestamp(7)).unwrap();
        }
    }

    #[test]
    fn each_line_is_stored_once_wherever_supervisors_end() {
        let (_dir, whole) = folder();
        run(&whole, 1, usize::MAX, true);
        let expected = text(&whole);
        let of = |wanted| expected.iter().filter(|(s, _)| *s == wanted).map(|(_, l)| l.as_str()).collect::<Vec<_>>();
        assert_eq!(of(Stream::Stdout), ["one", "a", "b", "cd", "two", "x", "y", "same time", "no end"]);
        assert_eq!(of(Stream::Stderr), ["warned", "half whole"]);
        for batch in [1, 2, 5] {
            for first in 0..=kept().len() {
                for second in first..=kept().len() {
                    let (_dir, folder) = folder();
                    run(&folder, batch, first, false);
                    run(&folder, batch, second, false);
                    run(&folder, batch, usize::MAX, true);
                    run(&folder, batch, usize::MAX, true);
                    assert_eq!(text(&folder), expected, "ended after {first} and {second} frames");
                }
            }
        }
    }

    #[test]
    fn a_batch_written_in_part_is_written_again_the_same() {
        let (_dir, whole) = folder();
        run(&whole, 3, usize::MAX, true);
        let expected = text(&whole);
        let total = length(&whole).unwrap();
        for cut_at in 0..total {
            let (_dir, folder) = folder();
            run(&folder, 100, usize::MAX, false);
            let length = length(&folder).unwrap();
            if cut_at >= length {
                break;
            }
            // As if the one batch had come this far.
            cut(&folder, cut_at).unwrap();
            run(&folder, 100, usize::MAX, true);
            assert_eq!(text(&folder), expected, "cut at {cut_at}");
        }
    }

    #[test]
    fn a_time_in_whole_seconds_is_not_before_the_start() {
        let at = |text: &str| Stamp::parse(text).unwrap();
        let begun_at = at("2026-11-21T09:00:01.500Z").timestamp();
        assert_eq!(told(at("2026-11-21T09:00:01Z"), begun_at), begun_at);
        for other in ["2026-11-21T09:00:01.700Z", "2026-11-21T09:00:02Z", "2026-11-21T08:59:00Z"] {
            assert_eq!(told(at(other), begun_at), at(other).timestamp(), "{other}");
        }
    }

    #[test]
    fn a_full_log_stays_closed() {
        let (_dir, folder) = folder();
        let mut follower = Follower::open(&folder, 1, 1000, 60).unwrap();
        for frame in kept() {
            follower.add(0, frame);
            follower.write(Timestamp(0)).unwrap();
        }
        assert!(follower.log.is_closed());
        let expected = text(&folder);
        assert!(expected.last().unwrap().1.starts_with("log truncated"), "{expected:?}");
        let again = Follower::open(&folder, 1, 1000, 60).unwrap();
        assert!(again.log.is_closed());
        assert_eq!(text(&folder), expected);
    }

    #[test]
    fn each_line_of_each_container_is_stored_once() {
        let of = |host: usize, at: usize| frame(false, 1, &format!("{host} {at}\n"));
        for ended_after in 0..30 {
            let (_dir, folder) = folder();
            for (upto, finish) in [(ended_after, false), (30, true)] {
                let mut follower = Follower::open(&folder, 3, 40, 1 << 20).unwrap();
                for at in 0..upto {
                    // Each is behind the others in turn, and a line of one comes between the halves of another's.
                    for host in (0..3).filter(|host| at % 3 != *host) {
                        follower.add(host, frame(true, 2, "half "));
                        follower.add(host, of(host, at));
                        follower.write(Timestamp(0)).unwrap();
                        follower.add(host, frame(true, 2, "whole\n"));
                    }
                }
                follower.write(Timestamp(0)).unwrap();
                if finish {
                    follower.finish(Timestamp(7)).unwrap();
                }
            }
            let mut lines: Vec<_> = text(&folder).into_iter().map(|(_, line)| line).collect();
            lines.retain(|line| line != "half whole");
            let expected = |host| (0..30).filter(move |at| at % 3 != host).map(move |at| format!("{host} {at}"));
            for host in 0..3 {
                let own = lines.iter().filter(|line| line.starts_with(&format!("{host} ")));
                assert!(own.eq(expected(host).collect::<Vec<_>>().iter()), "{host}: {lines:?}");
            }
            assert_eq!(lines.len(), 60);
        }
    }
}
