//! The rules of a tuning job that span members of its request, and the plan that follows from them.
//!
//! Invariant: pure; every refusal says which member broke which rule and what to change. Single members have passed
//! the service model before, and what nothing acts on yet has been refused by name. Whether a regular expression
//! compiles, an image is registered or a quota is used up is the use case's to know.

mod channels;

use std::collections::HashSet;
use std::ops::RangeInclusive;

pub use self::channels::directory;
use crate::domain::request::{
    CheckpointConfig, MetricDefinition, Objective, ResourceConfig, ResourceLimits, Tag, TrainingDefinition,
    TuningRequest,
};
use crate::domain::s3::{InvalidUri, Location};
use crate::domain::space::{Space, SpaceError};
use crate::domain::status::{EarlyStopping, Strategy};

/// The hyperparameter that the service itself adds to every training job of a tuning job.
pub const OBJECTIVE_HYPERPARAMETER: &str = "_tuning_objective_metric";
/// Ranges of one tuning job.
pub const MAX_RANGES: usize = 30;
/// Hyperparameters of one training job: static, tuned, and the service's own.
pub const MAX_HYPERPARAMETERS: usize = 100;
/// Tags of one resource.
pub const MAX_TAGS: usize = 50;
/// `StoppingCondition.MaxRuntimeInSeconds` where it is not given: a day.
pub const DEFAULT_MAX_RUNTIME_SECONDS: i64 = 86_400;
/// The longest that a training job may run: 28 days.
pub const LONGEST_MAX_RUNTIME_SECONDS: i64 = 28 * 86_400;
/// The largest `MaxResource`, epochs.
pub const LARGEST_MAX_RESOURCE: u32 = 20_000;
/// The static hyperparameters that tell `MaxResource` where it is not given; the first that is there counts.
const EPOCHS_KEYS: [&str; 5] = ["epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs"];
/// Where checkpoints are seen by the training program unless the request says otherwise.
pub const DEFAULT_CHECKPOINT_PATH: &str = "/opt/ml/checkpoints";

/// What a valid request asks for, with what the service derives from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The search space.
    pub space: Space,
    /// What is optimised.
    pub objective: Objective,
    /// The metric definitions in force: the request's, else the image's.
    pub metric_definitions: Vec<MetricDefinition>,
    /// Budget of training jobs.
    pub max_jobs: u32,
}

