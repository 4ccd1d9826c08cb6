//! The SageMaker service: which operations there are.
//!
//! Invariant: the operations here are exactly those of `openapi/openapi.json`; a test holds them together.

use crate::api::aws::{Answer, Call};
use crate::app::AppError;

pub mod operations;
pub mod render;

macro_rules! operations {
    ($($name:literal => $module:ident),+ $(,)?) => {
        /// The operations served, as `X-Amz-Target` names them.
        pub const OPERATIONS: &[&str] = &[$($name),+];

        /// Runs an operation; none where there is none of that name.
        pub async fn dispatch(operation: &str, call: Call<'_>) -> Option<Result<Answer, AppError>> {
            match operation {
                $($name => Some(operations::$module::handle(call).await),)+
                _ => None,
            }
        }
    };
}

operations! {
    "CreateHyperParameterTuningJob" => create_hyper_parameter_tuning_job,
    "DescribeHyperParameterTuningJob" => describe_hyper_parameter_tuning_job,
    "ListHyperParameterTuningJobs" => list_hyper_parameter_tuning_jobs,
    "StopHyperParameterTuningJob" => stop_hyper_parameter_tuning_job,
    "DeleteHyperParameterTuningJob" => delete_hyper_parameter_tuning_job,
    "ListTrainingJobsForHyperParameterTuningJob" => list_training_jobs_for_hyper_parameter_tuning_job,
    "DescribeTrainingJob" => describe_training_job,
    "ListTrainingJobs" => list_training_jobs,
    "StopTrainingJob" => stop_training_job,
    "DeleteTrainingJob" => delete_training_job,
    "AddTags" => add_tags,
    "ListTags" => list_tags,
    "DeleteTags" => delete_tags,
}
