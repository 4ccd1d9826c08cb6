//! From rows to what an executor needs: an attempt's spec, with its channels staged.
//!
//! Invariant: a function of rows and of the object store, so that a restarted server makes the same spec again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::domain::decide::{AttemptView, TrainingView};
use crate::domain::outcome::Exit;
use crate::domain::request::{Channel, MetricDefinition, Objective, S3DataSource, TrainingDefinition};
use crate::domain::rules::{DEFAULT_CHECKPOINT_PATH, DEFAULT_MAX_RUNTIME_SECONDS, OBJECTIVE_HYPERPARAMETER};
use crate::domain::status::SecondaryStatus;
use crate::domain::time::Timestamp;
use crate::executor::{AttemptSpec, ChannelSpec, CheckpointSpec, PipeSpec};
use crate::metrics::Scraper;
use crate::objects::{Names, Objects, ObjectsError, Staged};
use crate::store::rows::{Attempt, Definition, TrainingJob};

/// Between SIGTERM and SIGKILL, as the service gives.
const STOP_GRACE_MS: i64 = 120_000;

/// A definition's row, read.
#[derive(Debug, Clone)]
pub struct ReadDefinition {
    /// The training-job definition of the request.
    pub training: TrainingDefinition,
    /// The metric definitions in force.
    pub metrics: Vec<MetricDefinition>,
    /// What is tuned for.
    pub objective: Option<Objective>,
}

/// A definition with its expressions compiled, shared by the attempts of its training jobs.
#[derive(Debug)]
pub struct Prepared {
    /// The row, read.
    pub read: ReadDefinition,
    /// Its metric definitions; each log forks it.
    pub scraper: Scraper,
    /// Whether its training jobs may be stopped early, so that their curves are followed.
    pub stops_early: bool,
}

/// How often and how long a training job is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Attempts that it may have, interruptions not counted.
    pub max_attempts: u32,
    /// Whether it may be interrupted.
    pub spot: bool,
    /// From its creation to its end, waiting included.
    pub max_wait_ms: Option<i64>,
}

impl Tries {
    /// What is to be decided on a training job, with its latest attempt and how that ended.
    #[must_use]
    pub fn view<'a>(
        &self,
        job: &TrainingJob,
        attempt: Option<&Attempt>,
        exit: Option<&'a Exit>,
        now: Timestamp,
    ) -> TrainingView<'a> {
        let interruptions = job.transitions.iter().filter(|entry| entry.status == SecondaryStatus::Interrupted).count();
        let at = exit.map_or(now, |exit| exit.ended_at);
        TrainingView {
            status: job.status,
            stop_requested: job.stop_requested_at.is_some(),
            attempt: attempt.map(|a| AttemptView { number: a.id.number, stop_requested: a.stop_requested, exit }),
            max_attempts: self.max_attempts.saturating_add(u32::try_from(interruptions).unwrap_or(u32::MAX)),
            spot: self.spot,
            waited_out: self.max_wait_ms.is_some_and(|wait| at.since_ms(job.created_at) >= wait),
        }
    }
}

impl ReadDefinition {
    /// Reads a row.
    pub fn read(row: &Definition) -> Result<Self, serde_json::Error> {
        let mut training: TrainingDefinition = serde_json::from_str(&row.document)?;
        Ok(Self {
            metrics: training.algorithm_specification.metric_definitions.take().unwrap_or_default(),
            training,
            objective: row.objective.as_deref().map(serde_json::from_str).transpose()?,
        })
    }

    /// The objective's index among the metric definitions.
    #[must_use]
    pub fn objective_index(&self) -> Option<usize> {
        let objective = self.objective.as_ref()?;
        self.metrics.iter().position(|m| m.name == objective.metric_name)
    }