/// A broken rule; the text is for the user.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// No definition of what to train.
    #[error("TrainingJobDefinition is required. Provide the definition of the training jobs to start.")]
    NoDefinition,
    /// No image.
    #[error("AlgorithmSpecification.TrainingImage is required. Provide the name of a registered training image.")]
    NoImage,
    /// No objective, or one that no metric definition names.
    #[error(
        "A metric is required for this hyperparameter tuning job objective. Provide a metric in the metric definitions. {0}"
    )]
    NoObjectiveMetric(String),
    /// A metric defined twice.
    #[error("The metric {0} has more than one metric definition. Give each metric one definition.")]
    DuplicateMetric(String),
    /// A range that is not well formed.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Nothing to tune.
    #[error("ParameterRanges has no range. Provide at least one integer, continuous or categorical parameter range.")]
    NoRanges,
    /// More ranges than the service searches.
    #[error("ParameterRanges has [{0}] ranges in all, more than [{MAX_RANGES}]. Move some to StaticHyperParameters.")]
    TooManyRanges(usize),
    /// A hyperparameter both tuned and static.
    #[error(
        "The hyperparameter {0} is both in ParameterRanges and in StaticHyperParameters. Remove it from one of them."
    )]
    StaticAndTuned(String),
    /// A name that the service uses itself, for something else than the service would.
    #[error(
        "The hyperparameter name {OBJECTIVE_HYPERPARAMETER} is reserved for the service, which sets it to the objective's \
         MetricName. Remove it."
    )]
    ReservedName,
    /// More hyperparameters than a training job takes.
    #[error(
        "A training job would get [{0}] hyperparameters (static, tuned and {OBJECTIVE_HYPERPARAMETER}), more than [{MAX_HYPERPARAMETERS}]. Remove some."
    )]
    TooManyHyperparameters(usize),
    /// Grid over something that has no grid.
    #[error(
        "The Grid strategy only searches categorical ranges, and {0} is not categorical. List its values in a CategoricalParameterRange or choose another strategy."
    )]
    GridRange(String),
    /// A grid that cannot be counted.
    #[error("The grid has more combinations than can be counted. Remove categorical values or ranges.")]
    GridTooLarge,
    /// A budget that is not the grid's size.
    #[error(
        "For the Grid strategy MaxNumberOfTrainingJobs must equal the number of combinations, [{combinations}], but is [{given}]. Change it or leave it out."
    )]
    GridBudget {
        /// The size of the grid.
        combinations: u64,
        /// As requested.
        given: u32,
    },
    /// No budget at all.
    #[error(
        "ResourceLimits needs MaxNumberOfTrainingJobs or MaxRuntimeInSeconds with the {0} strategy. Provide at least one."
    )]
    NoBudget(Strategy),
    /// Settings of another strategy.
    #[error("StrategyConfig.HyperbandStrategyConfig belongs to the Hyperband strategy, not to {0}. Leave it out.")]
    StrategyConfig(Strategy),
    /// Hyperband stops training jobs by its own rule.
    #[error(
        "TrainingJobEarlyStoppingType must be Off with the Hyperband strategy, which stops training jobs itself. Set it to Off or leave it out."
    )]
    HyperbandEarlyStopping,
    /// Nothing says how far a training job may go.
    #[error(
        "MaxResource parameter is not provided and could not be inferred from provided static hyperparameters of TrainingJobDefinition."
    )]
    NoMaxResource,
    /// A training job that would go farther than any may.
    #[error("MaxResource [{0}] is more than [{LARGEST_MAX_RESOURCE}]. Lower it.")]
    MaxResource(u32),
    /// Bounds the wrong way round.
    #[error("MinResource [{min}] is more than MaxResource [{max}]. Lower MinResource or raise MaxResource.")]
    Resources {
        /// As given, or 1.
        min: u32,
        /// As given, or inferred.
        max: u32,
    },
    /// A space smaller than the budget.
    #[error(
        "You don't have enough combinations of hyperparameter ranges. The total number of hyperparameter combinations for the provided ranges [{combinations:?}] must be equal or greater than the value of MaxNumberOfJobs, [{given}]. Provide additional ranges."
    )]
    TooFewCombinations {
        /// The size of the space.
        combinations: f64,
        /// As requested.
        given: u32,
    },
    /// Two channels of one name.
    #[error("The channel name {0} is used more than once in InputDataConfig. Give each channel its own name.")]
    DuplicateChannel(String),
    /// A channel name that is no folder name.
    #[error("The channel name {0} can't be the name of a folder. Choose another ChannelName.")]
    ChannelName(String),
    /// A channel without data, or with more than one source of it.
    #[error("The channel {0} must have either an S3DataSource or a FileSystemDataSource. Provide one of them.")]
    DataSource(String),
    /// An unusable directory of a file system.
    #[error("The DirectoryPath [{path}] of channel {channel} can't be used: {why}. Provide one such as /data/train.")]
    DirectoryPath {
        /// The channel.
        channel: String,
        /// As given.
        path: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A file system that is staged as objects are.
    #[error("The channel {0} has a FileSystemDataSource, which needs the input mode File. Set its InputMode to File.")]
    FileSystemInputMode(String),
    /// An augmented manifest that is not streamed; in the service's words.
    #[error(
        "AugmentedManifestFile can only be used if the Channel's input mode is Pipe. Set the InputMode of channel {0} to \
         Pipe."
    )]
    AugmentedInputMode(String),
    /// An augmented manifest of which nothing is asked for.
    #[error(
        "The channel {0} has the S3DataType AugmentedManifestFile and no AttributeNames. Name the attributes to stream."
    )]
    NoAttributeNames(String),
    /// Attributes of something that has none.
    #[error("AttributeNames of channel {0} belongs to the S3DataType AugmentedManifestFile. Leave it out.")]
    AttributeNames(String),
    /// What only streams have.
    #[error(
        "{member} [{value}] of channel {channel} is used only in Pipe input mode. Set it to None, or the channel's \
         InputMode to Pipe."
    )]
    PipeOnly {
        /// The channel.
        channel: String,
        /// Its member.
        member: &'static str,
        /// As given.
        value: String,
    },
    /// A folder where a pipe is to be.
    #[error(
        "The channel name {name} is also the name of a pipe of channel {pipe}, whose input mode is Pipe. Choose another \
         ChannelName."
    )]
    PipeName {
        /// The channel of that name.
        name: String,
        /// The channel with the pipe.
        pipe: String,
    },
    /// An unusable object URI.
    #[error("{field} [{uri}] is not a usable S3 URI: {why}. Provide a URI such as s3://bucket/prefix.")]
    Uri {
        /// The member.
        field: String,
        /// As given.
        uri: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// An unusable checkpoint folder.
    #[error(
        "CheckpointConfig.LocalPath [{path}] can't be used: {why}. Choose a folder such as {DEFAULT_CHECKPOINT_PATH}."
    )]
    LocalPath {
        /// As given.
        path: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No resources.
    #[error(
        "Either ResourceConfig or HyperParameterTuningResourceConfig is required. Provide one with InstanceType and InstanceCount."
    )]
    NoResources,
    /// Two resource members that disagree.
    #[error("ResourceConfig and HyperParameterTuningResourceConfig differ. Provide only one of them.")]
    TwoResources,
    /// A missing or senseless member of the resources.
    #[error("{field}.{member} {why}.")]
    Resource {
        /// Which resource member.
        field: &'static str,
        /// Its member.
        member: &'static str,
        /// What is wrong, and what to change.
        why: &'static str,
    },
    /// A training job that would run longer than any may.
    #[error(
        "StoppingCondition.MaxRuntimeInSeconds [{0}] is more than 28 days, [{LONGEST_MAX_RUNTIME_SECONDS}]. Lower it."
    )]
    MaxRuntime(i64),
    /// A wait without spot training; in the service's words.
    #[error("Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true")]
    WaitWithoutSpot,
    /// Spot training without a wait, or with one shorter than the run; in the service's words.
    #[error("Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds")]
    MaxWait,
    /// A tag key given twice.
    #[error("The tag key {0} is given more than once. Give each tag its own key.")]
    DuplicateTag(String),
    /// A tag key that only the service may set.
    #[error("The tag key {0} begins with the reserved prefix aws:. Choose another key.")]
    ReservedTag(String),
    /// More tags than a resource has.
    #[error("The resource would have [{0}] tags, more than [{MAX_TAGS}]. Remove some.")]
    TooManyTags(usize),
}

