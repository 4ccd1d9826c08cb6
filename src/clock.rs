//! Time and wake-ups as parameters, so that a test can hold both.
//!
//! Invariant: nothing else in the crate reads the wall clock (`clippy.toml` bans it). A wake-up is only a hint: whoever
//! waits also has a timer, and computes from rows what should be so.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::domain::time::Timestamp;

/// Where the current time comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's wall clock.
    System,
    /// A time that only moves when a test moves it; clones share it.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    /// The current time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since_epoch =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Manual(now) => Timestamp(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock on; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(now) = self {
            now.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

/// A handle that wakes one waiting loop early. Waking while nobody waits is kept for the next wait.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Wakes the waiting loop, or the next wait.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Returns once woken, or after `at_most`.
    pub async fn wait(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.0.notified()).await;
    }
}

/// Names what is to be looked at early. What was named while nobody waited is kept for the next wait, once.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Called>);

#[derive(Debug, Default)]
struct Called {
    names: Mutex<BTreeSet<Uuid>>,
    notify: Notify,
}

impl Calls {
    /// Names one.
    pub fn call(&self, name: Uuid) {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        self.0.notify.notify_one();
    }

    /// Returns what was named once there is something, or nothing after `at_most`. A wait that is given up loses no name.
    pub async fn wait(&self, at_most: Duration) -> BTreeSet<Uuid> {
        let _ = tokio::time::timeout(at_most, self.0.notify.notified()).await;
        std::mem::take(&mut *self.0.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_call_is_heard_once() {
        let (calls, one, two) = (Calls::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        let hour = Duration::from_hours(1);
        calls.call(two);
        calls.call(one);
        calls.call(two);
        assert_eq!(calls.wait(hour).await, BTreeSet::from([one, two]));
        assert_eq!(calls.wait(hour).await, BTreeSet::new(), "nothing else was named, and the time is up");

        tokio::select! {
            biased;
            _ = calls.wait(hour) => panic!("nothing is named yet"),
            () = std::future::ready(()) => {}
        }
        calls.call(one);
        assert_eq!(calls.wait(hour).await, BTreeSet::from([one]), "a wait given up takes nothing with it");
    }
}
