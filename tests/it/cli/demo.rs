//! A demo that is broken off.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::server::{command, supervisors};

/// How long a test waits for something that must happen.
const BOUND: Duration = Duration::from_mins(1);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Processes that say a folder's name in their command line or their environment.
fn processes_that_know(folder: &Path) -> Vec<String> {
    let needle = folder.to_str().unwrap();
    let knows = |entry: std::fs::DirEntry| {
        let texts = ["cmdline", "environ"].map(|file| std::fs::read(entry.path().join(file)).unwrap_or_default());
        let text = String::from_utf8_lossy(&texts.concat()).replace('\0', " ");
        (entry.file_name().to_str()?.parse::<u32>().is_ok() && text.contains(needle)).then_some(text)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(knows).collect()
}

#[test]
fn ctrl_c_leaves_neither_processes_nor_files() {
    ended_by(Signal::SIGINT);
}

#[test]
fn a_terminal_that_goes_away_leaves_neither() {
    ended_by(Signal::SIGHUP);
}

#[test]
fn a_demo_that_nobody_hears_goes_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut demo = command();
    demo.args(["demo", "--jobs", "1", "--epochs", "1"]).env("TMPDIR", folder.path()).stdout(full()).stderr(full());
    assert!(demo.status().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo left files");
}

fn ended_by(signal: Signal) {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = command();
    // Long enough that only the interruption can end it. A group of its own, as a terminal gives: Ctrl-C reaches all of it.
    demo.args(["demo", "--epochs", "1000", "--jobs", "1000", "--parallel", "3"]).process_group(0);
    demo.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = Killed(demo.spawn().unwrap());
    until("it trains", || supervisors(folder.path()).len() >= 3);
    killpg(Pid::from_raw(i32::try_from(demo.0.id()).unwrap()), signal).unwrap();
    let mut shown = Vec::new();
    for line in BufReader::new(demo.0.stdout.take().unwrap()).lines() {
        shown.push(line.unwrap());
    }
    let status = demo.0.wait().unwrap();
    let errors = std::io::read_to_string(demo.0.stderr.take().unwrap()).unwrap();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(shown.contains(&"stopping the training jobs".to_owned()), "{shown:?}");
    assert_eq!(errors, "error: interrupted\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo left files");
    assert_eq!(processes_that_know(folder.path()), Vec::<String>::new(), "the demo left processes");
}

/// Ended where a test fails before that.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