/// Checks a request and says what it asks for. `registered` are the metric definitions of the image; `most_jobs` is the
/// budget where the request has none but a run time: the quota.
pub fn plan(request: &TuningRequest, registered: &[MetricDefinition], most_jobs: u32) -> Result<Plan, RuleError> {
    let definition = request.training_job_definition.as_ref().ok_or(RuleError::NoDefinition)?;
    let metric_definitions = metric_definitions(definition, registered)?;
    let objective = objective(request, &metric_definitions)?;
    let space = space(request, definition, &objective)?;
    let max_jobs = budget(request.config.strategy, &request.config.resource_limits, &space, most_jobs)?;
    resource(request)?;
    training(definition)?;
    tags(request.tags.as_deref().unwrap_or_default())?;
    Ok(Plan { space, objective, metric_definitions, max_jobs })
}

/// How far a training job goes at least and at most, in epochs, for a strategy that decides by that: Hyperband.
pub fn resource(request: &TuningRequest) -> Result<Option<RangeInclusive<u32>>, RuleError> {
    let config = &request.config;
    let given = config.strategy_config.as_ref().and_then(|c| c.hyperband.as_ref());
    let (min, max) = given.map_or((None, None), |given| (given.min_resource, given.max_resource));
    if config.strategy != Strategy::Hyperband {
        let unused = min.is_none() && max.is_none();
        return if unused { Ok(None) } else { Err(RuleError::StrategyConfig(config.strategy)) };
    }
    if config.early_stopping == Some(EarlyStopping::Auto) {
        return Err(RuleError::HyperbandEarlyStopping);
    }
    let statics = request.training_job_definition.as_ref().and_then(|d| d.static_hyper_parameters.as_ref());
    let told = || EPOCHS_KEYS.iter().find_map(|key| statics?.get(*key)?.trim().parse().ok());
    let max = max.or_else(told).filter(|max| *max > 0).ok_or(RuleError::NoMaxResource)?;
    let min = min.unwrap_or(1);
    if max > LARGEST_MAX_RESOURCE {
        return Err(RuleError::MaxResource(max));
    }
    if min > max { Err(RuleError::Resources { min, max }) } else { Ok(Some(min..=max)) }
}

