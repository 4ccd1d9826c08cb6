//! `tunesmith migrate`.

use std::process::Output;

use tunesmith::store::{Db, StoreError, WriteClass, servers};

use crate::support::database::{Engine, TestDb};
use crate::support::server::command;

fn migrate(database: &TestDb<()>, data_dir: &tempfile::TempDir) -> Output {
    command().args(["migrate", "--database-url", &database.url, "--data-dir"]).arg(data_dir.path()).output().unwrap()
}

/// Reads, or first writes, a text that only a migrated database can keep.
async fn keep(database: &TestDb<()>, text: &'static str) -> Result<String, StoreError> {
    let db = Db::connect(&database.url).await?;
    let kept = db.write(WriteClass::Scheduling, move |tx| {
        Box::pin(async move { servers::secret(tx, "of-the-test", text).await })
    });
    let kept = kept.await;
    db.close().await;
    kept
}

async fn an_empty_database_is_brought_up_to_date_once(engine: Engine) {
    let (database, data_dir) = (TestDb::empty(engine).await, tempfile::tempdir().unwrap());
    assert!(keep(&database, "too early").await.is_err());
    for time in ["first", "second"] {
        let output = migrate(&database, &data_dir);
        let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{errors}");
        assert!(shown.ends_with("is up to date\n") && errors.is_empty(), "{shown}{errors}");
        assert_eq!(keep(&database, time).await.unwrap(), "first", "what is in it stays");
    }
}

async fn a_database_of_a_later_program_is_left_alone(engine: Engine) {
    let (database, data_dir) = (TestDb::empty(engine).await, tempfile::tempdir().unwrap());
    assert!(migrate(&database, &data_dir).status.success());
    database.raw("UPDATE schema_migrations SET version = version + 1000").await.unwrap();
    let output = migrate(&database, &data_dir);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.starts_with("error: can't migrate the database") && errors.contains("1001"), "{errors}");
    assert!(output.stdout.is_empty());
    assert!(keep(&database, "kept").await.is_ok(), "nothing of it was changed");
}

#[tokio::test]
async fn on_sqlite() {
    an_empty_database_is_brought_up_to_date_once(Engine::Sqlite).await;
    a_database_of_a_later_program_is_left_alone(Engine::Sqlite).await;
}

#[tokio::test]
async fn on_postgres() {
    an_empty_database_is_brought_up_to_date_once(Engine::Postgres).await;
    a_database_of_a_later_program_is_left_alone(Engine::Postgres).await;
}
