//! A training job on spot capacity that is interrupted by the command line and goes on from its checkpoint.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::server::{ServerProcess, command, until};

/// Asked to go, it leaves a checkpoint; with one it is soon done.
const PROGRAM: &str = r#"
trap 'echo half > /opt/ml/checkpoints/half; exit 0' TERM
if [ -f /opt/ml/checkpoints/half ]; then
  cp /opt/ml/checkpoints/half /opt/ml/model/from
  echo "loss=1;"
  exit 0
fi
echo waiting
while :; do sleep 0.1; done
"#;

fn request() -> Value {
    json!({
        "HyperParameterTuningJobName": "spot",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/spot:1", "TrainingInputMode": "FastFile",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([^;]+);"}]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "EnableManagedSpotTraining": true,
            "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1200}
        }
    })
}

#[test]
fn an_interrupted_training_job_goes_on_from_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.sh"), PROGRAM).unwrap();
    let config = "[process]\nallow_root = true\n\
                  [[images]]\nname = \"local/spot:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n";
    std::fs::write(folder.path().join("tunesmith.toml"), config).unwrap();
    let server = ServerProcess::start(&folder.path().join("tunesmith.toml"), &folder.path().join("data"), None);
    server.call("CreateHyperParameterTuningJob", &request());
    let mut name = String::new();
    until("it waits", || {
        let Some(job) = server.training_jobs("spot").first().cloned() else { return false };
        job["TrainingJobName"].as_str().unwrap().clone_into(&mut name);
        server.get(&format!("/v1/training-jobs/{name}/log")).1.contains("waiting")
    });
    let interrupt =
        |name: &str| -> Output { command().args(["interrupt", name, "--endpoint-url", &server.url]).output().unwrap() };
    assert!(interrupt(&name).status.success());
    let job = server.finish("spot");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 1, "{job}");
    let job = server.call("DescribeTrainingJob", &json!({"TrainingJobName": name}));
    let transitions = job["SecondaryStatusTransitions"].as_array().unwrap();
    let stages: Vec<_> = transitions.iter().map(|t| t["Status"].as_str().unwrap()).collect();
    let run = "Starting Downloading Training";
    assert_eq!(stages.join(" "), format!("Pending {run} Interrupted {run} Uploading Completed"));
    assert_eq!(
        (&job["EnableManagedSpotTraining"], &job["StoppingCondition"]["MaxWaitTimeInSeconds"]),
        (&json!(true), &json!(1200))
    );
    assert_eq!(job["BillableTimeInSeconds"], job["TrainingTimeInSeconds"]);
    let model = job["ModelArtifacts"]["S3ModelArtifacts"].as_str().unwrap().strip_prefix("s3://").unwrap();
    let packed = std::fs::File::open(folder.path().join("data/s3").join(model)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let text = std::io::read_to_string(archive.entries().unwrap().next().unwrap().unwrap()).unwrap();
    assert_eq!(text, "half\n", "what the first attempt left");

    for (name, why) in
        [(name.as_str(), "is in status Completed"), ("none", "not found"), ("../x", "not a training job")]
    {
        let refused = interrupt(name);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains(why), "{name}: {told}");
    }
}