/// The request's metric definitions, or the image's where it has none.
fn metric_definitions(
    definition: &TrainingDefinition,
    registered: &[MetricDefinition],
) -> Result<Vec<MetricDefinition>, RuleError> {
    let own = definition.algorithm_specification.metric_definitions.as_deref().unwrap_or_default();
    let in_force = if own.is_empty() { registered } else { own };
    let mut names = HashSet::new();
    match in_force.iter().find(|m| !names.insert(m.name.as_str())) {
        Some(twice) => Err(RuleError::DuplicateMetric(twice.name.clone())),
        None => Ok(in_force.to_vec()),
    }
}

fn objective(request: &TuningRequest, metrics: &[MetricDefinition]) -> Result<Objective, RuleError> {
    let missing = |remark: String| RuleError::NoObjectiveMetric(remark);
    let objective =
        request.config.objective.as_ref().ok_or_else(|| {
            missing("HyperParameterTuningJobConfig has no HyperParameterTuningJobObjective.".to_owned())
        })?;
    if metrics.iter().any(|m| m.name == objective.metric_name) {
        return Ok(objective.clone());
    }
    let defined: Vec<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
    Err(missing(format!(
        "The objective is [{}]; the defined metrics are [{}].",
        objective.metric_name,
        defined.join(", ")
    )))
}

fn space(request: &TuningRequest, definition: &TrainingDefinition, objective: &Objective) -> Result<Space, RuleError> {
    let space = request.config.parameter_ranges.as_ref().map(Space::parse).transpose()?.unwrap_or_default();
    let tuned = space.parameters.len();
    if tuned == 0 {
        return Err(RuleError::NoRanges);
    }
    if tuned > MAX_RANGES {
        return Err(RuleError::TooManyRanges(tuned));
    }
    let statics = definition.static_hyper_parameters.as_ref();
    let is_static = |name: &str| statics.is_some_and(|s| s.contains_key(name));
    // A definition that Describe showed has it, and may be sent again.
    let own = statics.and_then(|s| s.get(OBJECTIVE_HYPERPARAMETER));
    if own.is_some_and(|value| *value != objective.metric_name)
        || space.parameters.iter().any(|p| p.name == OBJECTIVE_HYPERPARAMETER)
    {
        return Err(RuleError::ReservedName);
    }
    if let Some(both) = space.parameters.iter().find(|p| is_static(&p.name)) {
        return Err(RuleError::StaticAndTuned(both.name.clone()));
    }
    let all = tuned + statics.map_or(0, std::collections::BTreeMap::len) + usize::from(own.is_none());
    if all > MAX_HYPERPARAMETERS {
        return Err(RuleError::TooManyHyperparameters(all));
    }
    Ok(space)
}

/// The budget of training jobs: as requested; the grid's size for Grid; else, where only a run time bounds the job, as
/// many as the space has and the quota allows.
fn budget(strategy: Strategy, limits: &ResourceLimits, space: &Space, most_jobs: u32) -> Result<u32, RuleError> {
    let given = limits.max_number_of_training_jobs;
    if strategy == Strategy::Grid {
        if let Some(p) = space.parameters.iter().find(|p| !p.range.is_categorical()) {
            return Err(RuleError::GridRange(p.name.clone()));
        }
        let combinations = space.cardinality().ok_or(RuleError::GridTooLarge)?;
        if let Some(given) = given.filter(|given| u64::from(*given) != combinations) {
            return Err(RuleError::GridBudget { combinations, given });
        }
        return u32::try_from(combinations).map_err(|_| RuleError::GridTooLarge);
    }
    let combinations = space.cardinality();
    match (given, combinations) {
        (Some(given), Some(n)) if n < u64::from(given) => {
            Err(RuleError::TooFewCombinations { combinations: n as f64, given })
        }
        (Some(given), _) => Ok(given),
        (None, _) if limits.max_runtime_in_seconds.is_none() => Err(RuleError::NoBudget(strategy)),
        (None, n) => Ok(n.map_or(most_jobs, |n| u32::try_from(n).unwrap_or(most_jobs).min(most_jobs))),
    }
}

