//! A write that fails when a test wants it to.
//!
//! Invariant: unarmed it costs one atomic load a write and changes nothing. A server never arms it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::StoreError;

/// When an armed write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Its code ran, nothing of it is committed.
    BeforeCommit,
    /// It is committed, and its caller gets an error all the same.
    AfterCommit,
}

/// The failures that a test has asked for.
#[derive(Debug, Default)]
pub(super) struct Failpoints {
    armed: AtomicBool,
    outage: AtomicBool,
    pending: Mutex<Vec<(u64, Moment)>>,
}

impl Failpoints {
    /// Makes the `nth` write from now (1 is the next) fail.
    pub(super) fn arm(&self, nth: u64, moment: Moment) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push((nth, moment));
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Makes every write fail before its commit, until told otherwise.
    pub(super) fn outage(&self, lasts: bool) {
        self.outage.store(lasts, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Counts one write; how it must fail, if it must.
    pub(super) fn hit(&self) -> Option<Moment> {
        if !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        if self.outage.load(Ordering::SeqCst) {
            return Some(Moment::BeforeCommit);
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hit = None;
        pending.retain_mut(|(left, moment)| {
            *left = left.saturating_sub(1);
            if *left == 0 {
                hit = Some(*moment);
            }
            *left > 0
        });
        self.armed.store(!pending.is_empty(), Ordering::SeqCst);
        hit
    }
}

/// The error of a write that was made to fail.
pub(super) fn injected() -> StoreError {
    StoreError::Database { doing: "a test wanted it to fail", source: sqlx::Error::WorkerCrashed }
}
