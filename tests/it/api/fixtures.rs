//! Requests, and training jobs as the scheduler would have left them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tunesmith::domain::status::{ObjectiveStatus, SecondaryStatus, TrainingStatus, Transition, TuningStatus};
use tunesmith::domain::time::Timestamp;
use tunesmith::store::rows::{FinalMetric, TrainingJob, TuningJob};
use tunesmith::store::{training_jobs, tuning_jobs};
use uuid::Uuid;

use crate::support::app::TestApp;

/// A small request that is accepted.
pub fn minimal(name: &str) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.001", "MaxValue": "0.1"}]
            }
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": "local/metrics:1", "TrainingInputMode": "File"},
            "RoleArn": "arn:aws:iam::000000000000:role/tuner",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
            "HyperParameterTuningResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "StoppingCondition": {}
        }
    })
}

/// The tuning job of a name, as stored.
pub async fn stored(app: &TestApp, name: &str) -> TuningJob {
    let name = name.to_owned();
    app.write(move |tx| {
        let name = name.clone();
        Box::pin(async move { Ok(tuning_jobs::find(tx, &TestApp::scope(), &name).await?.expect("it is there")) })
    })
    .await
}

/// Ends a tuning job.
pub async fn end(app: &TestApp, name: &str, status: TuningStatus) {
    let mut job = stored(app, name).await;
    job.status = status;
    job.ended_at = Some(job.created_at.plus_ms(90_500));
    app.write(move |tx| {
        let job = job.clone();
        Box::pin(async move { Ok(tuning_jobs::update(tx, &job).await?) })
    })
    .await;
}

/// A training job of a tuning job that has just begun to train.
pub fn training(tuning: &TuningJob, ordinal: u32) -> TrainingJob {
    let created_at = tuning.created_at.plus_ms(i64::from(ordinal) * 1000);
    let transition = Transition {
        status: SecondaryStatus::Training,
        start: created_at,
        end: None,
        message: "Training in progress".into(),
    };
    TrainingJob {
        id: Uuid::new_v4(),
        scope: tuning.scope.clone(),
        name: format!("{}-{ordinal:03}-0000000{ordinal}", tuning.name),
        tuning_job_id: Some(tuning.id),
        definition_id: tuning.id,
        ordinal,
        watermark: 0,
        pending: (1..ordinal).collect(),
        tuned: BTreeMap::from([("rate".to_owned(), format!("0.0{ordinal}"))]),
        status: TrainingStatus::InProgress,
        secondary: SecondaryStatus::Training,
        transitions: vec![transition],
        failure_reason: None,
        created_at,
        modified_at: created_at,
        started_at: Some(created_at),
        ended_at: None,
        stop_requested_at: None,
        stopped_early: false,
        objective_status: ObjectiveStatus::Pending,
        objective_value: None,
        final_metrics: Vec::new(),
        model_artifacts: None,
        attempts: 1,
        observation: None,
    }
}

/// The same job, completed with an objective value.
pub fn completed(mut job: TrainingJob, value: f64) -> TrainingJob {
    let ended_at = job.created_at.plus_ms(2_500);
    job.status = TrainingStatus::Completed;
    job.secondary = SecondaryStatus::Completed;
    job.ended_at = Some(ended_at);
    job.modified_at = ended_at;
    job.objective_status = ObjectiveStatus::Succeeded;
    job.objective_value = Some(value);
    job.final_metrics = vec![FinalMetric { name: "loss".into(), value, time: ended_at }];
    job.model_artifacts = Some(format!("s3://bucket/out/{}/output/model.tar.gz", job.name));
    job.observation = Some(job.ordinal);
    job
}

/// Inserts training jobs as they are.
pub async fn insert(app: &TestApp, jobs: &[TrainingJob]) {
    let jobs = jobs.to_vec();
    app.write(move |tx| {
        let jobs = jobs.clone();
        Box::pin(async move {
            training_jobs::insert(tx, &jobs).await?;
            Ok(())
        })
    })
    .await;
}

/// Names a training job the best of its tuning job.
pub async fn make_best(app: &TestApp, tuning: &str, best: &TrainingJob) {
    let mut job = stored(app, tuning).await;
    job.best = best.objective_value.map(|value| (best.id, value));
    job.counters.completed = 1;
    job.objective.succeeded = 1;
    job.not_improving = 4;
    app.write(move |tx| {
        let job = job.clone();
        Box::pin(async move { Ok(tuning_jobs::update(tx, &job).await?) })
    })
    .await;
}

/// A timestamp as answers carry it.
pub fn seconds(at: Timestamp) -> Value {
    json!(at.as_epoch_seconds())
}