/// What a training job needs to run.
fn training(definition: &TrainingDefinition) -> Result<(), RuleError> {
    let input_mode = &definition.algorithm_specification.training_input_mode;
    channels::check(definition.input_data_config.as_deref().unwrap_or_default(), input_mode)?;
    s3_uri("OutputDataConfig.S3OutputPath", &definition.output_data_config.s3_output_path)?;
    definition.checkpoint_config.as_ref().map_or(Ok(()), checkpoints)?;
    resources(definition)?;
    let condition = &definition.stopping_condition;
    let runtime = condition.max_runtime_in_seconds.unwrap_or(DEFAULT_MAX_RUNTIME_SECONDS);
    if runtime > LONGEST_MAX_RUNTIME_SECONDS {
        return Err(RuleError::MaxRuntime(runtime));
    }
    match (definition.enable_managed_spot_training == Some(true), condition.max_wait_time_in_seconds) {
        (false, Some(_)) => Err(RuleError::WaitWithoutSpot),
        (true, wait) if wait.is_none_or(|wait| wait < runtime) => Err(RuleError::MaxWait),
        _ => Ok(()),
    }
}

fn checkpoints(config: &CheckpointConfig) -> Result<(), RuleError> {
    s3_uri("CheckpointConfig.S3Uri", &config.s3_uri)?;
    let Some(path) = config.local_path.as_deref() else { return Ok(()) };
    let refused = |why| Err(RuleError::LocalPath { path: path.to_owned(), why });
    let Some(below) = path.strip_prefix("/opt/ml/") else {
        return refused("it is not beneath /opt/ml");
    };
    let below = below.strip_suffix('/').unwrap_or(below);
    if below.chars().any(char::is_control) || below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refused("it has an empty part, a control character, `.` or `..`");
    }
    if matches!(below.split('/').next(), Some("input" | "model" | "output")) {
        return refused("the service itself uses /opt/ml/input, /opt/ml/model and /opt/ml/output");
    }
    Ok(())
}

fn resources(definition: &TrainingDefinition) -> Result<(), RuleError> {
    let one = definition.resource_config.as_ref();
    let other = definition.hyper_parameter_tuning_resource_config.as_ref();
    // Describe answers both, so a request made from an answer has both; they must then agree.
    if let (Some(a), Some(b)) = (one, other)
        && !a.agrees_with(b)
    {
        return Err(RuleError::TwoResources);
    }
    one.map_or(Ok(()), |config| resource_config("ResourceConfig", config))?;
    other.map_or(Ok(()), |config| resource_config("HyperParameterTuningResourceConfig", config))?;
    one.or(other).map(|_| ()).ok_or(RuleError::NoResources)
}

fn resource_config(field: &'static str, config: &ResourceConfig) -> Result<(), RuleError> {
    let broken = |member, why| Err(RuleError::Resource { field, member, why });
    if config.instance_type.is_none() {
        return broken("InstanceType", "is required. Provide one such as ml.m5.large");
    }
    match config.instance_count {
        None => broken("InstanceCount", "is required. Set it to 1"),
        Some(n) if n < 1 => broken("InstanceCount", "must be at least 1. Set it to 1"),
        Some(_) => Ok(()),
    }
}

/// Checks a set of tags that a user gives: unique keys, none of the service's own.
pub fn tags(tags: &[Tag]) -> Result<(), RuleError> {
    let mut keys = HashSet::new();
    for tag in tags {
        if tag.key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
            return Err(RuleError::ReservedTag(tag.key.clone()));
        }
        if !keys.insert(tag.key.as_str()) {
            return Err(RuleError::DuplicateTag(tag.key.clone()));
        }
    }
    tag_count(tags.len())
}

/// Checks how many tags a resource would have.
pub fn tag_count(count: usize) -> Result<(), RuleError> {
    if count > MAX_TAGS { Err(RuleError::TooManyTags(count)) } else { Ok(()) }
}

/// Checks a URI that the object store will be asked for, as that will read it.
fn s3_uri(field: &str, uri: &str) -> Result<(), RuleError> {
    match Location::parse(uri) {
        Ok(_) => Ok(()),
        Err(InvalidUri { uri, why }) => Err(RuleError::Uri { field: field.to_owned(), uri, why }),
    }
}

#[cfg(test)]
mod tests;
