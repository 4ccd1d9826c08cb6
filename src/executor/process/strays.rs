//! Ending what is left of an attempt.
//!
//! Invariant: only what is known to be the attempt's is signalled: a process is held by a descriptor before it is looked
//! at, so that a reused id is never hit. With a process namespace the kernel has done this already; here is the second
//! line, and the only one where the kernel forbids namespaces. There a program that rewrites its own environment and
//! leaves its supervisor can hide.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::kill;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};

use crate::domain::names::AttemptId;

/// The variable that marks every process of an attempt.
pub(super) const MARK: &str = "TUNESMITH_ATTEMPT";

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills every process of an attempt, its supervisor among them, and returns when they are gone.
pub(super) fn end_attempt(attempt: AttemptId, folder: &Path) -> io::Result<()> {
    let mark = format!("{MARK}={attempt}");
    let supervises = ["supervise", &folder.to_string_lossy()].join("\0");
    let is_of_attempt = |proc: &Path| {
        let holds = |file: &str, wanted: &str, whole: bool| {
            let bytes = std::fs::read(proc.join(file)).unwrap_or_default();
            if whole {
                bytes.split(|&b| b == 0).any(|word| word == wanted.as_bytes())
            } else {
                // A supervisor's line ends in the room that is left of its nursery's.
                let length = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
                bytes[..length].ends_with(wanted.as_bytes())
            }
        };
        holds("environ", &mark, true) || holds("cmdline", &supervises, false)
    };
    let until = Instant::now() + PATIENCE;
    // A process may start another while it is being looked for: only a look that finds nothing ends this.
    loop {
        let killed = kill_where(is_of_attempt)?;
        if killed.is_empty() {
            return Ok(());
        }
        for process in killed {
            let left =
                PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
            poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&process), PollFlags::POLLIN)], left)?;
        }
        if Instant::now() >= until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "killed processes of the attempt do not end"));
        }
    }
}

/// Whether this process is the first one of its process namespace, which then holds nothing but what this one started.
pub(super) fn is_first() -> bool {
    std::process::id() == 1
}

/// Kills and takes in all that runs beside this process, the first one of its process namespace.
pub(super) fn end_namespace() {
    let everybody = nix::unistd::Pid::from_raw(-1);
    let _ = kill(everybody, nix::sys::signal::Signal::SIGKILL);
    while matches!(wait(WaitOptions::empty()), Ok(_) | Err(Errno::INTR)) {}
}

/// Kills and takes in every child of this process until there is none: for a subreaper, all descendants.
pub(super) fn end_children() {
    let me = std::process::id();
    let is_child = |proc: &Path| parent(proc) == Some(me);
    while kill_where(is_child).is_ok_and(|killed| !killed.is_empty()) {
        let _ = wait(WaitOptions::empty());
    }
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
}

/// The parent's id, from `/proc/<pid>/stat`: the second field after the name's closing bracket.
fn parent(proc: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn kill_where(wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<OwnedFd>> {
    let mut killed = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // Cheap look first; then hold the process, and look again at what is held.
        if !wanted(&entry.path()) {
            continue;
        }
        let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { continue };
        if wanted(&entry.path()) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            killed.push(process);
        }
    }
    Ok(killed)
}
