//! What a tuning job does when something around its training jobs fails: their data, the object store, the database.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tunesmith::domain::status::{SecondaryStatus, TrainingStatus, TuningStatus};
use tunesmith::executor::Executor;
use tunesmith::store::rows::MetricPoint;
use tunesmith::store::{BoxFuture, StoreError, metrics};

use super::world::{World, loss_is_x, request};
use crate::support::database::Engine;

const STEP: Duration = Duration::from_millis(40);

async fn a_channel_without_objects_fails_the_job_by_name(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    std::fs::create_dir_all(world.bucket("data/train/day-1")).unwrap();
    let mut unfed = request("unfed", 1, 1);
    unfed["TrainingJobDefinition"]["InputDataConfig"] = json!([{
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/train/"}}
    }]);
    world.create(&unfed).await;
    let job = world.finish("unfed", STEP).await;
    assert_eq!((job.status, job.counters.non_retryable_error), (TuningStatus::Failed, 1));
    let reason = world.training_jobs("unfed").await[0].failure_reason.clone().unwrap();
    assert!(
        reason.starts_with("ClientError: the channel train ") && reason.contains("\"s3://data/train/\""),
        "{reason}"
    );
    assert_eq!(world.sim.starts().len(), 0, "nothing trains on nothing");
}

async fn a_flood_of_points_is_stored_whole(engine: Engine) {
    let line = |n: u32| (0..10).map(|metric| format!("m{metric}={n}")).collect::<Vec<_>>().join(" ");
    let world = World::new(engine, move |spec| {
        let mut script = loss_is_x(spec).lasting(0);
        script.lines.extend((0..900).map(|n| (0, line(n))));
        script
    })
    .await;
    let mut flood = request("flood", 1, 1);
    let metrics = &mut flood["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"];
    metrics
        .as_array_mut()
        .unwrap()
        .extend((0..10).map(|metric| json!({"Name": format!("m{metric}"), "Regex": format!("m{metric}=(\\S+)")})));
    world.create(&flood).await;
    let job = world.finish("flood", STEP).await;
    assert_eq!(job.counters.completed, 1);
    let id = world.training_jobs("flood").await[0].id;
    for definition in 1..=10 {
        let read = world.app.db.read(move |tx| Box::pin(metrics::curve(tx, id, definition)) as BoxFuture<'_, _>);
        let curve: Result<Vec<MetricPoint>, StoreError> = read.await;
        let values: Vec<f64> = curve.unwrap().iter().map(|point| point.value).collect();
        assert_eq!(values, (0..900).map(f64::from).collect::<Vec<_>>(), "of metric {definition}");
    }
}

async fn what_a_power_failure_took_whole_is_not_started_again(engine: Engine) {
    let mut world =
        World::new(engine, |spec| loss_is_x(spec).lasting(if spec.id.number == 1 { 3_600_000 } else { 50 })).await;
    let mut retried = request("retried", 1, 1);
    retried["TrainingJobDefinition"]["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    world.create(&retried).await;
    world.create(&request("unretried", 1, 1)).await;
    for name in ["retried", "unretried"] {
        world
            .until("the rows show that it began", async || {
                world.training_jobs(name).await.first().is_some_and(|job| job.started_at.is_some())
            })
            .await;
    }
    world.stop().await;
    for spec in world.sim.starts() {
        world.sim.remove(spec.id).await.unwrap();
    }
    world.start();
    let job = world.finish("retried", STEP).await;
    assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 1));
    let job = world.finish("unretried", STEP).await;
    assert_eq!((job.status, job.counters.retryable_error), (TuningStatus::Failed, 1));
    let mut started: Vec<_> = world.sim.starts().iter().map(|spec| spec.id).collect();
    started.sort_unstable();
    started.dedup();
    assert_eq!((started.len(), world.sim.starts().len()), (3, 3), "no attempt twice");
}

/// The secondary status of a tuning job's first training job, as Describe would show it now.
async fn shown(world: &World, name: &str) -> Option<SecondaryStatus> {
    world.training_jobs(name).await.first().map(|job| job.secondary)
}

/// All that were shown of it.
async fn stages(world: &World, name: &str) -> Vec<SecondaryStatus> {
    world.training_jobs(name).await[0].transitions.iter().map(|transition| transition.status).collect()
}

/// All that a training job goes through, each once.
const STAGES: [SecondaryStatus; 6] = [
    SecondaryStatus::Pending,
    SecondaryStatus::Starting,
    SecondaryStatus::Downloading,
    SecondaryStatus::Training,
    SecondaryStatus::Uploading,
    SecondaryStatus::Completed,
];

