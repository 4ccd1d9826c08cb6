//! A server whose log nobody takes.

use std::fs::File;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::server::{ServerProcess, command};

#[test]
fn a_log_that_cannot_be_written_costs_no_call_and_no_drain() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tunesmith.toml");
    let image = "[[images]]\nname = \"local/noop:1\"\ncommand = [\"true\"]\n";
    std::fs::write(&config, format!("[process]\nallow_root = true\n{image}")).unwrap();
    let mut serve = command();
    serve.stderr(File::options().write(true).open("/dev/full").unwrap());
    let mut server = ServerProcess::start_by(serve, &config, &folder.path().join("data"), None);
    let ranges = json!({"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]});
    let created = server.call(
        "CreateHyperParameterTuningJob",
        &json!({
            "HyperParameterTuningJobName": "unheard",
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
                "ParameterRanges": ranges,
            },
            "TrainingJobDefinition": {
                "AlgorithmSpecification": {
                    "TrainingImage": "local/noop:1",
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
                },
                "RoleArn": "arn:aws:iam::000000000000:role/tuner",
                "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
                "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            },
        }),
    );
    assert!(created["HyperParameterTuningJobArn"].is_string(), "{created}");
    assert_eq!(server.finish("unheard")["TrainingJobStatusCounters"]["Completed"], 2);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
