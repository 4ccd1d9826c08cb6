//! Tuning jobs: create, describe, list, stop, delete.
//!
//! Invariant: the request is kept as it came; what is derived from it stands beside it. A tuning job's end, and all
//! that happens to its training jobs, is the scheduler's.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::app::creation::NewJob;
use crate::app::training_jobs::{DefinitionView, TrainingJobView};
use crate::app::{
    App, AppError, ListQuery, Page, SortKey, TuningJob, TuningJobSummary, defaults, expressions, script_mode,
};
use crate::domain::document::Document;
use crate::domain::names::{Scope, new_row_id};
use crate::domain::request::{FileSystemDataSource, TrainingDefinition, TuningRequest};
use crate::domain::rules::{self, Plan, RuleError};
use crate::domain::status::TuningStatus;
use crate::domain::time::Timestamp;
use crate::executor::contract::{self, Code};
use crate::executor::images::Image;
use crate::store::rows::{Definition, ObjectiveCounters, TrainingCounters, TuningJobDescription};
use crate::store::{Tx, WriteClass, training_jobs, tuning_jobs};

/// All that Describe shows.
#[derive(Debug, Clone)]
pub struct TuningJobView {
    /// What lists show too.
    pub summary: TuningJobSummary,
    /// Why it failed, or a remark.
    pub failure_reason: Option<String>,
    /// Training jobs over, with a value, since the best was found.
    pub not_improving: u32,
    /// `HyperParameterTuningJobConfig` of the request, completed.
    pub config: Box<RawValue>,
    /// `TrainingJobDefinition` of the request, completed.
    pub definition: Box<RawValue>,
    /// The best training job; none before the first has completed, or was stopped early, with a value.
    pub best: Option<TrainingJobView>,
    /// When it was read: a running job's run time counts to here.
    pub now: Timestamp,
}

/// Creates a tuning job from a request that is valid under the service model, and returns its ARN. `raw` is the same
/// request as it came.
pub async fn create(app: &App, scope: Scope, mut input: Document<'_>, raw: &str) -> Result<String, AppError> {
    use serde::Deserialize as _;
    let request = TuningRequest::deserialize(&input)
        .map_err(|error| AppError::Validation(format!("The request could not be read: {error}.")))?;
    let image = image(app, &request)?;
    let plan = check(app, &request, &image)?;
    if image.script_mode
        && let Some(definition) = input.get_mut("TrainingJobDefinition")
    {
        script_mode::add_code_channel(definition);
    }
    let new = new_job(app.clock.now(), scope, &request, &plan, &mut input, raw)?;
    let arn = new.job.scope.tuning_job_arn(&new.job.name);
    let (id, seed) = (new.job.id, new.job.seed);
    app.creation.insert(&app.db, new, app.quotas.concurrent_tuning_jobs).await?;
    tracing::info!(tuning_job = %arn, %id, seed, "created");
    app.calls.call(id);
    Ok(arn)
}

fn image<'a>(app: &'a App, request: &TuningRequest) -> Result<Cow<'a, Image>, AppError> {
    let definition = request.training_job_definition.as_ref().ok_or(RuleError::NoDefinition)?;
    let name = definition.algorithm_specification.training_image.as_deref().ok_or(RuleError::NoImage)?;
    app.images.find(name).ok_or_else(|| unregistered(app, name))
}

