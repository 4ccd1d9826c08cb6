//! Tuning jobs, training jobs, definitions and tags as rows.

use std::collections::BTreeSet;

use tunesmith::domain::names::Scope;
use tunesmith::domain::request::Tag;
use tunesmith::domain::status::{TrainingStatus, TuningStatus};
use tunesmith::domain::time::Timestamp;
use tunesmith::store::rows::{
    Definition, ObjectiveCounters, TrainingCounters, TrainingJob, TuningJob, TuningJobDescription,
};
use tunesmith::store::tuning_jobs::New;
use tunesmith::store::{
    StoreError, Tx, WriteClass, attempts, definitions, logs, metrics, tags, training_jobs, tuning_jobs,
};
use uuid::Uuid;

use super::fixtures::{CONFIG, REQUEST, attempt, definition, finished, scope, training_job, tuning_job};
use crate::support::database::TestDb;

store_suite! { [sqlite, postgres] {
    a_tuning_job_comes_back_as_it_was_stored,
    an_update_writes_every_mutable_column,
    names_are_unique_in_a_scope_in_any_case,
    a_training_job_comes_back_as_it_was_stored,
    training_jobs_are_read_by_tuning_job,
    an_ordinal_is_used_once,
    a_deleted_tuning_job_leaves_its_training_jobs,
    a_deleted_training_job_takes_all_of_it_along,
    unfinished_jobs_are_found_and_counted,
    racing_inserts_stay_within_the_quota,
    of_jobs_inserted_together_each_is_judged_alone,
    a_job_is_found_with_its_definition,
    tags_are_set_replaced_removed_and_listed,
    nul_characters_do_not_stop_a_write,
} }

async fn a_tuning_job_comes_back_as_it_was_stored(db: TestDb) {
    let job = tuning_job("My-Job");
    db.put(&job).await;
    assert_eq!(db.tuning(job.id).await, Some(job.clone()));
    let (found, missing, elsewhere, kept) = db
        .read({
            let definition_id = job.id;
            move |tx| {
                Box::pin(async move {
                    let far = Scope { region: "eu-west-1".into(), ..scope() };
                    Ok((
                        tuning_jobs::find(tx, &scope(), "mY-jOB").await?,
                        tuning_jobs::find(tx, &scope(), "my-job-").await?,
                        tuning_jobs::find(tx, &far, "my-job").await?,
                        definitions::get(tx, definition_id).await?,
                    ))
                })
            }
        })
        .await
        .unwrap();
    assert_eq!((found, missing, elsewhere), (Some(job.clone()), None, None));
    assert_eq!(kept, Some(definition(job.id)));
    let request = db.read(move |tx| Box::pin(tuning_jobs::request(tx, job.id))).await.unwrap();
    assert_eq!(request.as_deref(), Some(REQUEST));
    let locked = db.write(move |tx| Box::pin(tuning_jobs::lock(tx, job.id))).await.unwrap();
    assert_eq!(locked, Some(job));
}

async fn an_update_writes_every_mutable_column(db: TestDb) {
    let job = tuning_job("job");
    db.put(&job).await;
    let changed = TuningJob {
        status: TuningStatus::Stopping,
        modified_at: Timestamp(3),
        ended_at: Some(Timestamp(4)),
        stop_requested_at: Some(Timestamp(5)),
        failure_reason: Some("why".into()),
        counters: TrainingCounters {
            completed: 1,
            in_progress: 2,
            retryable_error: 3,
            non_retryable_error: 4,
            stopped: 5,
        },
        objective: ObjectiveCounters { succeeded: 6, pending: 7, failed: 8 },
        best: Some((Uuid::new_v4(), f64::MIN_POSITIVE)),
        observed: 9,
        inserted: 10,
        not_improving: 11,
        exhausted: true,
        ..job
    };
    let update = changed.clone();
    db.write(move |tx| {
        let update = update.clone();
        Box::pin(async move { tuning_jobs::update(tx, &update).await })
    })
    .await
    .unwrap();
    assert_eq!(db.tuning(changed.id).await, Some(changed));
}

