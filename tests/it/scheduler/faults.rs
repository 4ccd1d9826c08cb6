//! What a tuning job does when something around its training jobs fails: their data, the object store, the database.

use std::time::Duration;

use serde_json::json;
use tunesmith::domain::status::TuningStatus;

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

on_both_databases! {
    a_channel_without_objects_fails_the_job_by_name,
}
