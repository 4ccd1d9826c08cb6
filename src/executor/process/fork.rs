//! New processes out of this one.
//!
//! Invariant: only processes of one thread do this (the nursery, supervisors, probes), so no lock can be held by another
//! thread, and a copy may do whatever its original may. What a new process does is left to others.

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// The stack of a process that borrows memory: a hundred times what it needs, and so large that it comes from the kernel
/// untouched, where pages that are not needed are never made.
const STACK_BYTES: usize = 512 << 10;

/// Undoes what a server's own parent may have asked for: that the ends of its children pass unheard.
#[expect(unsafe_code, reason = "handlers of signals are unsafe to set")]
pub(super) fn hear_of_children() {
    // SAFETY: it is no handler that is set, but the default behaviour.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// A copy of this process.
#[expect(unsafe_code, reason = "there is no safe fork")]
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: this process has one thread.
    unsafe { nix::unistd::fork() }
}

/// A copy of this process in new namespaces: of a process namespace it is the first process. The C library, which is not
/// asked, believes that it has its original's thread id; so it must start no threads.
#[expect(unsafe_code, reason = "there is no safe clone")]
pub(super) fn fork_into(namespaces: CloneFlags) -> nix::Result<ForkResult> {
    let flags = libc::c_long::from(namespaces.bits() | Signal::SIGCHLD as i32);
    // SAFETY: this process has one thread. Without a stack and without shared memory it is a fork: a copy goes on from here.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    match i32::try_from(Errno::result(answer)?) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(child) => Ok(ForkResult::Parent { child: Pid::from_raw(child) }),
        Err(_) => Err(Errno::EOVERFLOW),
    }
}

/// A process that does something in this one's memory, to become another program: a copy would cost more than all that it
/// does. This one stands still until it is that program, or has ended because `then` returned.
#[expect(unsafe_code, reason = "there is no safe clone")]
pub(super) fn borrow(then: impl FnOnce()) -> nix::Result<Pid> {
    let mut stack = vec![0; STACK_BYTES];
    let mut then = Some(then);
    let child = || {
        if let Some(then) = then.take() {
            then();
        }
        exit(127)
    };
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: this process has one thread, which waits meanwhile, so nobody sees the memory change. What the child has not
    // freed when it becomes a program stays: its variables are this process's environment then, and locked for reading,
    // which is for a process that neither reads nor writes its environment any more. Its stack is its own, and so are its
    // copies of descriptors, folders and handlers of signals. It never returns.
    unsafe { clone(Box::new(child), &mut stack, flags, Some(Signal::SIGCHLD as i32)) }
}

/// Ends a new process. What is registered for the end of a process is its original's, and a short program's supervisor
/// would spend a tenth of its memory's pages on it.
#[expect(unsafe_code, reason = "there is no safe _exit")]
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: it ends the process, and touches nothing of it.
    unsafe { libc::_exit(code) }
}