async fn names_are_unique_in_a_scope_in_any_case(db: TestDb) {
    let first = tuning_job("Same");
    db.put(&first).await;
    let again = tuning_job("sAME");
    let elsewhere = Scope { region: "eu-west-1".into(), ..scope() };
    db.put(&TuningJob { scope: elsewhere, ..tuning_job("same") }).await;
    // A name that is taken is what the user has to know, whatever the quota.
    for quota in [u32::MAX, 1] {
        let (again, definition) = (again.clone(), again.id);
        let taken = db.write(move |tx| Box::pin(insert(tx, again.clone(), quota))).await;
        assert!(matches!(taken, Err(StoreError::NameTaken { name }) if name == "sAME"));
        assert_eq!(db.read(move |tx| Box::pin(definitions::get(tx, definition))).await.unwrap(), None);
    }

    let one = training_job(Some(&first), 1, "Child");
    let two = training_job(Some(&first), 2, "cHILD");
    db.put_training(std::slice::from_ref(&one)).await;
    let other = TrainingJob { name: "child-2".into(), ..two.clone() };
    let kept = other.clone();
    let (taken, free) = db
        .write(move |tx| {
            let (two, other) = (two.clone(), other.clone());
            Box::pin(async move {
                // The transaction goes on: another name may do.
                Ok((training_jobs::insert(tx, &[two]).await?, training_jobs::insert(tx, &[other]).await?))
            })
        })
        .await
        .unwrap();
    assert!(taken.is_empty(), "{taken:?}");
    assert!(free.contains(&kept.id), "{free:?}");
    let (mut wanted, unknown) = (vec![one.clone(), kept.clone()], uuid::Uuid::new_v4());
    let ids = [unknown, one.id, kept.id];
    let mut read = db.read(move |tx| Box::pin(async move { training_jobs::get_all(tx, &ids).await })).await.unwrap();
    for jobs in [&mut wanted, &mut read] {
        jobs.sort_by_key(|job| job.id);
    }
    assert_eq!(read, wanted);
}

async fn a_training_job_comes_back_as_it_was_stored(db: TestDb) {
    let tuning = tuning_job("tune");
    db.put(&tuning).await;
    let job = training_job(Some(&tuning), 1, "Tune-001");
    let alone = training_job(None, 1, "alone");
    db.put_training(&[job.clone(), alone.clone()]).await;
    assert_eq!(db.training(job.id).await, Some(job.clone()));
    assert_eq!(db.training(alone.id).await, Some(alone));
    let found = db.read(|tx| Box::pin(async move { training_jobs::find(tx, &scope(), "tUNE-001").await })).await;
    assert_eq!(found.unwrap(), Some(job.clone()));
    let end = finished(&job);
    let (update, id) = (end.clone(), job.id);
    let locked = db
        .write(move |tx| {
            let update = update.clone();
            Box::pin(async move {
                let locked = training_jobs::lock(tx, id).await?;
                training_jobs::update(tx, &[&update]).await?;
                Ok(locked)
            })
        })
        .await
        .unwrap();
    assert_eq!(locked, Some(job));
    assert_eq!(db.training(id).await, Some(end));
}

async fn training_jobs_are_read_by_tuning_job(db: TestDb) {
    let (tuning, other) = (tuning_job("tune"), tuning_job("other"));
    db.put(&tuning).await;
    db.put(&other).await;
    let mut jobs: Vec<_> = (1..=3).map(|n| training_job(Some(&tuning), n, &format!("tune-{n}"))).collect();
    jobs[1] = finished(&jobs[1]);
    jobs[2].status = TrainingStatus::Stopping;
    db.put_training(&[jobs[2].clone(), jobs[1].clone(), jobs[0].clone(), training_job(Some(&other), 1, "o")]).await;
    let id = tuning.id;
    let (live, history) = db
        .read(move |tx| {
            Box::pin(async move { Ok((training_jobs::live(tx, id).await?, training_jobs::history(tx, id).await?)) })
        })
        .await
        .unwrap();
    assert_eq!(live, [(jobs[0].clone(), None), (jobs[2].clone(), None)]);
    assert_eq!(history, jobs);
}

async fn an_ordinal_is_used_once(db: TestDb) {
    let tuning = tuning_job("tune");
    db.put(&tuning).await;
    db.put_training(&[training_job(Some(&tuning), 1, "one")]).await;
    let twin = training_job(Some(&tuning), 1, "two");
    let refused = db
        .write(move |tx| {
            let twin = twin.clone();
            Box::pin(async move { training_jobs::insert(tx, &[twin]).await })
        })
        .await;
    assert!(matches!(refused, Err(StoreError::Database { .. })), "{refused:?}");
}

async fn a_deleted_tuning_job_leaves_its_training_jobs(db: TestDb) {
    let (tuning, childless) = (tuning_job("Tune"), tuning_job("childless"));
    db.put(&tuning).await;
    db.put(&childless).await;
    let job = finished(&training_job(Some(&tuning), 1, "tune-001"));
    db.put_training(std::slice::from_ref(&job)).await;
    let (ids, arn) = ([tuning.id, childless.id, tuning.id], scope().tuning_job_arn("Tune"));
    let left = db
        .write(move |tx| {
            let arn = arn.clone();
            Box::pin(async move {
                tags::set(tx, &arn, &[Tag { key: "k".into(), value: "v".into() }]).await?;
                for id in ids {
                    tuning_jobs::delete(tx, id).await?;
                }
                tags::list(tx, &arn).await
            })
        })
        .await
        .unwrap();
    assert_eq!(left, []);
    assert_eq!((db.tuning(tuning.id).await, db.tuning(childless.id).await), (None, None));
    assert_eq!(db.training(job.id).await, Some(job.clone()));
    let (used, unused) = (tuning.id, childless.id);
    let read = |id| db.read(move |tx| Box::pin(definitions::get(tx, id)));
    assert!(read(used).await.unwrap().is_some());
    assert!(read(unused).await.unwrap().is_none());
    // The name is free, and a job of that name gets training jobs of its own.
    db.put(&tuning_job("tune")).await;
    db.write(move |tx| Box::pin(training_jobs::delete(tx, job.id))).await.unwrap();
    assert!(read(used).await.unwrap().is_none());
}

