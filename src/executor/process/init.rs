//! The first process inside an attempt's namespaces: builds the view, starts the program, waits for it.
//!
//! Invariant: it dies with its supervisor and everything inside dies with it. It reports once, over one pipe, how the
//! program ended; deadlines, logs and records are the supervisor's.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, clone};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, setsid};

use super::plan::Plan;
use super::sandbox;

/// The stack of the process that becomes the program, until it is the program.
const STACK_BYTES: usize = 512 << 10;

/// How the program ended, as reported to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// It could not be started: the image's or the job's fault.
    StartFailed(String),
    /// The machine would not.
    Infrastructure(String),
    /// It ended by itself.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

impl Report {
    fn send(&self, pipe: &OwnedFd) {
        let text = match self {
            Self::StartFailed(message) => format!("f{}\n", message.replace('\n', " ")),
            Self::Infrastructure(message) => format!("i{}\n", message.replace('\n', " ")),
            Self::Exited(code) => format!("e{code}\n"),
            Self::Signaled(signal) => format!("s{signal}\n"),
        };
        // Where nobody listens any more there is nobody to tell.
        let _ = nix::unistd::write(pipe, text.as_bytes());
    }

    /// The first report of a pipe's whole content: one that explains a failed start comes before its exit code.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().next()?;
        let rest = line.get(1..)?;
        match line.as_bytes()[0] {
            b'f' => Some(Self::StartFailed(rest.into())),
            b'i' => Some(Self::Infrastructure(rest.into())),
            b'e' => rest.parse().ok().map(Self::Exited),
            b's' => rest.parse().ok().map(Self::Signaled),
            _ => None,
        }
    }
}

/// The ends of pipes that the first process holds.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) report: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Its other end is open for as long as the supervisor lives.
    pub(super) life: OwnedFd,
}

/// The signals that the supervisor and the first process take when they ask for them, never as an interruption.
pub(super) fn awaited_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals
}

/// Forks.
#[expect(unsafe_code, reason = "there is no safe fork")]
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the nursery and the supervisor have one thread each, so no lock can be held by another one and the child may
    // do whatever its parent may.
    unsafe { nix::unistd::fork() }
}

/// Ends a fork. What is registered for the end of a process is its parent's, and a short program's supervisor would spend
/// a tenth of its memory's pages on it.
#[expect(unsafe_code, reason = "there is no safe _exit")]
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: it ends the process, and touches nothing of it.
    unsafe { nix::libc::_exit(code) }
}

/// Runs as the first process, with [`awaited_signals`] blocked; the caller ends the process when this returns.
pub(super) fn run(plan: &Plan, pipes: Pipes) {
    let report = match start(plan, &pipes) {
        Ok(program) => {
            // The program alone holds the output from here on.
            let Pipes { report, stdout, stderr, life } = pipes;
            drop((stdout, stderr, life));
            wait(program).send(&report);
            return;
        }
        Err(report) => report,
    };
    report.send(&pipes.report);
}

fn start(plan: &Plan, pipes: &Pipes) -> Result<Pid, Report> {
    let infrastructure = |doing: &str| {
        let doing = doing.to_owned();
        move |error: nix::Error| Report::Infrastructure(format!("{doing} failed: {error}"))
    };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(infrastructure("binding to the supervisor"))?;
    // A supervisor that died before that sends no signal.
    let mut life = [PollFd::new(pipes.life.as_fd(), PollFlags::POLLIN)];
    if poll(&mut life, PollTimeout::ZERO).map_err(infrastructure("looking for the supervisor"))? > 0 {
        return Err(Report::Infrastructure("the supervisor died".into()));
    }
    if let Some(sandbox) = &plan.sandbox {
        sandbox::enter(sandbox).map_err(|error| Report::Infrastructure(error.text()))?;
    }
    spawn(plan, pipes).map_err(infrastructure("starting a process"))
}

/// Makes the process that becomes the program. It borrows this one's memory, as a copy would cost more than all that it
/// does with it; this one stands still until it has become the program or failed.
#[expect(unsafe_code, reason = "there is no safe clone")]
fn spawn(plan: &Plan, pipes: &Pipes) -> nix::Result<Pid> {
    // As large as to come from the kernel untouched: pages that are not needed are never made.
    let mut stack = vec![0; STACK_BYTES];
    let child = || {
        become_program(plan, pipes).send(&pipes.report);
        exit(127)
    };
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: this process has one thread, which waits meanwhile, so that nobody sees the memory change. What the child
    // allocates and does not free stays so, and a lock of the environment, which nobody writes, stays taken for reading.
    // It has a stack of its own, and shares no descriptors, folders or handlers of signals. It never returns.
    unsafe { clone(Box::new(child), &mut stack, flags, Some(Signal::SIGCHLD as i32)) }
}

/// Replaces this process by the training program; returns only what prevented that.
fn become_program(plan: &Plan, pipes: &Pipes) -> Report {
    let Some((program, arguments)) = plan.command.split_first() else {
        return Report::StartFailed("the image has no command".into());
    };
    let prepared = || -> std::io::Result<(Stdio, Stdio)> {
        setsid()?;
        // A mask outlives exec, and a program that cannot be asked to stop would only ever be killed.
        awaited_signals().thread_unblock()?;
        Ok((pipes.stdout.try_clone()?.into(), pipes.stderr.try_clone()?.into()))
    };
    let (stdout, stderr) = match prepared() {
        Ok(streams) => streams,
        Err(error) => return Report::Infrastructure(format!("preparing the program failed: {error}")),
    };
    if let Err(error) = sandbox::drop_privileges(plan.run_as, plan.max_processes) {
        return Report::Infrastructure(error.text());
    }
    // Without a process namespace the program is not killed with the first process otherwise.
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        return Report::Infrastructure(format!("binding the program to its supervisor failed: {error}"));
    }
    if let Err(error) = std::env::set_current_dir(&plan.working_dir) {
        let dir = plan.working_dir.display();
        return Report::StartFailed(format!("the working directory {dir} cannot be entered: {error}"));
    }
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&plan.environment)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .exec();
    Report::StartFailed(format!("{program} could not be started: {error}"))
}

/// Waits for the program, taking in orphans; passes SIGTERM on to the program's process group.
fn wait(program: Pid) -> Report {
    let signals = awaited_signals();
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == program => return Report::Exited(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Report::Signaled(signal as i32),
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Report::Infrastructure(format!("waiting for the program failed: {error}")),
            }
        }
        if signals.wait() == Ok(Signal::SIGTERM) && killpg(program, Signal::SIGTERM).is_err() {
            // Not the leader of its group yet: the signal waits until the program is there.
            let _ = kill(program, Signal::SIGTERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_report_counts() {
        let (read, write) = nix::unistd::pipe().unwrap();
        Report::StartFailed("no\nsuch".into()).send(&write);
        Report::Exited(127).send(&write);
        let mut bytes = [0; 100];
        let length = nix::unistd::read(&read, &mut bytes).unwrap();
        assert_eq!(Report::parse(&bytes[..length]), Some(Report::StartFailed("no such".into())));
        assert_eq!(Report::parse(b"s9\n"), Some(Report::Signaled(9)));
        assert_eq!(Report::parse(b""), None);
    }
}