/// Everything that can be refused without the database.
fn check(app: &App, request: &TuningRequest, image: &Image) -> Result<Plan, AppError> {
    let definition = request.training_job_definition.as_ref().ok_or(RuleError::NoDefinition)?;
    let code = if image.as_container().is_some() { Code::OfTheImage } else { Code::OfTheOwner };
    if code == Code::OfTheOwner && definition.enable_network_isolation == Some(true) {
        return Err(AppError::Validation(
            "Value 'true' at 'trainingJobDefinition.enableNetworkIsolation' is not supported for an image that is a \
             program of the server's machine, as it has the network of that machine. Use false, or a container image."
                .to_owned(),
        ));
    }
    hosts(definition, code, app.quotas.hosts_per_training_job)?;
    pipes(app, definition, code)?;
    for name in definition.environment.iter().flat_map(|environment| environment.keys()) {
        if let Some(why) = contract::refused_variable(name, code) {
            return Err(AppError::Validation(format!(
                "The environment variable [{name}] cannot be set by a training job: {why}. Remove it from \
                 TrainingJobDefinition.Environment; pass settings as hyperparameters or under another name."
            )));
        }
    }
    for source in definition.input_data_config.iter().flatten().filter_map(|c| c.data_source.file_system.as_ref()) {
        check_file_system(app, source)?;
    }
    let plan = rules::plan(request, &image.metric_definitions, app.quotas.training_jobs_per_tuning_job)?;
    within("training_jobs_per_tuning_job", app.quotas.training_jobs_per_tuning_job, plan.max_jobs)?;
    let parallel = request.config.resource_limits.max_parallel_training_jobs;
    within("parallel_training_jobs", app.quotas.parallel_training_jobs, parallel)?;
    expressions::check(&plan.metric_definitions).map_err(|error| AppError::Validation(error.to_string()))?;
    Ok(plan)
}

/// Sees that a file system is one of this server's, by its id and its type.
fn check_file_system(app: &App, FileSystemDataSource { id, kind, .. }: &FileSystemDataSource) -> Result<(), AppError> {
    let known: Vec<_> = app.objects.file_systems().map(|(id, kind)| (id, format!("{kind:?}"))).collect();
    if known.iter().any(|known| (known.0, &known.1) == (id.as_str(), kind)) {
        return Ok(());
    }
    let known: Vec<_> = known.iter().map(|(id, kind)| format!("{id} ({kind})")).collect();
    Err(AppError::Validation(format!(
        "The file system [{id} ({kind})] is not one of this server's. Its file systems are [{}]. Use one of them, or add \
         a [[file_systems]] entry to the server's configuration.",
        known.join(", ")
    )))
}

/// Refuses more hosts than there may be.
fn hosts(definition: &TrainingDefinition, code: Code, most: u32) -> Result<(), AppError> {
    let hosts = definition.hosts();
    if hosts > 1 && code == Code::OfTheOwner {
        let member =
            if definition.resource_config.is_some() { "resourceConfig" } else { "hyperParameterTuningResourceConfig" };
        return Err(AppError::Validation(format!(
            "Value '{hosts}' at 'trainingJobDefinition.{member}.instanceCount' is not supported for an image that is a \
             program of the server's machine: only container images run on several hosts. Use 1, or a container image."
        )));
    }
    let asked = u32::try_from(hosts).unwrap_or(u32::MAX);
    within("hosts_per_training_job", most, asked)
}

/// Refuses streams into containers where there is nothing to make them with.
fn pipes(app: &App, definition: &TrainingDefinition, code: Code) -> Result<(), AppError> {
    let mode = &definition.algorithm_specification.training_input_mode;
    let mut channels = definition.input_data_config.iter().flatten();
    let refused = code == Code::OfTheImage && !app.container_pipes;
    match channels.find(|channel| refused && channel.mode(mode) == "Pipe") {
        None => Ok(()),
        Some(channel) => Err(AppError::Validation(format!(
            "The input mode Pipe of channel {} is not supported for a container image on this server, as it has no helper \
             to stream with. Use File or FastFile, or set docker.helper_image in the server's configuration.",
            channel.channel_name
        ))),
    }
}

fn unregistered(app: &App, name: &str) -> AppError {
    let registered: Vec<&str> = app.images.names().collect();
    AppError::Validation(format!(
        "The training image [{name}] is not registered with this server. The registered images are [{}]. Use one of \
         them, or add an [[images]] entry to the server's configuration.",
        registered.join(", ")
    ))
}

