//! Tuning jobs: Describe's answer and the list summary.

use serde_json::{Value, json};

use crate::api::aws::sagemaker::render::{Document, default, definition, time, training_job, without_nulls};
use crate::app::tuning_jobs::TuningJobView;
use crate::app::{TuningJob, TuningJobSummary};
use crate::domain::names::Scope;

/// `DescribeHyperParameterTuningJobResponse`. An error where the kept request is not JSON, which no version writes.
pub fn describe(view: &TuningJobView) -> Result<Value, serde_json::Error> {
    let job = &view.job;
    let mut request: Value = serde_json::from_str(&job.request)?;
    without_nulls(&mut request);
    let runtime_seconds = job.ended_at.unwrap_or(view.now).since_ms(job.created_at) / 1000;
    Ok(heading(&job.scope, &job.summary())
        .with("HyperParameterTuningJobConfig", config(job, request["HyperParameterTuningJobConfig"].take()))
        .with("TrainingJobDefinition", definition::complete(&view.definition))
        .with_some("BestTrainingJob", view.best.as_ref().map(training_job::summary))
        .with_some("FailureReason", job.failure_reason.as_deref())
        .with("TuningJobCompletionDetails", json!({"NumberOfTrainingJobsObjectiveNotImproving": job.not_improving}))
        .with("ConsumedResources", json!({"RuntimeInSeconds": runtime_seconds}))
        .into_value())
}

/// `HyperParameterTuningJobSummary`, from columns alone: a page of lists reads no request.
#[must_use]
pub fn summary(scope: &Scope, job: &TuningJobSummary) -> Value {
    let limits = Document::default()
        .with("MaxNumberOfTrainingJobs", job.max_jobs)
        .with("MaxParallelTrainingJobs", job.max_parallel)
        .with_some("MaxRuntimeInSeconds", job.max_runtime_ms.map(|ms| ms / 1000));
    heading(scope, job).with("Strategy", job.strategy.as_str()).with("ResourceLimits", limits.into_value()).into_value()
}

/// What both have.
fn heading(scope: &Scope, job: &TuningJobSummary) -> Document {
    let (counters, objective) = (&job.counters, &job.objective);
    Document::default()
        .with("HyperParameterTuningJobName", job.name.as_str())
        .with("HyperParameterTuningJobArn", scope.tuning_job_arn(&job.name))
        .with("HyperParameterTuningJobStatus", job.status.as_str())
        .with("CreationTime", time(job.created_at))
        .with_some("HyperParameterTuningEndTime", job.ended_at.map(time))
        .with("LastModifiedTime", time(job.modified_at))
        .with(
            "TrainingJobStatusCounters",
            json!({
                "Completed": counters.completed,
                "InProgress": counters.in_progress,
                "RetryableError": counters.retryable_error,
                "NonRetryableError": counters.non_retryable_error,
                "Stopped": counters.stopped,
            }),
        )
        .with(
            "ObjectiveStatusCounters",
            json!({"Succeeded": objective.succeeded, "Pending": objective.pending, "Failed": objective.failed}),
        )
}

/// The configuration as requested, with the service's defaults: all three range lists, scalings, the derived budget.
fn config(job: &TuningJob, mut config: Value) -> Value {
    default(&mut config, "TrainingJobEarlyStoppingType", "Off");
    default(&mut config["ResourceLimits"], "MaxNumberOfTrainingJobs", job.max_jobs);
    default(&mut config, "ParameterRanges", json!({}));
    let ranges = &mut config["ParameterRanges"];
    for kind in ["IntegerParameterRanges", "ContinuousParameterRanges", "CategoricalParameterRanges"] {
        default(ranges, kind, json!([]));
        if kind != "CategoricalParameterRanges" {
            ranges[kind].as_array_mut().into_iter().flatten().for_each(|range| default(range, "ScalingType", "Auto"));
        }
    }
    config
}
