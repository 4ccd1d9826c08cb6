//! Early wake-ups: one inotify instance over the folders of all attempts that somebody waits for.
//!
//! Invariant: a wake-up is a hint. A change between two waits ends the next one at once; where several wait for one
//! attempt, the one that is busy meanwhile may learn of it from its timer alone.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Folder;
use crate::domain::names::AttemptId;

/// How often to look where the kernel has no inotify instance or watch left.
const POLL: Duration = Duration::from_millis(50);

/// The watches of one executor. Made within a tokio runtime.
#[derive(Debug)]
pub(in crate::executor) struct Watches {
    shared: Option<Arc<Shared>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: AsyncFd<Source>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    attempts: HashMap<AttemptId, Watched>,
    ids: HashMap<WatchDescriptor, AttemptId>,
}

#[derive(Debug)]
struct Watched {
    watch: WatchDescriptor,
    changed: Arc<Notify>,
    waiting: usize,
}

#[derive(Debug)]
struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor")]
fn register(source: Inotify) -> Option<AsyncFd<Source>> {
    // SAFETY: `Source` owns its descriptor, always names the same one, and closes it only when dropped.
    unsafe { AsyncFd::register(Source(source)) }.ok()
}

impl Watches {
    pub(in crate::executor) fn start() -> Self {
        let source = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        let inotify = source.and_then(register);
        let shared = inotify.map(|inotify| Arc::new(Shared { inotify, state: Mutex::default() }));
        let reader = shared.clone().map(|shared| tokio::spawn(async move { shared.read().await }));
        Self { shared, reader }
    }

    /// Returns once something of interest changed since the last wait, or after `at_most`. The first wait for an attempt
    /// returns at once.
    pub(in crate::executor) async fn changed(&self, id: AttemptId, folder: &Folder, at_most: Duration) {
        let waiting = self.shared.as_ref().map(|shared| Waiting::begin(shared, id, folder.path()));
        match waiting {
            Some(Begun::Waiting(waiting)) => waiting.wait(at_most).await,
            Some(Begun::Watched) => {}
            Some(Begun::Unwatched) | None => tokio::time::sleep(at_most.min(POLL)).await,
        }
    }

    /// Ends the watch of an attempt, and the wait of whoever waits for it.
    pub(in crate::executor) fn forget(&self, id: AttemptId) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.state();
        if let Some(watched) = state.attempts.remove(&id) {
            state.ids.remove(&watched.watch);
            // Already gone where the folder is.
            let _ = shared.inotify.get_ref().0.rm_watch(watched.watch);
            watched.changed.notify_waiters();
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

enum Begun {
    /// To be waited for.
    Waiting(Waiting),
    /// Watched from now on: look first.
    Watched,
    /// No watch to be had.
    Unwatched,
}

/// One wait, counted while it lasts.
struct Waiting {
    shared: Arc<Shared>,
    id: AttemptId,
    changed: Arc<Notify>,
}

impl Waiting {
    fn begin(shared: &Arc<Shared>, id: AttemptId, folder: &Path) -> Begun {
        let mut state = shared.state();
        if let Some(watched) = state.attempts.get_mut(&id) {
            watched.waiting += 1;
            return Begun::Waiting(Self { shared: shared.clone(), id, changed: watched.changed.clone() });
        }
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO;
        match shared.inotify.get_ref().0.add_watch(folder, flags | AddWatchFlags::IN_ONLYDIR) {
            Ok(watch) => {
                state.ids.insert(watch, id);
                state.attempts.insert(id, Watched { watch, changed: Arc::default(), waiting: 0 });
                Begun::Watched
            }
            Err(_) => Begun::Unwatched,
        }
    }

    async fn wait(self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.changed.notified()).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(watched) = self.shared.state().attempts.get_mut(&self.id) {
            watched.waiting = watched.waiting.saturating_sub(1);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) {
        while let Ok(mut ready) = self.inotify.readable().await {
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => events.iter().for_each(|event| self.note(event)),
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }

    fn note(&self, event: &InotifyEvent) {
        let state = self.state();
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            state.attempts.values().for_each(Watched::wake);
        } else if event.name.as_deref().is_some_and(Folder::is_of_interest) {
            state.ids.get(&event.wd).and_then(|id| state.attempts.get(id)).into_iter().for_each(Watched::wake);
        }
    }
}

impl Watched {
    fn wake(&self) {
        // Wakes one that waits, or keeps the wake-up for the next wait; several waiting ones wake together.
        if self.waiting > 1 {
            self.changed.notify_waiters();
        }
        self.changed.notify_one();
    }
}
