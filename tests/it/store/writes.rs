//! What the two ways into a database promise.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tunesmith::store::failpoint::Moment;
use tunesmith::store::rows::{ListQuery, TuningJob};
use tunesmith::store::tuning_jobs::New;
use tunesmith::store::{BoxFuture, Db, StoreError, Tx, WriteClass, attempts, servers, tuning_jobs};
use uuid::Uuid;

use super::fixtures::{CONFIG, REQUEST, definition, scope, tuning_job};
use crate::support::database::TestDb;

store_suite! { [sqlite, postgres] {
    an_error_rolls_back_its_own_write_alone,
    a_panic_rolls_back_its_own_write_alone,
    a_read_sees_one_snapshot_and_writes_nothing,
    a_write_fails_where_a_test_wants_it_to,
    writes_at_once_lose_nothing,
    commits_are_counted,
    a_closed_database_says_so,
    api_calls_leave_connections_to_the_scheduler,
} }

/// Stores a job and its definition.
async fn insert(tx: &mut Tx<'_>, job: &TuningJob) -> Result<(), StoreError> {
    let new = New { job, request: REQUEST, config: CONFIG, definition: &definition(job.id) };
    tuning_jobs::insert(tx, &[new], u32::MAX).await?.pop().unwrap()
}

async fn count(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let query = ListQuery { limit: 1000, ..ListQuery::default() };
    Ok(tuning_jobs::list(tx, &scope(), &query).await?.items.len())
}

impl TestDb {
    async fn count(&self) -> usize {
        self.read(|tx| Box::pin(count(tx))).await.unwrap()
    }

    async fn insert_then<T: Send + 'static>(
        &self,
        name: &str,
        then: impl Fn() -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let job = tuning_job(name);
        let then = Arc::new(then);
        self.write(move |tx| {
            let (job, then) = (job.clone(), Arc::clone(&then));
            Box::pin(async move {
                insert(tx, &job).await?;
                then()
            })
        })
        .await
    }
}

async fn commits_are_counted(db: TestDb) {
    let before = db.db.commits();
    db.insert_then("one", || Ok(())).await.unwrap();
    db.insert_then("two", || Ok(())).await.unwrap();
    assert_eq!(db.db.commits() - before, 2);
    db.insert_then("none", || Err::<(), _>(StoreError::Busy)).await.unwrap_err();
    assert_eq!(db.count().await, 2);
    assert_eq!(db.db.commits() - before, 2, "neither a rollback nor a read commits");
}

async fn an_error_rolls_back_its_own_write_alone(db: TestDb) {
    let (good, bad, also_good) = tokio::join!(
        db.insert_then("good", || Ok(1)),
        db.insert_then::<i32>("bad", || Err(StoreError::Busy)),
        db.insert_then("also-good", || Ok(2)),
    );
    assert_eq!((good.unwrap(), also_good.unwrap()), (1, 2));
    assert!(matches!(bad, Err(StoreError::Busy)));
    assert_eq!(db.count().await, 2);
}

async fn a_panic_rolls_back_its_own_write_alone(db: TestDb) {
    let db = Arc::new(db);
    let panics = Arc::clone(&db);
    let outcome =
        tokio::spawn(async move { panics.insert_then::<()>("bad", || unreachable!("on purpose")).await }).await;
    // On Postgres it is the caller's own task that panics.
    assert!(matches!(outcome, Err(_) | Ok(Err(StoreError::Panicked))), "{outcome:?}");
    db.insert_then("good", || Ok(())).await.unwrap();
    assert_eq!(db.count().await, 1);
}

async fn a_read_sees_one_snapshot_and_writes_nothing(db: TestDb) {
    let (looked, has_looked) = oneshot::channel();
    let (written, has_written) = oneshot::channel::<()>();
    let read = db.read(move |tx| {
        Box::pin(async move {
            let before = count(tx).await?;
            looked.send(()).unwrap();
            has_written.await.unwrap();
            Ok((before, count(tx).await?))
        })
    });
    let write = async {
        has_looked.await.unwrap();
        db.insert_then("job", || Ok(())).await.unwrap();
        written.send(()).unwrap();
    };
    let (seen, ()) = tokio::join!(read, write);
    assert_eq!(seen.unwrap(), (0, 0));
    assert_eq!(db.count().await, 1);
    let job = tuning_job("other");
    let refused = db.read(move |tx| Box::pin(async move { insert(tx, &job).await })).await;
    assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
    assert_eq!(db.count().await, 1);
}