async fn a_deleted_training_job_takes_all_of_it_along(db: TestDb) {
    use tunesmith::store::rows::{LogSegment, MetricPoint, ReadPosition};
    let (job, first) = db.put_attempt("Job").await;
    let arn = scope().training_job_arn("Job");
    let point = MetricPoint { offset: 1, nth: 0, definition: 0, time: Timestamp(1), value: 1.0 };
    let id = job.id;
    let left = db
        .write(move |tx| {
            let arn = arn.clone();
            Box::pin(async move {
                tags::set(tx, &arn, &[Tag { key: "k".into(), value: "v".into() }]).await?;
                metrics::append(tx, first, 0, &[point], ReadPosition { offset: 9, non_finite: 0 }).await?;
                let segment =
                    LogSegment { first_offset: 0, first_time: Timestamp(1), bytes: 9, object_key: "k".into() };
                logs::add(tx, 0, &[(first, &segment)]).await?;
                training_jobs::delete(tx, id).await?;
                training_jobs::delete(tx, id).await?;
                Ok((
                    tags::list(tx, &arn).await?.len(),
                    metrics::curve(tx, id, 0).await?.len(),
                    logs::of_attempt(tx, first, 0).await?.len(),
                    attempts::get(tx, first).await?,
                ))
            })
        })
        .await
        .unwrap();
    assert_eq!(left, (0, 0, 0, None));
    assert_eq!(db.training(id).await, None);
    let again = training_job(None, 1, "job");
    db.put_training(std::slice::from_ref(&again)).await;
    let next = attempt(&again, 1);
    db.write(move |tx| {
        let next = next.clone();
        Box::pin(async move { attempts::insert(tx, &[next]).await })
    })
    .await
    .unwrap();
}

/// Inserts a job where the quota allows it.
async fn insert(tx: &mut Tx<'_>, job: TuningJob, quota: u32) -> Result<(), StoreError> {
    let new = New { job: &job, request: REQUEST, config: CONFIG, definition: &definition(job.id) };
    tuning_jobs::insert(tx, &[new], quota).await?.pop().unwrap()
}

async fn unfinished_jobs_are_found_and_counted(db: TestDb) {
    let mut expected = Vec::new();
    for (n, status) in TuningStatus::ALL.iter().enumerate() {
        let at = Timestamp(1000 - i64::try_from(n).unwrap());
        let job = TuningJob { status: *status, created_at: at, ..tuning_job(&format!("job-{status}")) };
        db.put(&job).await;
        if !status.is_terminal() {
            expected.push(job.id);
        }
    }
    expected.reverse();
    assert_eq!(db.read(|tx| Box::pin(tuning_jobs::unfinished(tx))).await.unwrap(), expected);
    let unfinished = u32::try_from(expected.len()).unwrap();
    let refused = db.write(move |tx| Box::pin(insert(tx, tuning_job("more"), unfinished))).await;
    assert!(matches!(refused, Err(StoreError::QuotaUsed { used }) if used == unfinished), "{refused:?}");
    let far = Scope { account: "111111111111".into(), ..scope() };
    let elsewhere = TuningJob { scope: far, ..tuning_job("more") };
    db.write(move |tx| Box::pin(insert(tx, elsewhere.clone(), 1))).await.unwrap();
    db.write(move |tx| Box::pin(insert(tx, tuning_job("more"), unfinished + 1))).await.unwrap();
}

async fn racing_inserts_stay_within_the_quota(db: TestDb) {
    // Far from the quota at first, then near it.
    const QUOTA: u32 = 45;
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..70 {
        let (db, job) = (db.db.clone(), tuning_job(&format!("job-{n}")));
        writes.spawn(async move {
            let lock = BTreeSet::from([tuning_jobs::scope_lock(&job.scope)]);
            db.write_holding(&lock, WriteClass::Api, move |tx| Box::pin(insert(tx, job.clone(), QUOTA))).await
        });
    }
    let (inserted, refused): (Vec<_>, Vec<_>) = writes.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(inserted.len(), 45);
    let full = |outcome: &Result<(), StoreError>| matches!(outcome, Err(StoreError::QuotaUsed { used: QUOTA }));
    assert!(refused.iter().all(full), "{refused:?}");
}

