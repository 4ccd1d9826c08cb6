//! Tuning over HTTP with a real program that trains for several epochs: Hyperband, early stopping and Bayesian search.

#[cfg(feature = "docker")]
mod docker;
#[cfg(feature = "docker")]
mod hosts;
pub(crate) mod inputs;
mod spot;

use serde_json::{Value, json};
use tunesmith::domain::names::Scope;
use tunesmith::scheduler::study::replay;
use tunesmith::store::{Db, StoreError, metrics, training_jobs, tuning_jobs};

use crate::support::database::{Engine, TestDb};
use crate::support::server::ServerProcess;

/// Trains for nine epochs on the way down to its `x`. Asked to stop, it leaves a model that says so.
const PROGRAM: &str = r#"
x=$(sed 's/.*"x" *: *"\([^"]*\)".*/\1/' /opt/ml/input/config/hyperparameters.json)
trap 'echo stopped > /opt/ml/model/stopped; exit 0' TERM
for epoch in 1 2 3 4 5 6 7 8 9; do
  echo "loss=$(awk "BEGIN { print $x + 1 / $epoch }");"
  sleep 0.3
done
echo done > /opt/ml/model/done
"#;

struct Place {
    folder: tempfile::TempDir,
    database: TestDb<()>,
    server: ServerProcess,
}

impl Place {
    async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.sh"), PROGRAM).unwrap();
        let config = "max_running = 4\n[process]\nallow_root = true\n\
                      [[images]]\nname = \"local/epochs:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n";
        std::fs::write(folder.path().join("tunesmith.toml"), config).unwrap();
        let database = TestDb::empty(engine).await;
        let (config, data) = (folder.path().join("tunesmith.toml"), folder.path().join("data"));
        let server = ServerProcess::start(&config, &data, Some(&database.url));
        Self { folder, database, server }
    }

    /// Every suggestion of a tuning job is what its recorded history gives.
    async fn replays(&self, name: &str) {
        let db = Db::connect(&self.database.url).await.unwrap();
        let name = name.to_owned();
        let reading = db.read(move |tx| {
            Box::pin(async move {
                let scope = Scope { account: "000000000000".into(), region: "us-east-1".into() };
                let job = tuning_jobs::find(tx, &scope, &name).await?.unwrap();
                let request = tuning_jobs::request(tx, job.id).await?.unwrap();
                let history = training_jobs::history(tx, job.id).await?;
                let curves = metrics::curves(tx, job.id, 0).await?;
                Ok::<_, StoreError>((job, request, history, curves))
            })
        });
        let (job, request, history, curves) = reading.await.unwrap();
        for row in &history {
            let again = replay(&job, &request, &history, curves.clone(), row).unwrap();
            assert_eq!(again, row.tuned, "training job {}", row.ordinal);
        }
    }
}

fn request(name: &str, strategy: &str, early_stopping: &str) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": strategy,
            "TrainingJobEarlyStoppingType": early_stopping,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 16, "MaxParallelTrainingJobs": 4},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]},
            "RandomSeed": 11
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"epochs": "9"},
            "AlgorithmSpecification": {
                "TrainingImage": "local/epochs:1", "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([^;]+);"}]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600}
        }
    })
}

async fn stops_some_early(place: &Place, name: &str, request: &Value) {
    place.server.call("CreateHyperParameterTuningJob", request);
    let job = place.server.finish(name);
    let jobs = place.server.training_jobs(name);
    let value = |job: &Value| job["FinalHyperParameterTuningJobObjectiveMetric"]["Value"].as_f64().unwrap();
    let stopped: Vec<&Value> = jobs.iter().filter(|job| job["TrainingJobStatus"] == "Stopped").collect();
    assert_eq!((job["HyperParameterTuningJobStatus"].as_str(), jobs.len()), (Some("Completed"), 16), "{job}");
    assert!(!stopped.is_empty(), "none was stopped early: {jobs:?}");
    let counters = &job["TrainingJobStatusCounters"];
    assert_eq!(counters["Stopped"], stopped.len(), "{job}");
    assert_eq!(counters["Completed"], 16 - stopped.len(), "{job}");
    assert_eq!(job["ObjectiveStatusCounters"]["Succeeded"], 16, "{job}");
    let best = jobs.iter().min_by(|a, b| value(a).total_cmp(&value(b))).unwrap();
    assert_eq!(job["BestTrainingJob"]["TrainingJobName"], best["TrainingJobName"]);
    for summary in stopped {
        assert_eq!(summary["ObjectiveStatus"], "Succeeded");
        let training =
            place.server.call("DescribeTrainingJob", &json!({"TrainingJobName": summary["TrainingJobName"]}));
        assert_eq!(training["SecondaryStatus"], "Stopped", "{training}");
        assert!(training["FailureReason"].is_null(), "{training}");
        let transitions = training["SecondaryStatusTransitions"].as_array().unwrap();
        let told = |t: &Value| t["Status"] == "Stopping" && t["StatusMessage"].as_str().unwrap().contains("early");
        assert!(transitions.iter().any(told), "{training}");
        // It had the time to put its model away.
        let model = training["ModelArtifacts"]["S3ModelArtifacts"].as_str().unwrap();
        let archive = place.folder.path().join("data/s3").join(model.strip_prefix("s3://").unwrap());
        assert!(archive.is_file(), "{}", archive.display());
    }
    place.replays(name).await;
}

async fn hyperband_stops_some_early(place: Place) {
    stops_some_early(&place, "rungs", &request("rungs", "Hyperband", "Off")).await;
}

async fn the_median_rule_stops_some_early(place: Place) {
    stops_some_early(&place, "median", &request("median", "Random", "Auto")).await;
}

async fn bayesian_search_comes_close(place: Place) {
    place.server.call("CreateHyperParameterTuningJob", &request("model", "Bayesian", "Off"));
    let job = place.server.finish("model");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 16, "{job}");
    let x: f64 = job["BestTrainingJob"]["TunedHyperParameters"]["x"].as_str().unwrap().parse().unwrap();
    assert!(x < 0.02, "the best of 16 is at {x}");
    place.replays("model").await;
}

macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite { $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(super::Place::new(super::Engine::Sqlite).await).await; })+ }
        mod postgres { $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(super::Place::new(super::Engine::Postgres).await).await; })+ }
    };
}

on_both_databases! {
    hyperband_stops_some_early,
    the_median_rule_stops_some_early,
    bayesian_search_comes_close,
}