async fn a_write_fails_where_a_test_wants_it_to(db: TestDb) {
    db.db.fail_write(2, Moment::BeforeCommit);
    db.db.fail_write(3, Moment::AfterCommit);
    let mut outcomes = Vec::new();
    for name in ["one", "two", "three", "four"] {
        outcomes.push(db.insert_then(name, || Ok(())).await.is_ok());
    }
    assert_eq!(outcomes, [true, false, false, true]);
    let names = db.read(|tx| {
        Box::pin(async move {
            let query = ListQuery { limit: 10, ..ListQuery::default() };
            Ok(tuning_jobs::list(tx, &scope(), &query).await?.items.into_iter().map(|job| job.name).collect::<Vec<_>>())
        })
    });
    assert_eq!(names.await.unwrap(), ["four", "one", "three"]);
}

async fn writes_at_once_lose_nothing(db: TestDb) {
    let job = TuningJob { max_jobs: 1000, ..tuning_job("job") };
    db.put(&job).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (db, id) = (db.db.clone(), job.id);
        tasks.spawn(async move {
            db.write(WriteClass::Scheduling, move |tx| {
                Box::pin(async move {
                    let mut job = tuning_jobs::lock(tx, id).await?.unwrap();
                    job.inserted += 1;
                    tuning_jobs::update(tx, &job).await
                }) as BoxFuture<'_, Result<(), StoreError>>
            })
            .await
        });
    }
    for outcome in tasks.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(db.tuning(job.id).await.unwrap().inserted, 60);
}

async fn a_closed_database_says_so(db: TestDb) {
    db.db.ping().await.unwrap();
    db.db.close().await;
    assert!(matches!(db.insert_then("job", || Ok(())).await, Err(StoreError::Closed)));
    assert!(matches!(db.db.ping().await, Err(StoreError::Closed)));
}

async fn api_calls_leave_connections_to_the_scheduler(db: TestDb) {
    let job = tuning_job("job");
    db.put(&job).await;
    let gate = Arc::new(Semaphore::new(0));
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (db, gate) = (db.db.clone(), Arc::clone(&gate));
        let mut read = Box::pin(async move {
            db.read(|_tx| {
                Box::pin(async move {
                    let _ = gate.acquire().await;
                    Ok::<_, StoreError>(())
                })
            })
            .await
        });
        // It has a connection, or waits for one before all that comes later.
        assert!(poll_once(read.as_mut()).await.is_none());
        flood.spawn(read);
    }
    let within = Duration::from_secs(3);
    let beat = db.write(|tx| Box::pin(servers::heartbeat(tx, Uuid::new_v4(), 1000)));
    tokio::time::timeout(within, beat).await.expect("a heartbeat does not wait for API calls").unwrap();
    let append = db.db.write(WriteClass::Metrics, |tx| Box::pin(attempts::mark_removed(tx, &[])));
    tokio::time::timeout(within, append).await.expect("metrics do not wait for API calls").unwrap();
    let read = db.db.read_for_scheduling(move |tx| Box::pin(tuning_jobs::get(tx, job.id)));
    assert!(tokio::time::timeout(within, read).await.expect("the scheduler can read").unwrap().is_some());
    gate.close();
    flood.shutdown().await;
}

