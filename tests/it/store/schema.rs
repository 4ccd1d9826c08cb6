//! Migrations: the two folders make one schema, once, and never touch one that they do not know.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use sqlx::{Connection as _, PgConnection, Row as _, SqliteConnection};
use tunesmith::store::{Db, StoreError};

use crate::support::database::TestDb;

store_suite! { [sqlite, postgres] {
    migrating_again_changes_nothing,
    a_newer_database_is_refused,
    a_changed_migration_is_refused,
    an_unknown_value_is_refused_by_the_schema,
} }

async fn migrating_again_changes_nothing(db: TestDb) {
    let job = super::fixtures::tuning_job("job");
    db.put(&job).await;
    let second = Db::connect(&db.url).await.unwrap();
    let (one, two) = tokio::join!(db.db.migrate(), second.migrate());
    one.unwrap();
    two.unwrap();
    assert!(db.tuning(job.id).await.is_some());
}

async fn a_newer_database_is_refused(db: TestDb) {
    db.raw("INSERT INTO schema_migrations (version, checksum, applied_at) VALUES (9999, 'x', 0)").await.unwrap();
    let refused = db.db.migrate().await;
    assert!(matches!(refused, Err(StoreError::NewerSchema { found: 9999, .. })), "{refused:?}");
}

async fn a_changed_migration_is_refused(db: TestDb) {
    db.raw("UPDATE schema_migrations SET checksum = 'other' WHERE version = 1").await.unwrap();
    let refused = db.db.migrate().await;
    assert!(matches!(refused, Err(StoreError::ForeignSchema { version: 1 })), "{refused:?}");
}

async fn an_unknown_value_is_refused_by_the_schema(db: TestDb) {
    let tuning = super::fixtures::tuning_job("job");
    db.put(&tuning).await;
    for wrong in ["status = 'Lost'", "strategy = 'Guess'", "exhausted = 2", "best_id = 'x'", "inserted = 101"] {
        assert!(db.raw(&format!("UPDATE tuning_jobs SET {wrong}")).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn the_two_schemas_are_one() {
    let (sqlite, postgres) = (TestDb::sqlite().await, TestDb::postgres().await);
    let (columns, indexes) = sqlite_schema(&sqlite.url).await;
    let (expected_columns, expected_indexes) = postgres_schema(&postgres.url).await;
    assert!(columns.len() > 80 && indexes.len() > 20, "{} columns, {} indexes", columns.len(), indexes.len());
    assert_eq!(columns, expected_columns);
    assert_eq!(indexes, expected_indexes);
}

/// `table.column type nullable` of every column; `table (columns) unique partial` of every index.
type Schema = (BTreeSet<String>, BTreeSet<String>);

fn column(table: &str, name: &str, kind: &str, nullable: bool) -> String {
    format!("{table}.{name} {} {}", kind.to_lowercase(), if nullable { "null" } else { "not null" })
}

fn index(table: &str, columns: &str, unique: bool, partial: bool) -> String {
    let (unique, partial) = (if unique { " unique" } else { "" }, if partial { " partial" } else { "" });
    format!("{table} ({columns}){unique}{partial}")
}

async fn sqlite_schema(url: &str) -> Schema {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let columns = sqlx::query(
        "SELECT t.name, c.name, c.type, c.\"notnull\" FROM sqlite_schema t, pragma_table_info(t.name) c \
         WHERE t.type = 'table'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let indexes = sqlx::query(
        "SELECT t.name, group_concat(c.name, ', '), i.\"unique\", i.partial FROM sqlite_schema t, \
         pragma_index_list(t.name) i, pragma_index_info(i.name) c WHERE t.type = 'table' GROUP BY t.name, i.name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    (
        columns.iter().map(|row| column(row.get(0), row.get(1), row.get(2), row.get::<i64, _>(3) == 0)).collect(),
        indexes
            .iter()
            .map(|row| index(row.get(0), row.get(1), row.get::<i64, _>(2) == 1, row.get::<i64, _>(3) == 1))
            .collect(),
    )
}

async fn postgres_schema(url: &str) -> Schema {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let columns = sqlx::query(
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable = 'YES' \
         FROM information_schema.columns WHERE table_schema = 'public'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let indexes = sqlx::query(
        "SELECT i.indrelid::regclass::text, (SELECT string_agg(a.attname, ', ' ORDER BY k.place) \
         FROM unnest(i.indkey) WITH ORDINALITY k(number, place) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number), i.indisunique, \
         i.indpred IS NOT NULL FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
         WHERE c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    (
        columns.iter().map(|row| column(row.get(0), row.get(1), row.get(2), row.get(3))).collect(),
        indexes.iter().map(|row| index(row.get(0), row.get(1), row.get(2), row.get(3))).collect(),
    )
}

#[tokio::test]
async fn an_unknown_kind_of_database_is_refused() {
    let refused = Db::connect("mysql://root:secret@localhost/x").await.unwrap_err();
    assert!(matches!(refused, StoreError::UnknownDatabase { .. }));
    assert!(!refused.to_string().contains("secret"));
    let refused = Db::connect("postgres://user:secret@host:port/x").await.unwrap_err();
    let mut text = refused.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&refused);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(matches!(refused, StoreError::InvalidUrl { .. }) && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_sqlite_file_is_its_owners_alone() {
    let db = TestDb::sqlite().await;
    let path = db.url.strip_prefix("sqlite://").unwrap();
    for side in ["", "-wal", "-shm"] {
        let mode = std::fs::metadata(format!("{path}{side}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}{side}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("sqlite://{}/no/such/folder.db", folder.path().display());
    let refused = Db::connect(&missing).await.unwrap_err();
    assert!(matches!(&refused, StoreError::File { path, .. } if path.ends_with("no/such/folder.db")), "{refused:?}");
}