async fn uploads_are_tried_again_and_shown_meanwhile(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    // Where the bucket should be stands a file.
    std::fs::write(world.bucket("bucket"), "in the way").unwrap();
    world.create(&request("hindered", 1, 1)).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    world.sim.advance(STEP * 3);
    world.until("it is uploading", async || shown(&world, "hindered").await == Some(SecondaryStatus::Uploading)).await;
    assert!(!world.tuning_job("hindered").await.status.is_terminal());
    std::fs::remove_file(world.bucket("bucket")).unwrap();
    let job = world.finish("hindered", STEP).await;
    assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 1));
    assert!(world.faults.uploads().len() >= 2);
    let only = &world.training_jobs("hindered").await[0];
    let model = only.model_artifacts.as_deref().unwrap().strip_prefix("s3://bucket/").unwrap().to_owned();
    assert!(world.bucket("bucket").join(model).is_file());
    assert_eq!(stages(&world, "hindered").await, STAGES);
}

async fn a_success_that_cannot_be_stored_is_a_fault_of_the_machine(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    std::fs::write(world.bucket("bucket"), "in the way").unwrap();
    world.create(&request("unstored", 1, 1)).await;
    let job = world.finish("unstored", STEP).await;
    assert_eq!((job.status, job.counters.retryable_error), (TuningStatus::Failed, 1));
    assert_eq!(world.faults.uploads().len(), 4);
    let only = &world.training_jobs("unstored").await[0];
    let reason = only.failure_reason.as_deref().unwrap();
    assert!(reason.starts_with("InternalServerError: artifacts were not stored: "), "{reason}");
    assert_eq!((only.model_artifacts.as_deref(), job.best), (None, None));
}

async fn an_upload_is_cut_off_some_time_after_a_stop(engine: Engine) {
    let mut world = World::new(engine, loss_is_x).await;
    world.stop().await;
    world.upload_patience = Duration::from_millis(50);
    world.start();
    world.create(&request("endless", 1, 1)).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    // All hole: no disk is filled, and packing it takes minutes.
    let model = world.sim.outputs(world.sim.starts()[0].id).await.unwrap().model;
    std::fs::File::create(model.join("sparse")).unwrap().set_len(49 << 30).unwrap();
    world.sim.advance(STEP * 3);
    world.until("it is uploading", async || shown(&world, "endless").await == Some(SecondaryStatus::Uploading)).await;
    let name = world.training_jobs("endless").await[0].name.clone();
    tunesmith::app::training_jobs::stop(&world.app, &World::scope(), &name).await.unwrap();
    let job = world.finish("endless", STEP).await;
    assert_eq!((job.counters.stopped, job.counters.non_retryable_error), (1, 0));
    let only = &world.training_jobs("endless").await[0];
    assert_eq!((only.status, only.model_artifacts.as_deref()), (TrainingStatus::Stopped, None));
    let message = &only.transitions.last().unwrap().message;
    assert!(message.contains("Artifacts were not stored: given up"), "{message}");
}

async fn fetching_what_was_written_is_given_up_some_time_after_a_stop(engine: Engine) {
    let mut world = World::new(engine, loss_is_x).await;
    world.stop().await;
    world.upload_patience = Duration::from_millis(50);
    world.start();
    world.faults.outputs_hang.store(true, Ordering::SeqCst);
    world.create(&request("unfetched", 1, 1)).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    world.sim.advance(STEP * 3);
    world.until("it is collected", async || !world.faults.uploads().is_empty()).await;
    let name = world.training_jobs("unfetched").await[0].name.clone();
    tunesmith::app::training_jobs::stop(&world.app, &World::scope(), &name).await.unwrap();
    let job = world.finish("unfetched", STEP).await;
    assert_eq!((job.counters.stopped, job.counters.non_retryable_error), (1, 0));
}

async fn a_stop_reaches_an_attempt_that_is_still_being_made_ready(engine: Engine) {
    let world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    world.faults.launches_wait.store(true, Ordering::SeqCst);
    world.create(&request("unready", 1, 1)).await;
    world.until("it is being launched", async || world.faults.is_launching()).await;
    let name = world.training_jobs("unready").await[0].name.clone();
    tunesmith::app::training_jobs::stop(&world.app, &World::scope(), &name).await.unwrap();
    let job = world.finish("unready", STEP).await;
    assert_eq!((job.counters.stopped, job.counters.completed), (1, 0));
}

async fn a_log_that_can_be_read_again_loses_nothing(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    world.faults.unreadable.store(3, Ordering::SeqCst);
    world.create(&request("again", 1, 1)).await;
    let job = world.finish("again", STEP).await;
    assert_eq!((job.counters.completed, job.objective.succeeded), (1, 1));
}