fn within(quota: &'static str, limit: u32, asked: u32) -> Result<(), AppError> {
    let (what, unit) = match quota {
        "parallel_training_jobs" => {
            ("Maximum number of parallel training jobs per hyperparameter tuning job", "Training Jobs")
        }
        "hosts_per_training_job" => ("Number of instances for a training job", "Instances"),
        _ => ("Maximum number of training jobs per hyperparameter tuning job", "Training Jobs"),
    };
    if asked <= limit { Ok(()) } else { Err(exceeded(what, quota, unit, limit, 0, asked)) }
}

/// A used-up quota in the service's words, with the setting that raises it.
pub(super) fn exceeded(what: &str, setting: &str, unit: &str, limit: u32, used: u32, asked: u32) -> AppError {
    AppError::LimitExceeded(format!(
        "The account-level service limit '{what}' is {limit} {unit}, with current utilization of {used} {unit} and a \
         request delta of {asked} {unit}. Ask for less, or raise quotas.{setting} in the server's configuration."
    ))
}

fn new_job(
    now: Timestamp,
    scope: Scope,
    request: &TuningRequest,
    plan: &Plan,
    input: &mut Document<'_>,
    raw: &str,
) -> Result<NewJob, AppError> {
    let limits = &request.config.resource_limits;
    let training = input.take("TrainingJobDefinition");
    let config = defaults::config(input.take("HyperParameterTuningJobConfig"), plan.max_jobs).to_string();
    let id = new_row_id(now);
    let definition = Definition {
        id,
        tuning_job_name: Some(request.name.clone()),
        document: defaults::definition(training, &plan.metric_definitions, &plan.objective).to_string(),
        objective: Some(serde_json::to_string(&plan.objective).map_err(AppError::unreadable)?),
    };
    let job = TuningJob {
        id,
        scope,
        name: request.name.clone(),
        status: TuningStatus::InProgress,
        strategy: request.config.strategy,
        seed: request.config.random_seed.unwrap_or_else(draw_seed),
        max_jobs: plan.max_jobs,
        max_parallel: limits.max_parallel_training_jobs,
        max_runtime_ms: limits.max_runtime_in_seconds.map(|seconds| seconds.saturating_mul(1000)),
        created_at: now,
        modified_at: now,
        ended_at: None,
        stop_requested_at: None,
        failure_reason: None,
        counters: TrainingCounters::default(),
        objective: ObjectiveCounters::default(),
        best: None,
        observed: 0,
        inserted: 0,
        not_improving: 0,
        exhausted: false,
        lease_owner: None,
        lease_epoch: 0,
    };
    let tags = request.tags.clone().unwrap_or_default();
    Ok(NewJob { job, request: raw.to_owned(), config, definition, tags })
}

/// A seed that the user could have sent as `RandomSeed`: 31 random bits, folded from an id so that none of the id's fixed
/// bits remains alone.
fn draw_seed() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    let mixed = high ^ low.rotate_left(32);
    (mixed ^ (mixed >> 32)) & 0x7fff_ffff
}

/// A tuning job with what Describe shows beside it.
pub async fn describe(app: &App, scope: &Scope, name: &str) -> Result<TuningJobView, AppError> {
    let now = app.clock.now();
    let (scope, key) = (scope.clone(), name.to_owned());
    let found = app
        .db
        .glance(move |tx| {
            Box::pin(async move { tuning_jobs::describe(tx, &scope, &key).await.map_err(AppError::from) })
        })
        .await?;
    let TuningJobDescription {
        summary,
        failure_reason,
        best,
        not_improving,
        config,
        tuning_job_name,
        document,
        objective,
    } = found.ok_or_else(|| AppError::no_tuning_job(name))?;
    // The best job is over and changes no more, so a second look shows the same as one snapshot of both would.
    let best = match best {
        Some(id) => app.db.glance(move |tx| Box::pin(training_jobs::get(tx, id))).await?,
        None => None,
    };
    let best = best.map(|job| {
        let definition = DefinitionView::new(tuning_job_name, document.clone(), objective.as_deref())?;
        Ok::<_, AppError>(TrainingJobView { job, definition: Arc::new(definition) })
    });
    Ok(TuningJobView {
        summary,
        failure_reason,
        not_improving,
        config: RawValue::from_string(config).map_err(AppError::unreadable)?,
        definition: RawValue::from_string(document).map_err(AppError::unreadable)?,
        best: best.transpose()?,
        now,
    })
}

