//! Training jobs: Describe's answer and the two list summaries.

use serde_json::{Map, Value, json};

use crate::api::aws::sagemaker::render::{Document, time};
use crate::app::training_jobs::TrainingJobView;
use crate::app::{AppError, TrainingJob};

/// `DescribeTrainingJobResponse`.
pub fn describe(view: &TrainingJobView) -> Result<Value, AppError> {
    let job = &view.job;
    let mut document: Value =
        serde_json::from_str(view.definition.document.get()).map_err(|error| AppError::Internal(Box::new(error)))?;
    let mut take = |name: &str| document.as_object_mut().and_then(|members| members.shift_remove(name));
    let mut hyperparameters = match take("StaticHyperParameters") {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    hyperparameters.extend(job.tuned.iter().map(|(name, value)| (name.clone(), json!(value))));
    let mut algorithm = take("AlgorithmSpecification").unwrap_or_default();
    algorithm["EnableSageMakerMetricsTimeSeries"] = json!(false);
    let output = take("OutputDataConfig").unwrap_or_default();
    let seconds = job.started_at.zip(job.ended_at).map(|(start, end)| (end.since_ms(start) + 999) / 1000);
    let tuning_job = view.definition.tuning_job_name.as_deref().map(|name| job.scope.tuning_job_arn(name));
    let mut response = heading(job)
        .with_some("TuningJobArn", tuning_job)
        .with("ModelArtifacts", json!({"S3ModelArtifacts": artifacts(job, &output)}))
        .with("SecondaryStatus", job.secondary.as_str())
        .with_some("FailureReason", job.failure_reason.as_deref())
        .with("HyperParameters", hyperparameters)
        .with("AlgorithmSpecification", algorithm)
        .with("OutputDataConfig", output)
        .with_some("TrainingStartTime", job.started_at.map(time))
        .with("LastModifiedTime", time(job.modified_at))
        .with("SecondaryStatusTransitions", transitions(job))
        .with("FinalMetricDataList", final_metrics(job))
        .with_some("TrainingTimeInSeconds", seconds)
        .with_some("BillableTimeInSeconds", seconds);
    for echoed in [
        "RoleArn",
        "InputDataConfig",
        "ResourceConfig",
        "VpcConfig",
        "StoppingCondition",
        "EnableNetworkIsolation",
        "EnableInterContainerTrafficEncryption",
        "EnableManagedSpotTraining",
        "CheckpointConfig",
        "Environment",
        "RetryStrategy",
    ] {
        response = response.with_some(echoed, take(echoed));
    }
    Ok(response.into_value())
}

/// `TrainingJobSummary`, as `ListTrainingJobs` shows it.
#[must_use]
pub fn list_summary(job: &TrainingJob) -> Value {
    heading(job)
        .with("LastModifiedTime", time(job.modified_at))
        .with("SecondaryStatus", job.secondary.as_str())
        .into_value()
}

/// `HyperParameterTrainingJobSummary`, as a tuning job shows its training jobs.
#[must_use]
pub fn summary(view: &TrainingJobView) -> Value {
    let (job, definition) = (&view.job, &view.definition);
    let objective = definition.objective.as_ref();
    let final_value = objective.zip(job.objective_value).map(|(objective, value)| {
        json!({"Type": objective.direction.as_str(), "MetricName": objective.metric_name, "Value": value})
    });
    heading(job)
        .with_some("TrainingJobDefinitionName", definition.definition_name.as_deref())
        .with_some("TuningJobName", definition.tuning_job_name.as_deref())
        .with_some("TrainingStartTime", job.started_at.map(time))
        .with("TunedHyperParameters", json!(job.tuned))
        .with_some("FailureReason", job.failure_reason.as_deref())
        .with_some("FinalHyperParameterTuningJobObjectiveMetric", final_value)
        .with("ObjectiveStatus", job.objective_status.as_str())
        .into_value()
}

/// What all three have.
fn heading(job: &TrainingJob) -> Document {
    Document::default()
        .with("TrainingJobName", job.name.as_str())
        .with("TrainingJobArn", job.scope.training_job_arn(&job.name))
        .with("TrainingJobStatus", job.status.as_str())
        .with("CreationTime", time(job.created_at))
        .with_some("TrainingEndTime", job.ended_at.map(time))
}

/// Where the model is, or is configured to go while it is not there yet.
fn artifacts(job: &TrainingJob, output: &Value) -> String {
    job.model_artifacts.clone().unwrap_or_else(|| {
        let prefix = output["S3OutputPath"].as_str().unwrap_or_default();
        let object = if output["CompressionType"] == "NONE" { "model/" } else { "model.tar.gz" };
        format!("{}/{}/output/{object}", prefix.trim_end_matches('/'), job.name)
    })
}

fn transitions(job: &TrainingJob) -> Vec<Value> {
    let entry = |t: &crate::domain::status::Transition| {
        Document::default()
            .with("Status", t.status.as_str())
            .with("StartTime", time(t.start))
            .with_some("EndTime", t.end.map(time))
            .with("StatusMessage", t.message.as_str())
            .into_value()
    };
    job.transitions.iter().map(entry).collect()
}

fn final_metrics(job: &TrainingJob) -> Vec<Value> {
    let metrics = job.final_metrics.iter();
    metrics.map(|m| json!({"MetricName": m.name, "Value": m.value, "Timestamp": time(m.time)})).collect()
}
