//! What a request leaves out and clients read without asking whether it is there.
//!
//! Invariant: defaults are added beside what was sent, never over it. Both documents are completed once, at Create, and
//! kept so: they never change, and Describe is asked far more often.

use crate::domain::document::Document;
use crate::domain::request::{MetricDefinition, Objective};
use crate::domain::rules::{DEFAULT_CHECKPOINT_PATH, DEFAULT_MAX_RUNTIME_SECONDS, OBJECTIVE_HYPERPARAMETER};

/// `VolumeSizeInGB` of a request that leaves it out: clients read it, and it bounds what a training job writes.
const DEFAULT_VOLUME_GB: u32 = 30;

/// `HyperParameterTuningJobConfig` as requested, with the service's defaults: all three range lists, scalings, the
/// derived budget.
pub(super) fn config(mut config: Document<'_>, max_jobs: u32) -> Document<'_> {
    config.default_to("TrainingJobEarlyStoppingType", || "Off".into());
    if let Some(limits) = config.get_mut("ResourceLimits") {
        limits.default_to("MaxNumberOfTrainingJobs", || max_jobs.into());
    }
    if let Some(ranges) = config.default_to("ParameterRanges", || Document::object([])) {
        for kind in ["IntegerParameterRanges", "ContinuousParameterRanges"] {
            for range in
                ranges.default_to(kind, || Document::List(Vec::new())).into_iter().flat_map(Document::items_mut)
            {
                range.default_to("ScalingType", || "Auto".into());
            }
        }
        ranges.default_to("CategoricalParameterRanges", || Document::List(Vec::new()));
    }
    config
}

/// `TrainingJobDefinition` as requested, completed: with what is in force where the request leaves it out.
pub(super) fn definition<'a>(
    mut document: Document<'a>,
    metrics: &'a [MetricDefinition],
    objective: &'a Objective,
) -> Document<'a> {
    if let Some(hyperparameters) = document.default_to("StaticHyperParameters", || Document::object([])) {
        hyperparameters.default_to(OBJECTIVE_HYPERPARAMETER, || objective.metric_name.as_str().into());
    }
    if let Some(algorithm) = document.get_mut("AlgorithmSpecification") {
        if let Some(sent) = algorithm.get_mut("MetricDefinitions").filter(|sent| sent.items().is_empty()) {
            *sent = Document::Null;
        }
        algorithm.default_to("MetricDefinitions", || metric_definitions(metrics));
    }
    for channel in document.get_mut("InputDataConfig").into_iter().flat_map(Document::items_mut) {
        channel.default_to("CompressionType", || "None".into());
        channel.default_to("RecordWrapperType", || "None".into());
        if let Some(source) = channel.get_mut("DataSource").and_then(|source| source.get_mut("S3DataSource")) {
            source.default_to("S3DataDistributionType", || "FullyReplicated".into());
        }
    }
    if let Some(output) = document.get_mut("OutputDataConfig") {
        output.default_to("KmsKeyId", || "".into());
        output.default_to("CompressionType", || "GZIP".into());
    }
    if let Some(checkpoints) = document.get_mut("CheckpointConfig") {
        checkpoints.default_to("LocalPath", || DEFAULT_CHECKPOINT_PATH.into());
    }
    if let Some(stopping) = document.get_mut("StoppingCondition") {
        stopping.default_to("MaxRuntimeInSeconds", || Document::Number(DEFAULT_MAX_RUNTIME_SECONDS.into()));
    }
    for flag in ["EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"] {
        document.default_to(flag, || Document::Bool(false));
    }
    let shared = resource_config(&document);
    if let Some(resources) = document.default_to("ResourceConfig", || shared) {
        resources.default_to("VolumeSizeInGB", || DEFAULT_VOLUME_GB.into());
    }
    document
}

fn metric_definitions(metrics: &[MetricDefinition]) -> Document<'_> {
    let metrics = metrics.iter().map(|metric| {
        Document::object([("Name", metric.name.as_str().into()), ("Regex", metric.regex.as_str().into())])
    });
    Document::List(metrics.collect())
}

/// `ResourceConfig` for a request that sent only the tuning API's own resource member.
fn resource_config<'a>(document: &Document<'a>) -> Document<'a> {
    let shared = ["InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId"];
    let sent = document.get("HyperParameterTuningResourceConfig");
    Document::object(shared.into_iter().filter_map(|name| Some((name, sent?.get(name)?.clone()))))
}
