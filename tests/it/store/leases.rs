//! Leases and what fences a late writer; the secrets that servers share; one server to a SQLite file.

use tunesmith::store::rows::TuningJob;
use tunesmith::store::{Db, StoreError, servers, tuning_jobs};
use uuid::Uuid;

use super::fixtures::tuning_job;
use crate::support::db::TestDb;

store_suite! { [sqlite, postgres] {
    a_lease_passes_on_when_its_holder_is_gone,
    a_late_writer_is_refused,
    a_secret_is_chosen_once,
} }

const LONG: i64 = 3_600_000;

impl TestDb {
    async fn beat(&self, server: Uuid, ttl_ms: i64) {
        self.write(move |tx| Box::pin(servers::heartbeat(tx, server, ttl_ms))).await.unwrap();
    }

    async fn acquire(&self, job: Uuid, server: Uuid) -> Option<i64> {
        self.write(move |tx| Box::pin(tuning_jobs::acquire_lease(tx, job, server))).await.unwrap()
    }

    async fn update(&self, job: &TuningJob) -> Result<(), StoreError> {
        let job = job.clone();
        self.write(move |tx| {
            let job = job.clone();
            Box::pin(async move { tuning_jobs::update(tx, &job).await })
        })
        .await
    }
}

async fn a_lease_passes_on_when_its_holder_is_gone(db: TestDb) {
    let job = tuning_job("job");
    db.put(&job).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    db.beat(one, LONG).await;
    db.beat(two, LONG).await;
    assert_eq!(db.acquire(job.id, one).await, Some(1));
    assert_eq!(db.acquire(job.id, one).await, Some(1), "one's own lease");
    assert_eq!(db.acquire(job.id, two).await, None, "held by a live server");
    db.beat(one, -1).await;
    assert_eq!(db.acquire(job.id, two).await, Some(2), "the holder's heartbeat has expired");
    db.beat(one, LONG).await;
    assert_eq!(db.acquire(job.id, one).await, None);
    db.write(move |tx| Box::pin(servers::leave(tx, two))).await.unwrap();
    assert_eq!(db.acquire(job.id, one).await, Some(3), "the holder has taken leave");
    assert_eq!(db.acquire(Uuid::new_v4(), one).await, None, "no such job");
    let stored = db.tuning(job.id).await.unwrap();
    assert_eq!((stored.lease_owner, stored.lease_epoch), (Some(one), 3));
}

async fn a_late_writer_is_refused(db: TestDb) {
    let job = tuning_job("job");
    db.put(&job).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    db.acquire(job.id, one).await;
    let mut held = db.tuning(job.id).await.unwrap();
    held.observed = 1;
    db.update(&held).await.unwrap();
    // No heartbeat: two may take it.
    assert_eq!(db.acquire(job.id, two).await, Some(2));
    held.observed = 2;
    let refused = db.update(&held).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost { job: id }) if id == job.id), "{refused:?}");
    assert_eq!(db.tuning(job.id).await.unwrap().observed, 1);
}

async fn a_secret_is_chosen_once(db: TestDb) {
    let secret = |name: &'static str, candidate: &'static str| {
        db.write(move |tx| Box::pin(async move { servers::secret(tx, name, candidate).await }))
    };
    assert_eq!(secret("token", "first").await.unwrap(), "first");
    assert_eq!(secret("token", "second").await.unwrap(), "first");
    assert_eq!(secret("other", "third").await.unwrap(), "third");
}

#[tokio::test]
async fn a_sqlite_file_has_one_server() {
    let first = TestDb::sqlite().await;
    let second = Db::connect(&first.url).await.unwrap();
    first.db.lock_exclusive().unwrap();
    let refused = second.lock_exclusive();
    assert!(matches!(&refused, Err(StoreError::InUse { path }) if path.ends_with("tunesmith.db")), "{refused:?}");
    // Commands that only look are not refused.
    second.ping().await.unwrap();
    first.db.close().await;
    second.lock_exclusive().unwrap();
}

#[tokio::test]
async fn the_only_server_takes_leases_of_dead_ones_at_once() {
    let db = TestDb::sqlite().await;
    let job = tuning_job("job");
    db.put(&job).await;
    let (dead, alive) = (Uuid::new_v4(), Uuid::new_v4());
    db.beat(dead, LONG).await;
    assert_eq!(db.acquire(job.id, dead).await, Some(1));
    db.db.lock_exclusive().unwrap();
    assert_eq!(db.acquire(job.id, alive).await, Some(2));
}
