//! What a tuning job does when something around its training jobs fails: their data, the object store, the database.

use std::time::Duration;

use serde_json::json;
use tunesmith::domain::status::TuningStatus;
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

on_both_databases! {
    what_a_power_failure_took_whole_is_not_started_again,
    a_flood_of_points_is_stored_whole,
    a_channel_without_objects_fails_the_job_by_name,
}
