//! The nursery: one process of this binary, without threads, that a server's supervisors are forked from.
//!
//! Starting this binary costs more processor time than all else that a supervisor does for a short program, most of it
//! the dynamic linker's; a fork of one that stands ready costs a tenth of that. Invariant: the nursery holds nothing but
//! its socket, and ends when the server's end of it closes; supervisors go on without both. A request carries the lock of
//! an attempt's folder and may be made again after a nursery that died: the folder's claim lets one supervisor start.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, dup2_stdin};
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};

use super::sandbox::Namespaces;
use super::{fork, supervisor};

/// The arguments that make this binary a nursery, and what its supervisors are born into (see [`Namespaces::new`]).
const ARGUMENTS: [(&str, Option<bool>); 3] =
    [("--nursery=plain", None), ("--nursery=root", Some(false)), ("--nursery=user", Some(true))];

/// No path is longer.
const MAX_PATH: usize = 4096;

/// How long a nursery may take for a fork, before another takes its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// The space for what a descriptor comes with.
const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(1));

/// The server's side: starts the nursery with the first supervisor, and again where it has died.
#[derive(Debug)]
pub(super) struct Nursery {
    binary: PathBuf,
    argument: &'static str,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// None once it is to end.
    socket: Option<OwnedFd>,
    process: Child,
}

impl Nursery {
    /// A nursery of `binary`, not started yet, for supervisors with namespaces as [`Namespaces::new`] takes them.
    pub(super) fn new(binary: PathBuf, user_namespace: Option<bool>) -> Self {
        let [plain, root, user] = ARGUMENTS.map(|(argument, _)| argument);
        let argument = match user_namespace {
            None => plain,
            Some(false) => root,
            Some(true) => user,
        };
        Self { binary, argument, running: Mutex::new(None) }
    }

