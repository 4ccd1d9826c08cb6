//! `TrainingJobDefinition` with the defaults and additions that clients read without asking whether they are there.

use serde_json::{Value, json};

use crate::api::aws::sagemaker::render::{default, without_nulls};
use crate::app::training_jobs::DefinitionView;
use crate::domain::rules::{DEFAULT_CHECKPOINT_PATH, DEFAULT_MAX_RUNTIME_SECONDS, OBJECTIVE_HYPERPARAMETER};

/// `VolumeSizeInGB` of a request that leaves it out: clients read it. Then the server's own limit
/// holds.
const DEFAULT_VOLUME_GB: u32 = 30;

/// The definition as requested, completed.
#[must_use]
pub fn complete(definition: &DefinitionView) -> Value {
    let mut document = definition.document.clone();
    default(&mut document, "StaticHyperParameters", json!({}));
    if let Some(objective) = &definition.objective {
        default(&mut document["StaticHyperParameters"], OBJECTIVE_HYPERPARAMETER, objective.metric_name.clone());
    }
    let algorithm = &mut document["AlgorithmSpecification"];
    if algorithm["MetricDefinitions"].as_array().is_none_or(Vec::is_empty) {
        algorithm["MetricDefinitions"] = json!(definition.metric_definitions);
    }
    for channel in document["InputDataConfig"].as_array_mut().into_iter().flatten() {
        default(channel, "CompressionType", "None");
        default(channel, "RecordWrapperType", "None");
        default(&mut channel["DataSource"]["S3DataSource"], "S3DataDistributionType", "FullyReplicated");
    }
    default(&mut document["OutputDataConfig"], "KmsKeyId", "");
    default(&mut document["OutputDataConfig"], "CompressionType", "GZIP");
    if document["CheckpointConfig"].is_object() {
        default(&mut document["CheckpointConfig"], "LocalPath", DEFAULT_CHECKPOINT_PATH);
    }
    default(&mut document["StoppingCondition"], "MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_SECONDS);
    for flag in ["EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"] {
        default(&mut document, flag, false);
    }
    let resources = resource_config(&document);
    default(&mut document, "ResourceConfig", resources);
    default(&mut document["ResourceConfig"], "VolumeSizeInGB", DEFAULT_VOLUME_GB);
    // Looking for a member in order to write leaves a null where there is none.
    without_nulls(&mut document);
    document
}

/// `ResourceConfig` for a request that sent only the tuning API's own resource member.
fn resource_config(document: &Value) -> Value {
    let sent = &document["HyperParameterTuningResourceConfig"];
    let shared = ["InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId"];
    shared.iter().filter_map(|name| Some(((*name).to_owned(), sent.get(*name)?.clone()))).collect()
}
