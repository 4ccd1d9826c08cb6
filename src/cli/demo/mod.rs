//! The demo: a tuning job over a real data set, from an empty folder to a table of the best models.
//!
//! Invariant: it is a client like any other — what it asks for and what it shows went over the HTTP API — and it leaves
//! nothing behind, neither processes nor files, unless it is killed.

mod client;
mod data;
mod network;
mod report;
pub mod trainer;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::say::{note, say};
use super::serve::Signals;
use super::server::Server;
use crate::config::{Image, Log, Settings};
use crate::telemetry;
use client::Client;
use report::{Progress, TrainingJob, Tuning};

/// The hidden command that trains.
pub(super) const TRAINER_COMMAND: &str = "demo-trainer";
/// The name that the request uses for it.
const IMAGE: &str = "tunesmith/digits:1";
const TUNING_JOB: &str = "digits";
const OBJECTIVE: &str = "validation:accuracy";
/// How often the server is asked how far it is.
const POLL_EVERY: Duration = Duration::from_millis(150);

/// Arguments of `tunesmith demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many models to train.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs: u32,
    /// How many to train at once; by default one for each CPU, 2 to 4.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    parallel: Option<u32>,
    /// Passes over the data for each model.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
    /// Keep the server and its folder until Ctrl-C, to look around with any client.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub(super) async fn run(arguments: &DemoArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    telemetry::init(&Log { level: "error".to_owned(), ..Log::default() })?;
    let mut signals = Signals::with_hangup()?;
    let folder = TempFolder::new()?;
    write_data(&folder.0)?;
    let settings = settings(arguments, &folder.0)?;
    let server = Server::start(&settings, None).await?;
    let client = Client::new(server.address());
    say(format_args!("A Tunesmith server listens on {}, its folder is {}", client.endpoint(), folder.0.display()));
    let outcome = tokio::select! {
        outcome = tune(arguments, &settings, &client, begun) => outcome,
        () = signals.next() => {
            say(format_args!("\nstopping the training jobs"));
            Err(anyhow::anyhow!("interrupted"))
        }
    };
    if arguments.keep && outcome.is_ok() {
        say(format_args!("The server keeps running; Ctrl-C ends it and removes its folder."));
        signals.next().await;
    }
    let cleaned = clean_up(server).await;
    drop(folder);
    outcome.and(cleaned)
}

/// Ends the server and whatever still trains.
async fn clean_up(server: Server) -> anyhow::Result<()> {
    let executor = server.executor();
    server.drain().await?;
    for attempt in executor.list().await? {
        executor.remove(attempt).await?;
    }
    Ok(())
}

fn settings(arguments: &DemoArgs, folder: &Path) -> anyhow::Result<Settings> {
    let program = std::env::current_exe().context("can't find this program's own file")?;
    let program = program.to_str().context("this program's path is not UTF-8")?.to_owned();
    let mut settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.to_owned(),
        database_url: crate::config::DatabaseUrl::new(format!("sqlite://{}", folder.join("tunesmith.db").display())),
        max_running: parallel(arguments) as usize,
        drain_timeout_seconds: 2,
        images: vec![Image {
            name: IMAGE.to_owned(),
            command: vec![program, TRAINER_COMMAND.to_owned()],
            ..Image::default()
        }],
        ..Settings::default()
    };
    // The training program is this binary.
    settings.process.allow_root = true;
    Ok(settings)
}

fn parallel(arguments: &DemoArgs) -> u32 {
    let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    arguments.parallel.unwrap_or_else(|| u32::try_from(cpus.clamp(2, 4)).unwrap_or(2))
}

/// The channels, where the server looks for `s3://demo/digits/…`.
fn write_data(folder: &Path) -> anyhow::Result<()> {
    let (train, validation) = data::split();
    for (channel, rows) in [("train", train), ("validation", validation)] {
        let folder = folder.join("s3/demo/digits").join(channel);
        let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("digits.csv"), rows));
        written.with_context(|| format!("can't write the data set to {}", folder.display()))?;
    }
    Ok(())
}

