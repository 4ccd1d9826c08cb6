//! Attempts that are being made ready, which may take as long as an image is large, and the word to give that up.
//!
//! Invariant: whoever makes an attempt ready hears of a stop that comes meanwhile, from the first moment on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::domain::names::AttemptId;

/// Attempts that are being made ready.
#[derive(Debug, Default)]
pub(super) struct Launching {
    /// How many are at it: of two the second finds it under way.
    by_attempt: Mutex<HashMap<AttemptId, (usize, CancellationToken)>>,
}

/// One attempt that is being made ready, for as long as this is held.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    of: &'a Launching,
    id: AttemptId,
    given_up: CancellationToken,
}

impl Launching {
    pub(super) fn begin(&self, id: AttemptId) -> Launch<'_> {
        let mut attempts = self.lock();
        let (count, given_up) = attempts.entry(id).or_default();
        *count += 1;
        Launch { of: self, id, given_up: given_up.clone() }
    }

    pub(super) fn has(&self, id: AttemptId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Gives an attempt up, where it is being made ready.
    pub(super) fn give_up(&self, id: AttemptId) {
        if let Some((_, given_up)) = self.lock().get(&id) {
            given_up.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptId, (usize, CancellationToken)>> {
        self.by_attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launch<'_> {
    /// Returns once it is given up.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Launch<'_> {
    fn drop(&mut self) {
        let mut attempts = self.of.lock();
        if let Some((count, _)) = attempts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                attempts.remove(&self.id);
            }
        }
    }
}