    /// Starts the supervisor of a folder, which takes its `lock` over.
    pub(super) fn start(&self, folder: &Path, lock: &File) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut may_have_forked = false;
        if let Some(nursery) = running.take() {
            match nursery.ask(folder, lock) {
                Ok(Asked::Answered(answer)) => {
                    *running = Some(nursery);
                    return forked(answer);
                }
                asked => may_have_forked = asked.is_ok(),
            }
            // It is gone, and its copies of the lock with it, before another is asked.
        }
        let another =
            Running::start(&self.binary, self.argument).and_then(|nursery| Ok((nursery.ask(folder, lock)?, nursery)));
        match another {
            Ok((Asked::Answered(answer), nursery)) => {
                *running = Some(nursery);
                forked(answer)
            }
            // An error would say that nothing was started. Who looks at the folder finds out.
            Ok((Asked::Silent, _)) => Ok(()),
            Err(_) if may_have_forked => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What became of a request that was sent.
enum Asked {
    /// Zero, or the number of the error of the fork.
    Answered(i32),
    /// The nursery died or hangs, before or after it forked. What it still says is the answer to nothing else.
    Silent,
}

fn forked(answer: i32) -> io::Result<()> {
    if answer == 0 {
        return Ok(());
    }
    let refused = io::Error::from_raw_os_error(answer);
    Err(io::Error::other(format!("making a process in namespaces of its own failed: {refused}")))
}

impl Running {
    fn start(binary: &Path, argument: &str) -> io::Result<Self> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&ours, direction, Some(PATIENCE))?;
        }
        let mut command = Command::new(binary);
        // Room for a supervisor's own command line, which takes this one's place.
        command.args(["supervise", argument, &" ".repeat(MAX_PATH)]).env_clear();
        command.stdin(Stdio::from(its)).stdout(Stdio::null()).stderr(Stdio::null());
        // A Ctrl-C meant for the server is not the attempts'.
        let process = command.process_group(0).spawn()?;
        Ok(Self { socket: Some(ours), process })
    }

    /// Asks for a supervisor. After an error the nursery has heard of nothing.
    fn ask(&self, folder: &Path, lock: &File) -> io::Result<Asked> {
        let Some(socket) = &self.socket else { return Err(Errno::ENOTCONN.into()) };
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let lock = [lock.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&lock));
        let path = IoSlice::new(folder.as_os_str().as_bytes());
        retry_on_intr(|| sendmsg(socket, &[path], &mut ancillary, SendFlags::NOSIGNAL))?;
        let mut answer = [0; 4];
        Ok(match retry_on_intr(|| recv(socket, &mut answer, RecvFlags::empty())) {
            Ok((4, _)) => Asked::Answered(i32::from_ne_bytes(answer)),
            _ => Asked::Silent,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.socket = None;
        // It ends by itself, unless it hangs.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What supervisors are born into by a nursery that was started with an argument; none where that makes no nursery.
pub(super) fn named(argument: &std::ffi::OsStr) -> Option<Namespaces> {
    let (_, user_namespace) = ARGUMENTS.into_iter().find(|(name, _)| argument == *name)?;
    Some(Namespaces::new(user_namespace))
}

/// Runs as the nursery; standard input is its socket.
pub(super) fn run(namespaces: Namespaces) -> ExitCode {
    fork::hear_of_children();
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(2) };
    let line = CommandLine::own();
    let mut children = 0_usize;
    let mut path = [0; MAX_PATH];
    loop {
        children -= ended_children(children);
        match wait(&socket, children > 0) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => return ExitCode::FAILURE,
        }
        let (folder, lock) = match receive(&socket, &mut path) {
            Ok(Some(request)) => request,
            Ok(None) => return ExitCode::SUCCESS,
            // No socket: by hand, or by mistake.
            Err(_) => return ExitCode::from(2),
        };
        let answer = match namespaces.fork() {
            Ok(ForkResult::Child) => {
                // With a supervisor holding it, the nursery's end would not be seen to close.
                drop(socket);
                let detached = File::open("/dev/null").and_then(|null| Ok(dup2_stdin(null)?));
                line.show(&folder);
                if detached.is_ok() {
                    supervisor::run(&folder, lock, namespaces);
                }
                fork::exit(0)
            }
            Ok(ForkResult::Parent { .. }) => {
                children += 1;
                0
            }
            Err(error) => error as i32,
        };
        drop(lock);
        if send(&socket, &answer.to_ne_bytes(), SendFlags::NOSIGNAL).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

/// Takes in children that have ended: how many of so many.
fn ended_children(count: usize) -> usize {
    let ended = || waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive);
    (0..count).take_while(|_| ended()).count()
}

/// Waits for a request or the end of the server; for a while only where children are to be taken in.
fn wait(socket: &OwnedFd, children: bool) -> io::Result<bool> {
    let patience = if children { PollTimeout::from(1000_u16) } else { PollTimeout::NONE };
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], patience) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The next request; none once the server is gone.
fn receive(socket: &OwnedFd, path: &mut [u8]) -> io::Result<Option<(PathBuf, File)>> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(path)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let lock = descriptors.and_then(|mut descriptors| descriptors.next());
    let lock = lock.ok_or_else(|| io::Error::other("a request without a lock"))?;
    let folder = PathBuf::from(std::ffi::OsStr::from_bytes(&path[..received.bytes]));
    Ok(Some((folder, lock.into())))
}

/// Where a process's command line stands in its memory, the same in every fork.
#[derive(Debug)]
struct CommandLine(Option<(u64, usize)>);

impl CommandLine {
    fn own() -> Self {
        Self(std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
            // The second field may hold anything; the third comes after its last bracket.
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(45);
            let (begin, end): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((begin, usize::try_from(end.checked_sub(begin)?).ok()?))
        }))
    }

    /// Shows this process as the supervisor of a folder: to those who look what runs, and to [`super::strays`].
    fn show(&self, folder: &Path) {
        let Some((begin, room)) = self.0 else { return };
        let mut line = [b"tunesmith\0supervise\0".as_slice(), folder.as_os_str().as_bytes(), b"\0"].concat();
        if line.len() > room {
            return;
        }
        line.resize(room, 0);
        // Where the kernel refuses, the line stays the nursery's.
        let _ = File::options().write(true).open("/proc/self/mem").and_then(|memory| memory.write_all_at(&line, begin));
    }
}
