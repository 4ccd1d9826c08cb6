//! Rows of `servers`, one heartbeat each, and what servers of one database share.
//!
//! Invariant: a heartbeat expires by the database's clock, so that servers whose clocks differ agree on it; a shared
//! secret is the first that was written, and never changes. What the end of a heartbeat means for leases is left to
//! `tuning_jobs`.

use uuid::Uuid;

use crate::store::query::{assembled, sql};
use crate::store::{StoreError, Tx};

/// Writes a server's heartbeat, good for `ttl_ms` from the database's now.
pub async fn heartbeat(tx: &mut Tx<'_>, server: Uuid, ttl_ms: i64) -> Result<(), StoreError> {
    let now = tx.clock();
    let text = format!(
        "INSERT INTO servers (id, beat_at, expires_at) VALUES ($1, {now}, {now} + $2) \
         ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at, expires_at = excluded.expires_at"
    );
    assembled("writing a heartbeat", text, vec![server.into(), ttl_ms.into()]).execute(tx).await.map(|_| ())
}

/// Removes a server's row at its orderly end, so that its leases can be taken at once.
pub async fn leave(tx: &mut Tx<'_>, server: Uuid) -> Result<(), StoreError> {
    sql("taking leave", "DELETE FROM servers WHERE id = $1").bind(server).execute(tx).await.map(|_| ())
}

/// The secret of a name that all servers of this database share: the one that is there, else `candidate`, which is then
/// kept. Needs a write transaction.
pub async fn secret(tx: &mut Tx<'_>, name: &str, candidate: &str) -> Result<String, StoreError> {
    sql(
        "keeping a shared secret",
        "INSERT INTO server_settings (setting, setting_value) VALUES ($1, $2) ON CONFLICT (setting) DO NOTHING",
    )
    .bind(name)
    .bind(candidate)
    .execute(tx)
    .await?;
    let row = sql("reading a shared secret", "SELECT setting_value FROM server_settings WHERE setting = $1")
        .bind(name)
        .optional(tx)
        .await?;
    row.map_or_else(|| Ok(candidate.to_owned()), |row| row.reader("server_settings", "setting_value").text())
}
