//! Attempts, their logs' index.

use tunesmith::domain::names::AttemptId;
use tunesmith::domain::status::{AttemptState, TrainingStatus};
use tunesmith::domain::time::Timestamp;
use tunesmith::store::rows::{Attempt, LogSegment};
use tunesmith::store::{attempts, logs, training_jobs};
use uuid::Uuid;

use super::fixtures::{attempt, exit, finished, training_job, tuning_job};
use crate::support::database::TestDb;

store_suite! { [sqlite, postgres] {
    an_attempt_ends_once,
    an_executor_sees_what_it_may_hold,
    the_latest_attempt_of_a_live_job_is_found,
    a_log_index_is_kept_in_order,
} }

async fn an_attempt_ends_once(db: TestDb) {
    let (job, id) = db.put_attempt("job").await;
    let ends = db
        .write(move |tx| {
            Box::pin(async move {
                attempts::request_stop(tx, &[id]).await?;
                let other = tunesmith::domain::outcome::Exit { ended_at: Timestamp(99), ..exit() };
                Ok((attempts::end(tx, &[(id, &exit())]).await?, attempts::end(tx, &[(id, &other)]).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(ends, (1, 0));
    let expected = Attempt { state: AttemptState::Ended, stop_requested: true, exit: Some(exit()), ..attempt(&job, 1) };
    let stored = db.read(move |tx| Box::pin(attempts::get(tx, id))).await.unwrap();
    assert_eq!(stored, Some(expected));
    let none = AttemptId { number: 2, ..id };
    assert_eq!(db.read(move |tx| Box::pin(attempts::get(tx, none))).await.unwrap(), None);
}

async fn an_executor_sees_what_it_may_hold(db: TestDb) {
    let mut ids = Vec::new();
    for n in 0..70 {
        ids.push(db.put_attempt(&format!("job-{n:02}")).await.1);
    }
    let gone = ids[..67].to_vec();
    let kept = ids[67..].to_vec();
    let (held, none) = db
        .write(move |tx| {
            let gone = gone.clone();
            Box::pin(async move {
                attempts::end(tx, &[(gone[0], &exit())]).await?;
                attempts::mark_removed(tx, &gone).await?;
                attempts::mark_removed(tx, &[AttemptId { training_job: Uuid::new_v4(), number: 1 }]).await?;
                Ok((attempts::of_executor(tx, "here").await?, attempts::of_executor(tx, "there").await?))
            })
        })
        .await
        .unwrap();
    let mut kept: Vec<AttemptId> = kept;
    kept.sort_by_key(|id| id.training_job.to_string());
    assert_eq!(held.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), kept);
    assert_eq!(none, []);
}

async fn the_latest_attempt_of_a_live_job_is_found(db: TestDb) {
    let tuning = tuning_job("tune");
    db.put(&tuning).await;
    let mut retried = training_job(Some(&tuning), 2, "retried");
    retried.attempts = 2;
    let mut stopping = training_job(Some(&tuning), 1, "stopping");
    stopping.status = TrainingStatus::Stopping;
    let over = finished(&training_job(Some(&tuning), 3, "over"));
    let waiting = training_job(Some(&tuning), 4, "waiting");
    db.put_training(&[retried.clone(), stopping.clone(), over.clone(), waiting.clone()]).await;
    let rows = [attempt(&retried, 1), attempt(&retried, 2), attempt(&stopping, 1), attempt(&over, 1)];
    let id = tuning.id;
    let live = db
        .write(move |tx| {
            let rows = rows.clone();
            Box::pin(async move {
                attempts::insert(tx, &rows).await?;
                training_jobs::live(tx, id).await
            })
        })
        .await
        .unwrap();
    let (first, latest) = (attempt(&stopping, 1), attempt(&retried, 2));
    assert_eq!(live, [(stopping, Some(first)), (retried, Some(latest)), (waiting, None)]);
}

async fn a_log_index_is_kept_in_order(db: TestDb) {
    let (_, id) = db.put_attempt("job").await;
    let segment = |n: u64| LogSegment {
        first_offset: n * 1000,
        first_time: Timestamp(1),
        bytes: 1000,
        object_key: format!("logs/{n}"),
    };
    let (first, second) = (vec![segment(3), segment(1)], (0..5).map(segment).collect::<Vec<_>>());
    let changed = LogSegment { object_key: "other".into(), ..segment(2) };
    let expected = second.clone();
    let stored = db
        .write(move |tx| {
            let (first, second, changed) = (first.clone(), second.clone(), changed.clone());
            Box::pin(async move {
                logs::add(tx, 0, &first.iter().map(|segment| (id, segment)).collect::<Vec<_>>()).await?;
                logs::add(tx, 0, &second.iter().map(|segment| (id, segment)).collect::<Vec<_>>()).await?;
                logs::add(tx, 0, &[(id, &changed)]).await?;
                logs::add(tx, 1, &[]).await?;
                logs::of_attempt(tx, id, 0).await
            })
        })
        .await
        .unwrap();
    assert_eq!(stored, expected);
}
