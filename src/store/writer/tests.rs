//! A commit that fails.

use crate::store::query::sql;
use crate::store::{BoxFuture, Db, StoreError, Tx, WriteClass};

/// A row whose foreign key the database checks at the commit, or not.
fn row<'t>(tx: &'t mut Tx<'_>, id: i64, broken: bool) -> BoxFuture<'t, Result<(), StoreError>> {
    Box::pin(async move {
        if broken {
            sql("deferring", "PRAGMA defer_foreign_keys = ON").execute(tx).await?;
            let dangling = "INSERT INTO hosts (training_job_id, attempt, host, read_offset, non_finite) \
                            VALUES ('none', $1, 0, 0, 0)";
            sql("breaking", dangling).bind(id).execute(tx).await?;
        }
        let insert = "INSERT INTO servers (id, beat_at, expires_at) VALUES ($1, 0, 0)";
        sql("inserting", insert).bind(id.to_string()).execute(tx).await.map(|_| ())
    })
}

async fn servers(db: &Db) -> i64 {
    db.read::<_, StoreError, _>(|tx| {
        Box::pin(async move {
            let row = sql("counting", "SELECT count(*) FROM servers").optional(tx).await?;
            row.unwrap().reader("servers", "count").int()
        })
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn every_write_of_a_lost_commit_is_told_and_later_ones_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::connect(&format!("sqlite://{}/t.db", folder.path().display())).await.unwrap();
    db.migrate().await.unwrap();
    let write = |id: i64, broken: bool| db.write(WriteClass::Scheduling, move |tx| row(tx, id, broken));
    // All three wait before the writer looks: this test has one thread.
    let (one, two, three) = tokio::join!(write(1, false), write(2, true), write(3, false));
    let lost = |outcome: &Result<(), StoreError>| matches!(outcome, Err(StoreError::Commit { .. }));
    assert!(lost(&two), "{two:?}");
    // A slow machine may have committed the first one before, or run the last one after.
    let kept = [&one, &three].iter().filter(|outcome| outcome.is_ok()).count();
    assert!([&one, &three].iter().all(|outcome| outcome.is_ok() || lost(outcome)), "{one:?} {three:?}");
    assert_eq!(servers(&db).await, i64::try_from(kept).unwrap());
    write(4, false).await.unwrap();
    assert_eq!(servers(&db).await, i64::try_from(kept).unwrap() + 1);
}