    /// How often and how long a training job is tried.
    #[must_use]
    pub fn tries(&self) -> Tries {
        let spot = self.training.enable_managed_spot_training == Some(true);
        let max_wait_s = self.training.stopping_condition.max_wait_time_in_seconds.filter(|_| spot);
        Tries {
            max_attempts: 1 + self.training.retry_strategy.as_ref().map_or(0, |r| r.maximum_retry_attempts),
            spot,
            max_wait_ms: max_wait_s.map(|seconds| seconds.saturating_mul(1000)),
        }
    }

    /// How long an attempt that is started now may run, where the attempts before it ran so long together.
    #[must_use]
    pub fn remaining_ms(&self, job: &TrainingJob, used_ms: i64, now: Timestamp) -> i64 {
        let run = self.max_runtime_ms() - used_ms;
        self.tries().max_wait_ms.map_or(run, |wait| run.min(wait - now.since_ms(job.created_at)))
    }

    /// How long all attempts of a training job may run together.
    #[must_use]
    pub fn max_runtime_ms(&self) -> i64 {
        let seconds = self.training.stopping_condition.max_runtime_in_seconds.unwrap_or(DEFAULT_MAX_RUNTIME_SECONDS);
        seconds.saturating_mul(1000)
    }

    /// Where a training job's artifacts go: `s3://…/<job>/output`.
    #[must_use]
    pub fn output_uri(&self, job_name: &str) -> String {
        format!("{}/{job_name}/output", self.training.output_data_config.s3_output_path.trim_end_matches('/'))
    }

    /// Where a training job's checkpoints are saved; none where it asks for none.
    #[must_use]
    pub fn checkpoints_uri(&self, job_name: &str) -> Option<String> {
        let config = self.training.checkpoint_config.as_ref()?;
        Some(format!("{}/{job_name}", config.s3_uri.trim_end_matches('/')))
    }

    /// Whether artifacts are packed (`GZIP`, the default) or stored as they are (`NONE`).
    #[must_use]
    pub fn packs_artifacts(&self) -> bool {
        self.training.output_data_config.compression_type.as_deref() != Some("NONE")
    }
}

/// Why an attempt's folders could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// An input channel.
    #[error("the channel {name} could not be prepared")]
    Channel {
        /// The channel.
        name: String,
        /// What is wrong with its data.
        #[source]
        source: ObjectsError,
    },
    /// The folder that stands for `CheckpointConfig`.
    #[error("the folder of the checkpoints could not be prepared")]
    Checkpoints(#[source] ObjectsError),
}

impl StagingError {
    /// Whether the request is to blame; otherwise the object store failed, and may not another time.
    #[must_use]
    pub fn is_the_jobs_own(&self) -> bool {
        let (Self::Channel { source, .. } | Self::Checkpoints(source)) = self;
        !source.is_infrastructure()
    }
}

