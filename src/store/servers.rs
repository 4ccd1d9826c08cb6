//! Rows of `servers`: one heartbeat each. Expiry is judged by the database's clock.

use uuid::Uuid;

use crate::store::{StoreError, Tx};

/// Writes a server's heartbeat, good for `ttl_ms` from the database's now.
pub async fn heartbeat(tx: &mut Tx<'_>, server: Uuid, ttl_ms: i64) -> Result<(), StoreError> {
    let _ = (tx, server, ttl_ms);
    todo!()
}

/// Removes a server's row at its orderly end, so that its leases can be taken at once.
pub async fn leave(tx: &mut Tx<'_>, server: Uuid) -> Result<(), StoreError> {
    let _ = (tx, server);
    todo!()
}

/// The secret of a name: the stored one, or `candidate`, stored now.
pub async fn secret(tx: &mut Tx<'_>, name: &str, candidate: &str) -> Result<String, StoreError> {
    let _ = (tx, name, candidate);
    todo!()
}
