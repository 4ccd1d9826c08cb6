//! `CreateHyperParameterTuningJob` as the control plane reads it: only the members that something acts on.
//!
//! Invariant: reading never decides validity of single members (the service model does, before) nor keeps the request
//! (the store does, verbatim). The rules that span members are in `rules`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::status::{Direction, EarlyStopping, Scaling, Strategy};

/// The request document.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TuningRequest {
    /// The tuning job's name, as written by the user.
    #[serde(rename = "HyperParameterTuningJobName")]
    pub name: String,
    /// What to search and how far.
    #[serde(rename = "HyperParameterTuningJobConfig")]
    pub config: TuningConfig,
    /// What to train.
    pub training_job_definition: Option<TrainingDefinition>,
    /// Tags of the tuning job and of every training job that it starts.
    pub tags: Option<Vec<Tag>>,
}

/// `HyperParameterTuningJobConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TuningConfig {
    /// The search strategy.
    pub strategy: Strategy,
    /// Settings of the strategy.
    pub strategy_config: Option<StrategyConfig>,
    /// What is optimised.
    #[serde(rename = "HyperParameterTuningJobObjective")]
    pub objective: Option<Objective>,
    /// Budgets.
    pub resource_limits: ResourceLimits,
    /// The search space.
    pub parameter_ranges: Option<ParameterRanges>,
    /// Whether training jobs that fall behind are stopped; `Off` where absent.
    #[serde(rename = "TrainingJobEarlyStoppingType")]
    pub early_stopping: Option<EarlyStopping>,
    /// The user's seed; one is drawn at Create where absent.
    pub random_seed: Option<u64>,
}

/// `HyperParameterTuningJobStrategyConfig`.
#[derive(Debug, Clone, Deserialize)]
pub struct StrategyConfig {
    /// Only for Hyperband.
    #[serde(rename = "HyperbandStrategyConfig")]
    pub hyperband: Option<HyperbandConfig>,
}

/// `HyperbandStrategyConfig`: how far a training job goes, in epochs (values of the objective that it prints).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HyperbandConfig {
    /// None is stopped before; 1 where absent.
    pub min_resource: Option<u32>,
    /// None goes beyond; read from the static hyperparameters where absent.
    pub max_resource: Option<u32>,
}

/// `HyperParameterTuningJobObjective`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Objective {
    /// Which way is better.
    #[serde(rename = "Type")]
    pub direction: Direction,
    /// The metric, one of the metric definitions.
    pub metric_name: String,
}

/// `ResourceLimits`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceLimits {
    /// Budget of training jobs.
    pub max_number_of_training_jobs: Option<u32>,
    /// How many run at once.
    pub max_parallel_training_jobs: u32,
    /// Wall-clock budget of the tuning job, seconds.
    pub max_runtime_in_seconds: Option<i64>,
}

/// `ParameterRanges`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ParameterRanges {
    /// Whole numbers.
    #[serde(rename = "IntegerParameterRanges")]
    pub integer: Option<Vec<NumericRange>>,
    /// Reals.
    #[serde(rename = "ContinuousParameterRanges")]
    pub continuous: Option<Vec<NumericRange>>,
    /// Texts.
    #[serde(rename = "CategoricalParameterRanges")]
    pub categorical: Option<Vec<CategoricalRange>>,
}

/// An integer or a continuous range; bounds are texts on the wire.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NumericRange {
    /// The hyperparameter.
    pub name: String,
    /// Inclusive.
    pub min_value: String,
    /// Inclusive.
    pub max_value: String,
    /// Absent means `Auto`.
    pub scaling_type: Option<Scaling>,
}

impl NumericRange {
    /// The scaling asked for, with the service's default.
    #[must_use]
    pub fn scaling(&self) -> Scaling {
        self.scaling_type.unwrap_or(Scaling::Auto)
    }
}

/// A categorical range.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CategoricalRange {
    /// The hyperparameter.
    pub name: String,
    /// What it may be.
    pub values: Vec<String>,
}

