//! One file per operation: reads the validated input, calls a use case, renders the answer.

pub mod add_tags;
pub mod create_hyper_parameter_tuning_job;
pub mod delete_hyper_parameter_tuning_job;
pub mod delete_tags;
pub mod delete_training_job;
pub mod describe_hyper_parameter_tuning_job;
pub mod describe_training_job;
pub mod list_hyper_parameter_tuning_jobs;
pub mod list_tags;
pub mod list_training_jobs;
pub mod list_training_jobs_for_hyper_parameter_tuning_job;
pub mod stop_hyper_parameter_tuning_job;
pub mod stop_training_job;

use crate::domain::document::Document;

/// A text member that the service model requires, and so is there.
fn name(input: &Document<'_>, member: &str) -> String {
    input.get(member).and_then(Document::as_str).unwrap_or_default().to_owned()
}