/// Creates the tuning job, follows it and shows its end.
async fn tune(arguments: &DemoArgs, settings: &Settings, client: &Client, begun: Instant) -> anyhow::Result<()> {
    client.call("CreateHyperParameterTuningJob", request(arguments, settings)).await?;
    say(format_args!(
        "Tuning a small neural network on 1,797 handwritten digits: {} training jobs, {} at a time\n",
        arguments.jobs,
        parallel(arguments),
    ));
    let mut progress = Progress::new(arguments.jobs);
    let tuning = loop {
        let tuning = look(client).await?;
        progress.show(&tuning);
        if tuning.is_over() {
            break tuning;
        }
        tokio::time::sleep(POLL_EVERY).await;
    };
    report::summary(&tuning, OBJECTIVE);
    if let Some(best) = tuning.best() {
        let region = &settings.region;
        say(format_args!(
            "\nTo look further{}:",
            if arguments.keep { "" } else { ", keep the server with --keep and run" }
        ));
        say(format_args!(
            "  aws sagemaker describe-training-job --training-job-name {} --endpoint-url {} --region {region}",
            best.name,
            client.endpoint()
        ));
    }
    say(format_args!("\n{} training jobs in {:.1} s", tuning.training_jobs.len(), begun.elapsed().as_secs_f64()));
    match tuning.status.as_str() {
        "Completed" => Ok(()),
        status => anyhow::bail!("the tuning job is {status}: {}", tuning.failure.unwrap_or_default()),
    }
}

fn request(arguments: &DemoArgs, settings: &Settings) -> serde_json::Value {
    let channel = |name: &str| {
        json!({
            "ChannelName": name,
            "ContentType": "text/csv",
            "DataSource": { "S3DataSource": { "S3DataType": "S3Prefix", "S3Uri": format!("s3://demo/digits/{name}/") } },
        })
    };
    json!({
        "HyperParameterTuningJobName": TUNING_JOB,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": { "Type": "Maximize", "MetricName": OBJECTIVE },
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": arguments.jobs,
                "MaxParallelTrainingJobs": parallel(arguments),
            },
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    { "Name": "learning_rate", "MinValue": "0.001", "MaxValue": "3", "ScalingType": "Logarithmic" },
                ],
                "IntegerParameterRanges": [
                    { "Name": "hidden_units", "MinValue": "2", "MaxValue": "128", "ScalingType": "Logarithmic" },
                ],
                "CategoricalParameterRanges": [
                    { "Name": "activation", "Values": ["relu", "tanh", "sigmoid"] },
                ],
            },
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    { "Name": OBJECTIVE, "Regex": "validation:accuracy=([0-9.]+)" },
                    { "Name": "train:loss", "Regex": "train:loss=(\\S+)" },
                ],
            },
            "StaticHyperParameters": { "epochs": arguments.epochs.to_string(), "batch_size": "16" },
            "RoleArn": format!("arn:aws:iam::{}:role/tunesmith-demo", settings.account),
            "InputDataConfig": [channel("train"), channel("validation")],
            "OutputDataConfig": { "S3OutputPath": "s3://demo/models/" },
            "ResourceConfig": { "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1 },
            "StoppingCondition": { "MaxRuntimeInSeconds": 600 },
        },
    })
}

/// How far the tuning job is.
async fn look(client: &Client) -> anyhow::Result<Tuning> {
    let job = json!({ "HyperParameterTuningJobName": TUNING_JOB });
    let described = client.call("DescribeHyperParameterTuningJob", job).await?;
    let mut training_jobs = Vec::new();
    let mut token = None;
    loop {
        let mut page = json!({ "HyperParameterTuningJobName": TUNING_JOB, "MaxResults": 100 });
        if let Some(token) = token {
            page["NextToken"] = token;
        }
        let answer = client.call("ListTrainingJobsForHyperParameterTuningJob", page).await?;
        let summaries = answer["TrainingJobSummaries"].as_array().map_or(&[][..], Vec::as_slice);
        training_jobs.extend(summaries.iter().map(TrainingJob::of));
        token = answer.get("NextToken").filter(|token| token.is_string()).cloned();
        if token.is_none() {
            return Ok(Tuning::of(&described, training_jobs));
        }
    }
}

/// A fresh folder of the demo's own, removed when dropped.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("tunesmith-demo-{}", uuid::Uuid::new_v4().simple()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("can't make the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            note(format_args!("can't remove {}: {error}", self.0.display()));
        }
    }
}
