//! The server killed without warning in the middle of a tuning job, and its supervisors too: nothing is lost, nothing is
//! started twice, and what ran goes on.

use std::collections::BTreeSet;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::support::database::{Engine, TestDb};
use crate::support::server::{ServerProcess, supervisors, until};

/// Notes its start, prints five epochs over half a second, and ends with its `x` as the loss.
const PROGRAM: &str = r#"
echo "$TRAINING_JOB_NAME" >> starts
x=$(sed 's/.*"x" *: *"\([^"]*\)".*/\1/' /opt/ml/input/config/hyperparameters.json)
for epoch in 1 2 3 4 5; do echo "epoch $epoch"; sleep 0.1; done
echo "loss=$x;"
"#;

struct Place {
    folder: tempfile::TempDir,
    database: TestDb<()>,
}

impl Place {
    async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.sh"), PROGRAM).unwrap();
        std::fs::write(folder.path().join("starts"), "").unwrap();
        let config = "max_running = 4\n[process]\nallow_root = true\n\
                      [[images]]\nname = \"local/epochs:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n";
        std::fs::write(folder.path().join("tunesmith.toml"), config).unwrap();
        Self { folder, database: TestDb::empty(engine).await }
    }

    fn serve(&self) -> ServerProcess {
        let config = self.folder.path().join("tunesmith.toml");
        ServerProcess::start(&config, &self.folder.path().join("data"), Some(&self.database.url))
    }

    /// The names of the training jobs that started, in order.
    fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("starts")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn create(server: &ServerProcess, name: &str, jobs: u32, retries: Option<u32>) {
    let mut request = json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": 4},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/epochs:1", "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": "loss", "Regex": "loss=([^;]+);"}, {"Name": "epoch", "Regex": "epoch ([0-9]+)"}
                ]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600}
        }
    });
    if let Some(retries) = retries {
        request["TrainingJobDefinition"]["RetryStrategy"] = json!({"MaximumRetryAttempts": retries});
    }
    server.call("CreateHyperParameterTuningJob", &request);
}

fn killed_and_restarted_it_finishes_exactly(place: &Place) {
    let mut server = place.serve();
    create(&server, "forty", 40, None);
    for kills in 1..=5 {
        until("more have started", || place.starts().len() >= kills * 6);
        server.signal(Signal::SIGKILL);
        server.wait();
        server = place.serve();
    }
    let job = server.finish("forty");
    assert_eq!(job["HyperParameterTuningJobStatus"], "Completed", "{job}");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 40, "{job}");
    let starts = place.starts();
    let names: BTreeSet<&String> = starts.iter().collect();
    assert_eq!((starts.len(), names.len()), (40, 40), "started twice, or not at all");
    let jobs = server.training_jobs("forty");
    assert_eq!(jobs.len(), 40);
    for summary in &jobs {
        let name = summary["TrainingJobName"].as_str().unwrap();
        let (x, loss) = (
            &summary["TunedHyperParameters"]["x"],
            summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"].as_f64().unwrap(),
        );
        // The API's metric values are single-precision on the wire of some clients; ours are the text's own number.
        assert_eq!(x.as_str().unwrap().parse::<f64>().unwrap().to_bits(), loss.to_bits(), "{name}");
        let (status, log) = server.get(&format!("/v1/training-jobs/{name}/log"));
        assert_eq!(status, 200);
        for epoch in 1..=5 {
            assert!(log.contains(&format!("epoch {epoch}")), "{name} lost a part of its log: {log}");
        }
    }
}

fn a_killed_supervisor_is_an_infrastructure_fault(place: &Place) {
    let server = place.serve();
    create(&server, "unretried", 1, None);
    until("it has started", || place.starts().len() == 1);
    let data_dir = place.folder.path().join("data");
    until("it is supervised", || !supervisors(&data_dir).is_empty());
    for pid in supervisors(&data_dir) {
        kill(pid, Signal::SIGKILL).unwrap_or_default();
    }
    let job = server.finish("unretried");
    assert_eq!(job["TrainingJobStatusCounters"]["RetryableError"], 1, "{job}");
    let failed = &server.training_jobs("unretried")[0];
    let reason = failed["FailureReason"].as_str().unwrap();
    assert!(reason.starts_with("InternalServerError: "), "{reason}");

    create(&server, "retried", 1, Some(1));
    until("the next has started", || place.starts().len() == 2);
    until("it is supervised", || !supervisors(&data_dir).is_empty());
    for pid in supervisors(&data_dir) {
        kill(pid, Signal::SIGKILL).unwrap_or_default();
    }
    let job = server.finish("retried");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 1, "{job}");
    assert_eq!(place.starts().len(), 3, "one further attempt");
}

macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite { $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(&super::Place::new(super::Engine::Sqlite).await); })+ }
        mod postgres { $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(&super::Place::new(super::Engine::Postgres).await); })+ }
    };
}

on_both_databases! {
    killed_and_restarted_it_finishes_exactly,
    a_killed_supervisor_is_an_infrastructure_fault,
}
