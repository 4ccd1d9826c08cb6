//! Tuning jobs: Describe's answer and the list summary.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::aws::Answer;
use crate::api::aws::sagemaker::render::training_job;
use crate::app::tuning_jobs::TuningJobView;
use crate::app::{AppError, TuningJobSummary};
use crate::domain::names::Scope;
use crate::domain::time::Timestamp;

/// `DescribeHyperParameterTuningJobResponse`. Both documents are passed on as the texts that are
/// kept, unread.
pub fn describe(scope: &Scope, view: &TuningJobView) -> Result<Answer, AppError> {
    let job = &view.summary;
    Answer::document(&Description {
        heading: Heading::new(scope, job),
        hyper_parameter_tuning_job_config: &view.config,
        training_job_definition: &view.definition,
        best_training_job: view.best.as_ref().map(training_job::summary),
        failure_reason: view.failure_reason.as_deref(),
        tuning_job_completion_details: CompletionDetails {
            number_of_training_jobs_objective_not_improving: view.not_improving,
        },
        consumed_resources: ConsumedResources {
            runtime_in_seconds: job.ended_at.unwrap_or(view.now).since_ms(job.created_at) / 1000,
        },
    })
}

/// `HyperParameterTuningJobSummary`, from columns alone: a page of lists reads no request.
#[must_use]
pub fn summary<'a>(scope: &Scope, job: &'a TuningJobSummary) -> impl Serialize + use<'a> {
    Summary {
        heading: Heading::new(scope, job),
        strategy: job.strategy.as_str(),
        resource_limits: ResourceLimits {
            max_number_of_training_jobs: job.max_jobs,
            max_parallel_training_jobs: job.max_parallel,
            max_runtime_in_seconds: job.max_runtime_ms.map(|ms| ms / 1000),
        },
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description<'a> {
    #[serde(flatten)]
    heading: Heading<'a>,
    hyper_parameter_tuning_job_config: &'a RawValue,
    training_job_definition: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_training_job: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    tuning_job_completion_details: CompletionDetails,
    consumed_resources: ConsumedResources,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CompletionDetails {
    number_of_training_jobs_objective_not_improving: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConsumedResources {
    runtime_in_seconds: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary<'a> {
    #[serde(flatten)]
    heading: Heading<'a>,
    strategy: &'static str,
    resource_limits: ResourceLimits,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the service's names")]
struct ResourceLimits {
    max_number_of_training_jobs: u32,
    max_parallel_training_jobs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_runtime_in_seconds: Option<i64>,
}

/// What both have.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Heading<'a> {
    hyper_parameter_tuning_job_name: &'a str,
    hyper_parameter_tuning_job_arn: String,
    hyper_parameter_tuning_job_status: &'static str,
    creation_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hyper_parameter_tuning_end_time: Option<f64>,
    last_modified_time: f64,
    training_job_status_counters: StatusCounters,
    objective_status_counters: ObjectiveCounters,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StatusCounters {
    completed: u32,
    in_progress: u32,
    retryable_error: u32,
    non_retryable_error: u32,
    stopped: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectiveCounters {
    succeeded: u32,
    pending: u32,
    failed: u32,
}

impl<'a> Heading<'a> {
    fn new(scope: &Scope, job: &'a TuningJobSummary) -> Self {
        let (counters, objective) = (&job.counters, &job.objective);
        Self {
            hyper_parameter_tuning_job_name: &job.name,
            hyper_parameter_tuning_job_arn: scope.tuning_job_arn(&job.name),
            hyper_parameter_tuning_job_status: job.status.as_str(),
            creation_time: job.created_at.as_epoch_seconds(),
            hyper_parameter_tuning_end_time: job.ended_at.map(Timestamp::as_epoch_seconds),
            last_modified_time: job.modified_at.as_epoch_seconds(),
            training_job_status_counters: StatusCounters {
                completed: counters.completed,
                in_progress: counters.in_progress,
                retryable_error: counters.retryable_error,
                non_retryable_error: counters.non_retryable_error,
                stopped: counters.stopped,
            },
            objective_status_counters: ObjectiveCounters {
                succeeded: objective.succeeded,
                pending: objective.pending,
                failed: objective.failed,
            },
        }
    }
}