async fn of_jobs_inserted_together_each_is_judged_alone(db: TestDb) {
    const QUOTA: u32 = 3;
    db.put(&tuning_job("taken")).await;
    let far = Scope { account: "111111111111".into(), ..scope() };
    // In the first scope two may still come in: `twice` and one of the last, however many stand before them in vain.
    let mut jobs: Vec<TuningJob> = ["Taken", "twice", "TWICE", "taken", "last", "more"].map(tuning_job).into();
    jobs.insert(3, TuningJob { scope: far, ..tuning_job("taken") });
    let stored = jobs.clone();
    let outcomes = db
        .write(move |tx| {
            let jobs = jobs.clone();
            Box::pin(async move {
                let definitions: Vec<Definition> = jobs.iter().map(|job| definition(job.id)).collect();
                let new: Vec<New<'_>> = jobs
                    .iter()
                    .zip(&definitions)
                    .map(|(job, definition)| New { job, request: REQUEST, config: CONFIG, definition })
                    .collect();
                tuning_jobs::insert(tx, &new, QUOTA).await
            })
        })
        .await
        .unwrap();
    let mut said: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(()) => "in",
            Err(StoreError::NameTaken { .. }) => "taken",
            Err(StoreError::QuotaUsed { used: QUOTA }) => "quota",
            Err(other) => unreachable!("{other:?}"),
        })
        .collect();
    said[5..].sort_unstable();
    assert_eq!(said, ["taken", "in", "taken", "in", "taken", "in", "quota"]);
    for (job, outcome) in stored.into_iter().zip(outcomes) {
        assert_eq!(db.tuning(job.id).await.is_some(), outcome.is_ok(), "{}", job.name);
        let kept = db.read(move |tx| Box::pin(definitions::get(tx, job.id))).await.unwrap();
        assert_eq!(kept.is_some(), outcome.is_ok(), "the definition of {}", job.name);
    }
}

async fn a_job_is_found_with_its_definition(db: TestDb) {
    let tuning = tuning_job("Tune");
    db.put(&tuning).await;
    let job = training_job(Some(&tuning), 1, "Tune-001");
    db.put_training(std::slice::from_ref(&job)).await;
    let found = |name: &'static str| {
        db.db.glance(move |tx| Box::pin(async move { tuning_jobs::describe(tx, &scope(), name).await }))
    };
    let Definition { tuning_job_name, document, objective, .. } = definition(tuning.id);
    let description = TuningJobDescription {
        summary: tuning.summary(),
        failure_reason: tuning.failure_reason.clone(),
        best: tuning.best.map(|(id, _)| id),
        not_improving: tuning.not_improving,
        config: CONFIG.into(),
        tuning_job_name,
        document,
        objective,
    };
    assert_eq!(found("tUNE").await.unwrap(), Some(description));
    assert_eq!(found("tune-").await.unwrap(), None);
    let found = |name: &'static str| {
        db.db.glance_for_scheduling(move |tx| {
            Box::pin(async move { training_jobs::find_with_definition(tx, &scope(), name).await })
        })
    };
    let definition = definition(job.definition_id);
    assert_eq!(found("tune-001").await.unwrap(), Some((job, definition)));
    assert_eq!(found("tune").await.unwrap(), None);
}

async fn tags_are_set_replaced_removed_and_listed(db: TestDb) {
    let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
    let many: Vec<Tag> = (0..50).map(|n| tag(&format!("k{n:02}"), "")).collect();
    let all = many.clone();
    let (few, full) = db
        .write(move |tx| {
            let all = all.clone();
            Box::pin(async move {
                tags::set(tx, "a", &[tag("b", "1"), tag("B", "2"), tag("a", "3"), tag("b", "4")]).await?;
                tags::set(tx, "a", &[tag("a", "5")]).await?;
                tags::remove(tx, "a", &["B".into(), "none".into()]).await?;
                tags::set(tx, "full", &all).await?;
                tags::set(tx, "full", &all).await?;
                Ok((tags::list(tx, "a").await?, tags::list(tx, "full").await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(few, [tag("a", "5"), tag("b", "4")]);
    assert_eq!(full, many);
}

async fn nul_characters_do_not_stop_a_write(db: TestDb) {
    let (job, _) = db.put_attempt("job").await;
    let mut end = finished(&job);
    end.failure_reason = Some("before\0after".into());
    let (update, id) = (end.clone(), job.id);
    db.write(move |tx| {
        let update = update.clone();
        Box::pin(async move { training_jobs::update(tx, &[&update]).await })
    })
    .await
    .unwrap();
    let reason = db.training(id).await.unwrap().failure_reason;
    assert_eq!(reason.as_deref(), Some("before\u{fffd}after"));
}