/// `HyperParameterTrainingJobDefinition`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TrainingDefinition {
    /// Its name, where given.
    pub definition_name: Option<String>,
    /// Hyperparameters that every training job gets as they are.
    pub static_hyper_parameters: Option<BTreeMap<String, String>>,
    /// What program trains and how its metrics are read.
    pub algorithm_specification: AlgorithmSpecification,
    /// Channels.
    pub input_data_config: Option<Vec<Channel>>,
    /// Where artifacts go.
    pub output_data_config: OutputDataConfig,
    /// The tuning API's resource fields; either may be sent.
    pub resource_config: Option<ResourceConfig>,
    /// As above.
    pub hyper_parameter_tuning_resource_config: Option<ResourceConfig>,
    /// When a training job is cut off.
    pub stopping_condition: StoppingCondition,
    /// Environment variables of the training program.
    pub environment: Option<BTreeMap<String, String>>,
    /// Where checkpoints go.
    pub checkpoint_config: Option<CheckpointConfig>,
    /// How often an infrastructure fault is tried again.
    pub retry_strategy: Option<RetryStrategy>,
    /// Whether a training job may be interrupted, and then goes on in a further attempt.
    pub enable_managed_spot_training: Option<bool>,
    /// Whether a training job has no network.
    pub enable_network_isolation: Option<bool>,
}

impl TrainingDefinition {
    /// On how many hosts a training job runs: one where nothing is said.
    #[must_use]
    pub fn hosts(&self) -> usize {
        let resources = [&self.resource_config, &self.hyper_parameter_tuning_resource_config];
        let asked = resources.into_iter().flatten().find_map(|resources| resources.instance_count);
        asked.and_then(|count| usize::try_from(count).ok()).unwrap_or(1).max(1)
    }
}

/// `HyperParameterAlgorithmSpecification`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AlgorithmSpecification {
    /// An image registered in the configuration.
    pub training_image: Option<String>,
    /// `File`, `Pipe` or `FastFile`.
    pub training_input_mode: String,
    /// How metrics are read from the log.
    pub metric_definitions: Option<Vec<MetricDefinition>>,
}

/// A metric's name and the regular expression whose first group is its value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetricDefinition {
    /// The metric's name.
    pub name: String,
    /// One capture group gives the value.
    pub regex: String,
}

/// One input channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Channel {
    /// The folder name under `/opt/ml/input/data`.
    pub channel_name: String,
    /// Where the data is.
    pub data_source: DataSource,
    /// Such as `text/csv`.
    pub content_type: Option<String>,
    /// `None` or `Gzip`.
    pub compression_type: Option<String>,
    /// `None` or `RecordIO`.
    pub record_wrapper_type: Option<String>,
    /// Overrides the definition's input mode.
    pub input_mode: Option<String>,
    /// Whether and how what Pipe streams is shuffled.
    pub shuffle_config: Option<ShuffleConfig>,
}

impl Channel {
    /// The input mode in force, where the definition's is this.
    #[must_use]
    pub fn mode<'a>(&'a self, of_the_definition: &'a str) -> &'a str {
        self.input_mode.as_deref().unwrap_or(of_the_definition)
    }
}

/// `ShuffleConfig`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShuffleConfig {
    /// The same seed gives the same orders.
    pub seed: i64,
}

/// Where a channel's data is.
#[derive(Debug, Clone, Deserialize)]
pub struct DataSource {
    /// Objects beneath a prefix.
    #[serde(rename = "S3DataSource")]
    pub s3: Option<S3DataSource>,
    /// A directory of a network file system.
    #[serde(rename = "FileSystemDataSource")]
    pub file_system: Option<FileSystemDataSource>,
}

/// `FileSystemDataSource`.
#[derive(Debug, Clone, Deserialize)]
pub struct FileSystemDataSource {
    /// Such as `fs-0123abcd`.
    #[serde(rename = "FileSystemId")]
    pub id: String,
    /// `EFS` or `FSxLustre`.
    #[serde(rename = "FileSystemType")]
    pub kind: String,
    /// From the file system's root.
    #[serde(rename = "DirectoryPath")]
    pub directory: String,
}

/// `S3DataSource`.
#[derive(Debug, Clone, Deserialize)]
pub struct S3DataSource {
    /// `S3Prefix` and others.
    #[serde(rename = "S3DataType")]
    pub data_type: String,
    /// `s3://bucket/prefix`.
    #[serde(rename = "S3Uri")]
    pub uri: String,
    /// `FullyReplicated` or `ShardedByS3Key`.
    #[serde(rename = "S3DataDistributionType")]
    pub distribution: Option<String>,
    /// What is streamed of each line of an augmented manifest, in this order.
    #[serde(rename = "AttributeNames")]
    pub attribute_names: Option<Vec<String>>,
}