/// A page of the scope's tuning jobs.
pub async fn list(
    app: &App,
    scope: &Scope,
    query: ListQuery<TuningStatus, SortKey>,
) -> Result<Page<TuningJobSummary>, AppError> {
    let scope = scope.clone();
    if query.is_unfiltered() {
        return app.db.glance(move |tx| Box::pin(list_page(tx, scope, query))).await;
    }
    app.db.read(move |tx| Box::pin(list_page(tx, scope, query))).await
}

async fn list_page(
    tx: &mut Tx<'_>,
    scope: Scope,
    query: ListQuery<TuningStatus, SortKey>,
) -> Result<Page<TuningJobSummary>, AppError> {
    Ok(tuning_jobs::list(tx, &scope, &query).await?)
}

/// Asks a tuning job to stop, and all that it runs. Once this returns it starts nothing more. Asking twice is asking once.
pub async fn stop(app: &App, scope: &Scope, name: &str) -> Result<(), AppError> {
    let (scope, name) = (scope.clone(), name.to_owned());
    let now = app.clock.now();
    let id = app
        .db
        .write(WriteClass::Api, move |tx| {
            let (scope, name) = (scope.clone(), name.clone());
            Box::pin(async move {
                let mut job = find_and_lock(tx, &scope, &name).await?;
                if job.status.is_terminal() {
                    return Err(AppError::Validation(format!(
                        "The request was rejected because the hyperparameter tuning job {} is already in status {}.",
                        job.name, job.status
                    )));
                }
                if job.status == TuningStatus::InProgress {
                    job.status = TuningStatus::Stopping;
                    job.stop_requested_at = Some(now);
                    job.modified_at = now;
                    tuning_jobs::update(tx, &job).await?;
                    let live = training_jobs::live(tx, job.id).await?;
                    super::training_jobs::ask_to_stop(tx, live, now).await?;
                }
                Ok(job.id)
            })
        })
        .await?;
    app.calls.call(id);
    Ok(())
}

/// Deletes a tuning job that is over; its training jobs and their artifacts stay.
pub async fn delete(app: &App, scope: &Scope, name: &str) -> Result<(), AppError> {
    let (scope, name) = (scope.clone(), name.to_owned());
    app.db
        .write(WriteClass::Api, move |tx| {
            let (scope, name) = (scope.clone(), name.clone());
            Box::pin(async move {
                let job = find_and_lock(tx, &scope, &name).await?;
                if !job.status.is_terminal() {
                    return Err(AppError::Validation(format!(
                        "The hyperparameter tuning job {} can't be deleted because it is in status {}, which is not in \
                         a terminal state. Stop it, and delete it once it is Stopped.",
                        job.name, job.status
                    )));
                }
                tuning_jobs::delete(tx, job.id).await.map_err(AppError::from)
            })
        })
        .await
}

/// The tuning job of a name, or the service's refusal.
pub(crate) async fn find(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<TuningJob, AppError> {
    tuning_jobs::find(tx, scope, name).await?.ok_or_else(|| AppError::no_tuning_job(name))
}

async fn find_and_lock(tx: &mut Tx<'_>, scope: &Scope, name: &str) -> Result<TuningJob, AppError> {
    let id = find(tx, scope, name).await?.id;
    // It may have been deleted while this waited for the lock.
    tuning_jobs::lock(tx, id).await?.ok_or_else(|| AppError::no_tuning_job(name))
}
