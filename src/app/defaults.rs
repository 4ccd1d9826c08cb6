//! What a request leaves out and clients read without asking whether it is there.
//!
//! Invariant: defaults are added beside what was sent, never over it. Both documents are completed once, at Create, and
//! kept so: they never change, and Describe is asked far more often.

use serde_json::{Value, json};

use crate::domain::request::{MetricDefinition, Objective};
use crate::domain::rules::{DEFAULT_CHECKPOINT_PATH, DEFAULT_MAX_RUNTIME_SECONDS, OBJECTIVE_HYPERPARAMETER};

/// `VolumeSizeInGB` of a request that leaves it out: clients read it, and it bounds what a training job writes.
const DEFAULT_VOLUME_GB: u32 = 30;

/// `HyperParameterTuningJobConfig` as requested, with the service's defaults: all three range lists, scalings, the
/// derived budget.
pub(super) fn config(mut config: Value, max_jobs: u32) -> Value {
    without_nulls(&mut config);
    default(&mut config, "TrainingJobEarlyStoppingType", "Off");
    default(&mut config["ResourceLimits"], "MaxNumberOfTrainingJobs", max_jobs);
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

/// `TrainingJobDefinition` as requested, completed: with what is in force where the request leaves it out.
pub(super) fn definition(mut document: Value, metrics: &[MetricDefinition], objective: &Objective) -> Value {
    default(&mut document, "StaticHyperParameters", json!({}));
    default(&mut document["StaticHyperParameters"], OBJECTIVE_HYPERPARAMETER, objective.metric_name.clone());
    let algorithm = &mut document["AlgorithmSpecification"];
    if algorithm["MetricDefinitions"].as_array().is_none_or(Vec::is_empty) {
        algorithm["MetricDefinitions"] = json!(metrics);
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

/// Sets a member of an object that has none of that name, or a null there; does nothing to other values.
fn default(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = object {
        let member = members.entry(name).or_insert(Value::Null);
        if member.is_null() {
            *member = value.into();
        }
    }
}

/// Removes null members, at any depth: to the service they are absent ones.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