async fn a_log_that_stays_unreadable_holds_no_training_job_up(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    world.faults.unreadable.store(u32::MAX, Ordering::SeqCst);
    world.create(&request("unreadable", 1, 1)).await;
    let job = world.finish("unreadable", STEP).await;
    assert_eq!((job.status, job.counters.completed, job.objective.failed), (TuningStatus::Completed, 1, 1));
    assert!(u32::MAX - world.faults.unreadable.load(Ordering::SeqCst) >= 10, "it was tried");
    assert!(world.training_jobs("unreadable").await[0].model_artifacts.is_some());
}

/// Longer than a report is believed to be under way for by itself.
const OUTAGE: Duration = Duration::from_millis(11_500);

async fn a_report_is_held_while_writes_fail(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    world.create(&request("held", 2, 1)).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    world.app.db.fail_all_writes(true);
    world.sim.advance(STEP * 3);
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(world.faults.uploads().len(), 1, "it is not collected again");
    assert_eq!(world.sim.starts().len(), 1);
    world.app.db.fail_all_writes(false);
    let job = world.finish("held", STEP).await;
    assert_eq!((job.status, job.counters.completed, job.objective.succeeded), (TuningStatus::Completed, 2, 2));
    assert_eq!(world.sim.starts().len(), 2);
}

async fn rows_that_cannot_be_read_end_their_tuning_job_and_no_other(engine: Engine) {
    let mut world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    world.create(&request("broken", 10, 2)).await;
    world.until("both run", async || world.sim.running() == 2).await;
    world.stop().await;
    world.database.raw("UPDATE definitions SET document = '{'").await.unwrap();
    world.create(&request("whole", 1, 1)).await;
    world.start();
    world
        .until("the other runs", async || world.sim.starts().iter().any(|s| s.training_job_name.contains("whole")))
        .await;
    world.until("it is over", async || world.tuning_job("broken").await.status.is_terminal()).await;
    let job = world.tuning_job("broken").await;
    assert_eq!((job.status, job.counters.in_progress, job.counters.completed), (TuningStatus::Failed, 0, 0));
    let reason = job.failure_reason.unwrap();
    assert!(reason.starts_with("InternalServerError: a stored definition does not parse"), "{reason}");
    world.until("what ran is ended", async || world.sim.running() == 1).await;
    assert_eq!(world.sim.starts().len(), 3, "nothing further is started");
    let job = world.finish("whole", Duration::from_mins(5)).await;
    assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 1));
}

/// Staging waits for the one thread that file work may take, which the test holds.
async fn downloading_is_shown_while_it_lasts(engine: Engine) {
    let mut world = World::new(engine, loss_is_x).await;
    world.stop().await;
    world.max_running = 0;
    world.start();
    std::fs::create_dir_all(world.bucket("data")).unwrap();
    std::fs::write(world.bucket("data").join("train.csv"), "1,2\n").unwrap();
    let mut fed = request("fed", 1, 1);
    fed["TrainingJobDefinition"]["InputDataConfig"] = json!([{
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/train.csv"}}
    }]);
    world.create(&fed).await;
    world.until("it waits", async || shown(&world, "fed").await.is_some()).await;
    assert_eq!(shown(&world, "fed").await, Some(SecondaryStatus::Pending));
    world.stop().await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::task::spawn_blocking(move || held.recv().unwrap_err());
    world.max_running = 1;
    world.start();
    world.until("it is downloading", async || shown(&world, "fed").await == Some(SecondaryStatus::Downloading)).await;
    assert_eq!(world.sim.starts().len(), 0);
    drop(release);
    holding.await.unwrap();
    let job = world.finish("fed", STEP).await;
    assert_eq!(job.counters.completed, 1);
    assert_eq!(stages(&world, "fed").await, STAGES);
}

fn with_one_thread_for_files(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap().block_on(test);
}

#[test]
fn downloading_is_shown_on_sqlite() {
    with_one_thread_for_files(downloading_is_shown_while_it_lasts(Engine::Sqlite));
}

#[test]
fn downloading_is_shown_on_postgres() {
    with_one_thread_for_files(downloading_is_shown_while_it_lasts(Engine::Postgres));
}

on_both_databases! {
    uploads_are_tried_again_and_shown_meanwhile,
    a_success_that_cannot_be_stored_is_a_fault_of_the_machine,
    an_upload_is_cut_off_some_time_after_a_stop,
    fetching_what_was_written_is_given_up_some_time_after_a_stop,
    a_stop_reaches_an_attempt_that_is_still_being_made_ready,
    a_log_that_can_be_read_again_loses_nothing,
    a_log_that_stays_unreadable_holds_no_training_job_up,
    a_report_is_held_while_writes_fail,
    rows_that_cannot_be_read_end_their_tuning_job_and_no_other,
    what_a_power_failure_took_whole_is_not_started_again,
    a_flood_of_points_is_stored_whole,
    a_channel_without_objects_fails_the_job_by_name,
}
