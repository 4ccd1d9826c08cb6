//! Holding the right to decide: this server's heartbeat, and until when it may act on its leases.
//!
//! Invariant: a holder stops acting a second before its heartbeat expires by its own monotonic clock, whatever the
//! database would say; the fencing token in the rows refuses whoever is late all the same.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::store::{Db, StoreError, WriteClass, servers};

/// How long a heartbeat is good for.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(10);

/// How often it is written.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// Act on no lease closer to its expiry than this.
const SAFETY_MARGIN: Duration = Duration::from_secs(1);

/// This server's standing.
#[derive(Debug)]
pub struct Standing {
    server: Uuid,
    valid_until: Mutex<Option<Instant>>,
}

impl Standing {
    /// A server that has not written a heartbeat yet.
    #[must_use]
    pub fn new(server: Uuid) -> Self {
        Self { server, valid_until: Mutex::new(None) }
    }

    /// The server's identity.
    #[must_use]
    pub fn server(&self) -> Uuid {
        self.server
    }

    /// Whether leases may be acted on now.
    #[must_use]
    pub fn holds(&self) -> bool {
        let valid_until = self.valid_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        valid_until.is_some_and(|until| Instant::now() + SAFETY_MARGIN < until)
    }

    /// Writes a heartbeat; its validity counts from before it was sent.
    pub async fn beat(&self, db: &Db) -> Result<(), StoreError> {
        let sent = Instant::now();
        let (server, ttl_ms) = (self.server, i64::try_from(HEARTBEAT_TTL.as_millis()).unwrap_or(i64::MAX));
        db.write(WriteClass::Scheduling, move |tx| Box::pin(servers::heartbeat(tx, server, ttl_ms))).await?;
        *self.valid_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sent + HEARTBEAT_TTL);
        Ok(())
    }

    /// Gives all leases up at an orderly end.
    pub async fn leave(&self, db: &Db) -> Result<(), StoreError> {
        *self.valid_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        let server = self.server;
        db.write(WriteClass::Scheduling, move |tx| Box::pin(servers::leave(tx, server))).await
    }
}