/// A write that tells when it runs, and goes on when it is let.
async fn held(db: Db, running: mpsc::UnboundedSender<()>, gate: Arc<Semaphore>) -> Result<(), StoreError> {
    db.write(WriteClass::Scheduling, move |_tx| {
        let (running, gate) = (running.clone(), Arc::clone(&gate));
        Box::pin(async move {
            running.send(()).unwrap();
            let _ = gate.acquire().await.unwrap();
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn writes_that_wait_share_a_commit() {
    let db = TestDb::sqlite().await;
    let (running, mut runs) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    // Both wait before the writer looks: this test has one thread. It repeats the try because a slow machine may commit
    // between them.
    for n in 1..=50 {
        let name = format!("job-{n}");
        let insert = db.insert_then(&name, || Ok(()));
        tokio::pin!(insert);
        assert!(poll_once(insert.as_mut()).await.is_none());
        let holder = tokio::spawn(held(db.db.clone(), running.clone(), Arc::clone(&gate)));
        runs.recv().await.unwrap();
        // The insert has run and its answer waits for the commit, which waits for the second write.
        let shared = poll_once(insert.as_mut()).await.is_none() && db.count().await == n - 1;
        gate.add_permits(1);
        holder.await.unwrap().unwrap();
        gate.forget_permits(1);
        if shared {
            insert.await.unwrap();
            assert_eq!(db.count().await, n);
            return;
        }
    }
    panic!("no two writes shared a commit");
}

async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_full_queue_refuses_api_writes_and_lets_the_other_classes_through() {
    let db = TestDb::sqlite().await;
    let (running, mut runs) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let holder = tokio::spawn(held(db.db.clone(), running, Arc::clone(&gate)));
    runs.recv().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let write = |class: WriteClass| {
        let (db, order) = (db.db.clone(), Arc::clone(&order));
        async move {
            db.write(class, move |tx| {
                let order = Arc::clone(&order);
                Box::pin(async move {
                    order.lock().unwrap().push(class);
                    servers::leave(tx, Uuid::new_v4()).await
                }) as BoxFuture<'_, Result<(), StoreError>>
            })
            .await
        }
    };
    let metrics = tokio::spawn(write(WriteClass::Metrics));
    let mut accepted = tokio::task::JoinSet::new();
    for _ in 0..300 {
        accepted.spawn(write(WriteClass::Api));
    }
    // The refused ones answer while the writer is held.
    for _ in 0..300 - 256 {
        let refused = accepted.join_next().await.unwrap().unwrap();
        assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    }
    let scheduling = tokio::spawn(write(WriteClass::Scheduling));
    tokio::task::yield_now().await;
    gate.add_permits(1);
    holder.await.unwrap().unwrap();
    scheduling.await.unwrap().unwrap();
    metrics.await.unwrap().unwrap();
    for outcome in accepted.join_all().await {
        outcome.unwrap();
    }
    let order = order.lock().unwrap();
    // Neither waits for more than one write of each other class.
    let first = &order[..3];
    assert!(first.contains(&WriteClass::Scheduling) && first.contains(&WriteClass::Metrics), "{first:?}");
    assert_eq!(order.len(), 258);
}

#[tokio::test]
async fn writes_that_deadlock_are_run_again() {
    let db = TestDb::postgres().await;
    let (one, two) = (tuning_job("one"), tuning_job("two"));
    db.put(&one).await;
    db.put(&two).await;
    let both_hold_one = Arc::new(tokio::sync::Barrier::new(2));
    let locks_both = |first: Uuid, second: Uuid| {
        let barrier = Arc::clone(&both_hold_one);
        let mut tries = 0;
        db.write(move |tx| {
            tries += 1;
            let (tries, barrier) = (tries, Arc::clone(&barrier));
            Box::pin(async move {
                tuning_jobs::lock(tx, first).await?;
                if tries == 1 {
                    barrier.wait().await;
                }
                tuning_jobs::lock(tx, second).await?;
                Ok(tries)
            })
        })
    };
    let (forth, back) = tokio::join!(locks_both(one.id, two.id), locks_both(two.id, one.id));
    let mut tries = [forth.unwrap(), back.unwrap()];
    tries.sort_unstable();
    assert_eq!(tries, [1, 2], "the one that was in the way is run again");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_on() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://user@{}/x", silent.local_addr().unwrap());
    let refused = Db::connect(&url).await;
    assert!(matches!(refused, Err(StoreError::Database { doing: "connecting", .. })), "{refused:?}");
}
