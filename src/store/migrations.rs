//! The schema's versions, in the program itself, and bringing a database up to the latest.
//!
//! Invariant: one server migrates at a time, in one transaction; a database that a later program wrote, or whose applied
//! migrations are not this program's, is refused untouched.

use sha2::{Digest as _, Sha256};

use crate::store::query::sql;
use crate::store::{StoreError, Tx};

struct Migration {
    version: i64,
    sqlite: &'static str,
    postgres: &'static str,
}

/// In order; a released one never changes.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    sqlite: include_str!("../../migrations/sqlite/0001_first.sql"),
    postgres: include_str!("../../migrations/postgres/0001_first.sql"),
}];

/// The advisory lock that migrating servers take.
const LOCK: i64 = 0x7475_6e65_736d_6974;

/// Applies what is missing.
pub(super) async fn apply(tx: &mut Tx<'_>, postgres: bool) -> Result<(), StoreError> {
    if postgres {
        // A start should not tell that a table is there already.
        tx.script("preparing to migrate", "SET LOCAL client_min_messages = warning").await?;
    }
    tx.advisory_lock(LOCK).await?;
    sql(
        "preparing to migrate",
        "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT NOT NULL CONSTRAINT schema_migrations_pk \
         PRIMARY KEY, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)",
    )
    .execute(tx)
    .await?;
    let rows = sql("reading the schema's version", "SELECT version, checksum FROM schema_migrations ORDER BY version")
        .all(tx)
        .await?;
    let mut applied = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut reader = row.reader("schema_migrations", "version, checksum");
        applied.push((reader.int()?, reader.text()?));
    }
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    if let Some((found, _)) = applied.last().filter(|(version, _)| *version > known) {
        return Err(StoreError::NewerSchema { found: *found, known });
    }
    for migration in MIGRATIONS {
        let text = if postgres { migration.postgres } else { migration.sqlite };
        let checksum = checksum(text);
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, there)) if *there == checksum => {}
            Some(_) => return Err(StoreError::ForeignSchema { version: migration.version }),
            None => run(tx, migration.version, text, checksum).await?,
        }
    }
    Ok(())
}

async fn run(tx: &mut Tx<'_>, version: i64, text: &'static str, checksum: String) -> Result<(), StoreError> {
    tx.script("migrating", text).await?;
    let clock = tx.clock();
    let note = format!("INSERT INTO schema_migrations (version, checksum, applied_at) VALUES ($1, $2, {clock})");
    crate::store::query::assembled("noting a migration", note, vec![version.into(), checksum.into()])
        .execute(tx)
        .await
        .map(|_| ())
}

fn checksum(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
