//! The process of the training program, from the supervisor's memory to the program itself.
//!
//! Invariant: what prevented the program is known when this returns, and nothing is left of its process then. How the
//! program goes on and ends is the supervisor's.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, getppid, setsid};

use super::plan::Plan;
use super::{fork, sandbox};
use crate::domain::outcome::ExitCause;

/// The signals that a supervisor never takes as an interruption.
pub(super) fn kept_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals
}

/// Starts the program, in the view of the machine that the plan wants. For the supervisor, with [`kept_signals`] blocked.
pub(super) fn start(plan: &Plan, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<Pid, ExitCause> {
    let supervisor = getpid();
    let mut prevented = None;
    let process = fork::borrow(|| prevented = Some(become_program(plan, supervisor, stdout, stderr)));
    let process = process.map_err(|error| infrastructure(format!("starting a process failed: {error}")))?;
    match prevented {
        None => Ok(process),
        Some(cause) => {
            let _ = waitpid(process, None);
            Err(cause)
        }
    }
}

fn infrastructure(message: String) -> ExitCause {
    ExitCause::Infrastructure { message }
}

/// Replaces this process by the training program; returns only what prevented that.
fn become_program(plan: &Plan, supervisor: Pid, stdout: &OwnedFd, stderr: &OwnedFd) -> ExitCause {
    let start_failed = |message| ExitCause::StartFailed { message };
    let Some((program, arguments)) = plan.command.split_first() else {
        return start_failed("the image has no command".into());
    };
    if let Some(Err(error)) = plan.sandbox.as_ref().map(sandbox::enter) {
        return infrastructure(error.text());
    }
    let prepared = || -> std::io::Result<(Stdio, Stdio)> {
        setsid()?;
        Ok((stdout.try_clone()?.into(), stderr.try_clone()?.into()))
    };
    let (stdout, stderr) = match prepared() {
        Ok(streams) => streams,
        Err(error) => return infrastructure(format!("preparing the program failed: {error}")),
    };
    if let Err(error) = sandbox::drop_privileges(plan.run_as, plan.max_processes) {
        return infrastructure(error.text());
    }
    // Without a process namespace the program is not killed with its supervisor otherwise; and one that died before this
    // sends no signal.
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        return infrastructure(format!("binding the program to its supervisor failed: {error}"));
    }
    if getppid() != supervisor {
        return infrastructure("the supervisor died".into());
    }
    if let Err(error) = std::env::set_current_dir(&plan.working_dir) {
        let dir = plan.working_dir.display();
        return start_failed(format!("the working directory {dir} cannot be entered: {error}"));
    }
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&plan.environment);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    // A mask outlives exec, and a program that cannot be asked to stop would only ever be killed. As late as possible: this
    // memory is the supervisor's.
    if let Err(error) = kept_signals().thread_unblock() {
        return infrastructure(format!("preparing the program failed: {error}"));
    }
    let error = command.exec();
    start_failed(format!("{program} could not be started: {error}"))
}
