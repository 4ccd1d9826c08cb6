//! A server that is no root: its training programs live in a user namespace.
//!
//! Tests that are run as root start it as a user that has nothing; others are such a user themselves.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::server::{BINARY, ServerProcess, command_of};

/// Nobody's id, so that nothing else counts towards its limits.
const USER: u32 = 61_235;

/// How long a test waits for something that must happen.
const BOUND: Duration = Duration::from_mins(1);

/// Looks around, writes a model that it then locks, and starts more processes than it may.
const PROGRAM: &str = r#"
echo "model at $SM_MODEL_DIR for user $(id -u)"
cat /opt/ml/input/data/train/rows.csv
(echo x > /opt/ml/input/data/train/new) 2>/dev/null || echo "channels are read-only"
cat "$1/../tunesmith.toml" "$1/server-id" 2>/dev/null
ls -A "$1" 2>/dev/null | grep . || echo "the server is out of sight"
grep -c 'NoNewPrivs.*1' /proc/self/status
mkdir -p /opt/ml/model/locked/deeper; echo weights > /opt/ml/model/locked/deeper/file; echo top > /opt/ml/model/top
chmod 000 /opt/ml/model/locked/deeper/file /opt/ml/model/locked/deeper /opt/ml/model/locked /opt/ml/model
(i=0; while [ $i -lt 40 ]; do sleep 60 & i=$((i+1)); done; echo "no limit on processes") 2>/dev/null
echo "loss=1;"
"#;

fn request() -> Value {
    json!({
        "HyperParameterTuningJobName": "modest",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/modest:1", "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([^;]+);"}]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "InputDataConfig": [{
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/train"}}
            }],
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600}
        }
    })
}

/// A server of the user, in a folder of the user's, from a copy of the binary that the user can reach.
fn serve(folder: &Path) -> ServerProcess {
    let (binary, data_dir, config) = (folder.join("tunesmith"), folder.join("data"), folder.join("tunesmith.toml"));
    std::fs::copy(BINARY, &binary).unwrap();
    std::fs::create_dir_all(data_dir.join("s3/bucket/train")).unwrap();
    std::fs::write(data_dir.join("s3/bucket/train/rows.csv"), "rows of the channel\n").unwrap();
    std::fs::create_dir(folder.join("image")).unwrap();
    std::fs::write(folder.join("image/train.sh"), PROGRAM).unwrap();
    let text = format!(
        "[process]\nmax_processes = 20\n[[images]]\nname = \"local/modest:1\"\n\
         command = [\"/bin/sh\", \"image/train.sh\", \"{}\"]\n",
        data_dir.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = command_of(&binary);
    if nix::unistd::Uid::effective().is_root() {
        for path in [folder, &data_dir, &data_dir.join("s3"), &data_dir.join("s3/bucket")] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
        command.uid(USER).gid(USER);
    }
    command.current_dir(folder);
    ServerProcess::start_by(command, &config, &data_dir, None)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn training_is_isolated_bounded_and_collected_for_an_ordinary_user() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path());
    server.call("CreateHyperParameterTuningJob", &request());
    let mut job = Value::Null;
    until("the tuning job is over", || {
        let name = json!({"HyperParameterTuningJobName": "modest"});
        job = server.call("DescribeHyperParameterTuningJob", &name);
        job["HyperParameterTuningJobStatus"] != "InProgress"
    });
    let name = json!({"HyperParameterTuningJobName": "modest"});
    let training = server.call("ListTrainingJobsForHyperParameterTuningJob", &name);
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 1, "{training}");
    let best = job["BestTrainingJob"]["TrainingJobName"].as_str().unwrap();

    let user = if nix::unistd::Uid::effective().is_root() { USER } else { nix::unistd::Uid::effective().as_raw() };
    let (_, log) = server.get(&format!("/v1/training-jobs/{best}/log"));
    let expected = [
        &format!("model at /opt/ml/model for user {user}"),
        "rows of the channel",
        "channels are read-only",
        "the server is out of sight",
        "1",
        "loss=1;",
    ];
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);

    let packed = folder.path().join(format!("data/s3/bucket/output/{best}/output/model.tar.gz"));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap()));
    let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned());
    let paths: BTreeSet<String> = paths.collect();
    assert!(paths.contains("locked/deeper/file") && paths.contains("top"), "what was locked is packed too: {paths:?}");
    until("what was locked is removed", || {
        ["data/attempts", "data/trash"]
            .iter()
            .all(|name| std::fs::read_dir(folder.path().join(name)).unwrap().next().is_none())
    });
}