/// Stages an attempt's channels and says what to start, for `max_runtime_ms` at most.
pub async fn attempt_spec(
    objects: &Objects,
    job: &TrainingJob,
    attempt: &Attempt,
    definition: &ReadDefinition,
    max_runtime_ms: i64,
) -> Result<AttemptSpec, StagingError> {
    let training = &definition.training;
    let mut channels = Vec::new();
    for channel in training.input_data_config.iter().flatten() {
        let staged = match (&channel.data_source.s3, &channel.data_source.file_system) {
            (Some(s3), _) => {
                let tuning_job = job.tuning_job_id.unwrap_or(job.id);
                objects.stage(&s3.uri, &names(s3), attempt.id, tuning_job).await
            }
            (None, Some(source)) => {
                let directory = objects.directory(&source.id, &source.directory).await;
                directory.map(Staged::from)
            }
            (None, None) => continue,
        };
        let name = &channel.channel_name;
        let staged = staged.map_err(|source| StagingError::Channel { name: name.clone(), source })?;
        let is_pipe = channel.mode(&training.algorithm_specification.training_input_mode) == "Pipe";
        channels.push(ChannelSpec {
            name: channel.channel_name.clone(),
            source: staged.path,
            sharded: channel
                .data_source
                .s3
                .as_ref()
                .is_some_and(|s3| s3.distribution.as_deref() == Some("ShardedByS3Key")),
            config: channel_config(training, channel),
            pipe: is_pipe.then(|| pipe_spec(channel, staged.list, staged.buckets)),
        });
    }
    let checkpoints = match definition.checkpoints_uri(&job.name) {
        None => None,
        Some(uri) => {
            let local_path = training.checkpoint_config.as_ref().and_then(|config| config.local_path.as_deref());
            let source = objects.checkpoints(&uri, attempt.id).await.map_err(StagingError::Checkpoints)?;
            Some(CheckpointSpec { source, target: PathBuf::from(local_path.unwrap_or(DEFAULT_CHECKPOINT_PATH)) })
        }
    };
    let resources = [&training.resource_config, &training.hyper_parameter_tuning_resource_config];
    let resources = || resources.into_iter().flatten();
    let volume_gb = resources().find_map(|resources| resources.volume_size_in_gb);
    Ok(AttemptSpec {
        id: attempt.id,
        training_job_name: job.name.clone(),
        training_job_arn: job.scope.training_job_arn(&job.name),
        image: training.algorithm_specification.training_image.clone().unwrap_or_default(),
        hyperparameters: hyperparameters(definition, job),
        environment: training.environment.clone().unwrap_or_default(),
        channels,
        checkpoints,
        instance_type: resources().find_map(|resources| resources.instance_type.clone()),
        hosts: training.hosts(),
        network_isolation: training.enable_network_isolation == Some(true),
        // The service's 0 says that none is asked for.
        volume_bytes: volume_gb.and_then(|gb| u64::try_from(gb).ok()).filter(|gb| *gb > 0).map(|gb| gb << 30),
        max_runtime_ms,
        stop_grace_ms: STOP_GRACE_MS,
    })
}

/// Static and tuned hyperparameters, and the name of the objective.
fn hyperparameters(definition: &ReadDefinition, job: &TrainingJob) -> BTreeMap<String, String> {
    let mut all = definition.training.static_hyper_parameters.clone().unwrap_or_default();
    all.extend(job.tuned.clone());
    if let Some(objective) = &definition.objective {
        all.insert(OBJECTIVE_HYPERPARAMETER.to_owned(), objective.metric_name.clone());
    }
    all
}

fn names(source: &S3DataSource) -> Names {
    match source.data_type.as_str() {
        "ManifestFile" => Names::Manifest,
        _ if source.is_augmented() => {
            Names::Augmented { attributes: source.attribute_names.clone().unwrap_or_default() }
        }
        _ => Names::Prefix,
    }
}

/// How a channel is streamed.
fn pipe_spec(channel: &Channel, list: Option<PathBuf>, buckets: BTreeMap<String, PathBuf>) -> PipeSpec {
    PipeSpec {
        list,
        buckets,
        record_io: channel.record_wrapper_type.as_deref() == Some("RecordIO"),
        gzip: channel.compression_type.as_deref() == Some("Gzip"),
        shuffle_seed: channel.shuffle_config.map(|shuffle| shuffle.seed),
    }
}

/// A channel's entry in `inputdataconfig.json`.
fn channel_config(training: &TrainingDefinition, channel: &Channel) -> BTreeMap<String, String> {
    let mode = channel.mode(&training.algorithm_specification.training_input_mode);
    let distribution = channel.data_source.s3.as_ref().and_then(|s3| s3.distribution.as_deref());
    let mut config = BTreeMap::from([
        ("TrainingInputMode".to_owned(), mode.to_owned()),
        ("S3DistributionType".to_owned(), distribution.unwrap_or("FullyReplicated").to_owned()),
        ("RecordWrapperType".to_owned(), channel.record_wrapper_type.clone().unwrap_or_else(|| "None".to_owned())),
    ]);
    if let Some(content_type) = &channel.content_type {
        config.insert("ContentType".to_owned(), content_type.clone());
    }
    config
}
