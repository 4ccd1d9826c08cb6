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

/// A write that ends as it is told: by a statement that cannot be read, by an error without any statement, or well.
#[derive(Clone, Copy)]
enum Ends {
    Well(i64),
    Unread,
    WithoutStatement,
}

fn ends<'t>(tx: &'t mut Tx<'_>, how: Ends) -> BoxFuture<'t, Result<u64, StoreError>> {
    Box::pin(async move {
        match how {
            Ends::WithoutStatement => Err(StoreError::Busy),
            Ends::Unread => sql("failing", "SELECT nothing FROM nowhere").all(tx).await.map(|_| 0),
            Ends::Well(id) => {
                // Which is the first statement, and counts its own rows alone.
                let insert = "INSERT INTO servers (id, beat_at, expires_at) VALUES ($1, 0, 0), ($1 || 'b', 0, 0)";
                sql("inserting", insert).bind(id.to_string()).execute(tx).await
            }
        }
    })
}

#[tokio::test]
async fn in_one_transaction_those_that_fail_take_nothing_of_the_others_along() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::connect(&format!("sqlite://{}/t.db", folder.path().display())).await.unwrap();
    db.migrate().await.unwrap();
    let write = |how: Ends| db.write(WriteClass::Scheduling, move |tx| ends(tx, how));
    for round in 0..3 {
        let id = |n: i64| Ends::Well(10 * round + n);
        // All wait before the writer looks: this test has one thread.
        let (unread, one, idle, two, again, three) = tokio::join!(
            write(Ends::Unread),
            write(id(1)),
            write(Ends::WithoutStatement),
            write(id(2)),
            write(Ends::Unread),
            write(id(3)),
        );
        for failed in [unread, again] {
            assert!(matches!(failed, Err(StoreError::Database { doing: "failing", .. })), "{failed:?}");
        }
        assert!(matches!(idle, Err(StoreError::Busy)), "{idle:?}");
        for kept in [one, two, three] {
            assert_eq!(kept.unwrap(), 2);
        }
        assert_eq!(servers(&db).await, 6 * (round + 1));
    }
}