impl S3DataSource {
    /// Whether it is a list of data with their attributes.
    #[must_use]
    pub fn is_augmented(&self) -> bool {
        self.data_type == "AugmentedManifestFile"
    }
}

/// `OutputDataConfig`.
#[derive(Debug, Clone, Deserialize)]
pub struct OutputDataConfig {
    /// `s3://bucket/prefix`.
    #[serde(rename = "S3OutputPath")]
    pub s3_output_path: String,
    /// `GZIP` or `NONE`.
    #[serde(rename = "CompressionType")]
    pub compression_type: Option<String>,
}

/// `ResourceConfig` and `HyperParameterTuningResourceConfig`: the members that they share.
#[derive(Debug, Clone, Deserialize)]
pub struct ResourceConfig {
    /// Such as `ml.m5.large`.
    #[serde(rename = "InstanceType")]
    pub instance_type: Option<String>,
    /// Hosts of one training job.
    #[serde(rename = "InstanceCount")]
    pub instance_count: Option<i64>,
    /// Disk, GB.
    #[serde(rename = "VolumeSizeInGB")]
    pub volume_size_in_gb: Option<i64>,
}

impl ResourceConfig {
    /// Whether both ask for the same, as far as both say.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        agree(self.instance_type.as_ref(), other.instance_type.as_ref())
            && agree(self.instance_count.as_ref(), other.instance_count.as_ref())
            && agree(self.volume_size_in_gb.as_ref(), other.volume_size_in_gb.as_ref())
    }
}

/// `StoppingCondition`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StoppingCondition {
    /// How long a training job may run, seconds; one day by default.
    pub max_runtime_in_seconds: Option<i64>,
    /// How long a training job on spot capacity may take in all, seconds, waiting included.
    pub max_wait_time_in_seconds: Option<i64>,
}

/// `CheckpointConfig`.
#[derive(Debug, Clone, Deserialize)]
pub struct CheckpointConfig {
    /// `s3://bucket/prefix`.
    #[serde(rename = "S3Uri")]
    pub s3_uri: String,
    /// `/opt/ml/checkpoints` by default.
    #[serde(rename = "LocalPath")]
    pub local_path: Option<String>,
}

/// `RetryStrategy`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RetryStrategy {
    /// Further attempts after an infrastructure fault.
    pub maximum_retry_attempts: u32,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    /// Unique per resource.
    pub key: String,
    /// May be empty.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::TuningRequest;
    use crate::domain::status::{Direction, Scaling, Strategy};

    #[test]
    fn a_request_as_clients_send_it_is_read() {
        let request: TuningRequest = serde_json::from_value(serde_json::json!({
            "HyperParameterTuningJobName": "xgb-1",
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:auc"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 3},
                "ParameterRanges": {
                    "ContinuousParameterRanges": [{"Name": "eta", "MinValue": "0", "MaxValue": "1"}]
                },
                "TrainingJobEarlyStoppingType": "Off",
                "RandomSeed": 7
            },
            "TrainingJobDefinition": {
                "StaticHyperParameters": {"rounds": "100"},
                "AlgorithmSpecification": {
                    "TrainingImage": "local/xgb:1",
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "validation:auc", "Regex": "auc:([0-9.]+)"}]
                },
                "RoleArn": "arn:aws:iam::000000000000:role/any",
                "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
                "StoppingCondition": {"MaxRuntimeInSeconds": 3600}
            },
            "Tags": [{"Key": "team", "Value": ""}]
        }))
        .unwrap();
        assert_eq!((request.name.as_str(), request.config.strategy), ("xgb-1", Strategy::Random));
        assert_eq!(request.config.objective.unwrap().direction, Direction::Maximize);
        assert_eq!(request.config.random_seed, Some(7));
        let ranges = request.config.parameter_ranges.unwrap();
        assert_eq!(ranges.continuous.unwrap()[0].scaling(), Scaling::Auto);
        assert!(ranges.integer.is_none());
        let definition = request.training_job_definition.unwrap();
        assert_eq!(definition.algorithm_specification.metric_definitions.unwrap()[0].regex, "auc:([0-9.]+)");
        assert_eq!(definition.stopping_condition.max_runtime_in_seconds, Some(3600));
    }
}
