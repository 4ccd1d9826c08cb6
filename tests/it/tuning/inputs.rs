//! A training job whose channels are a manifest and a directory of a file system, as its program sees them.

use serde_json::{Value, json};

use crate::support::server::ServerProcess;

/// Fails where a channel is not what it should be.
const PROGRAM: &str = r#"
set -e
cd /opt/ml/input/data
test "$(cat listed/deep/b.csv listed/a.csv)" = "ba"
test "$(ls listed)" = "$(printf 'a.csv\ndeep')"
test "$(cat shared/rows.csv)" = "rows"
test ! -e shared/secret
if echo x 2> /dev/null > shared/new; then echo "the file system is writable" >&2; exit 1; fi
if cat "$ROOT/secret" 2> /dev/null; then echo "the rest of the file system is in sight" >&2; exit 1; fi
grep -q '"TrainingInputMode":"FastFile"' /opt/ml/input/config/inputdataconfig.json
echo "loss=1;"
"#;

fn request(channels: &Value, root: &str) -> Value {
    json!({
        "HyperParameterTuningJobName": "inputs",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/inputs:1", "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([^;]+);"}]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "InputDataConfig": channels,
            "Environment": {"ROOT": root},
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60}
        }
    })
}

#[test]
fn a_program_sees_what_a_manifest_names_and_a_directory_of_a_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("train.sh", PROGRAM);
    put("efs/data/train/rows.csv", "rows");
    put("efs/secret", "secret");
    for (key, text) in [("a.csv", "a"), ("deep/b.csv", "b"), ("c.csv", "c")] {
        put(&format!("data/s3/lab/in/{key}"), text);
    }
    put("data/s3/lab/list", r#"[{"prefix": "s3://lab/in/"}, "a.csv", "deep/b.csv"]"#);
    put(
        "tunesmith.toml",
        "[process]\nallow_root = true\n\
         [[file_systems]]\nid = \"fs-0123abcd\"\ntype = \"FSxLustre\"\npath = \"efs\"\n\
         [[images]]\nname = \"local/inputs:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n",
    );
    let server = ServerProcess::start(&folder.path().join("tunesmith.toml"), &folder.path().join("data"), None);
    let channels = json!([
        {"ChannelName": "listed", "InputMode": "FastFile",
            "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": "s3://lab/list"}}},
        {"ChannelName": "shared", "DataSource": {"FileSystemDataSource": {
            "FileSystemId": "fs-0123abcd", "FileSystemType": "FSxLustre", "FileSystemAccessMode": "ro",
            "DirectoryPath": "/data/train"}}}
    ]);
    server.call("CreateHyperParameterTuningJob", &request(&channels, folder.path().join("efs").to_str().unwrap()));
    let job = server.finish("inputs");
    let jobs = server.training_jobs("inputs");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 2, "{jobs:?}");
    assert_eq!(std::fs::read_dir(folder.path().join("efs/data/train")).unwrap().count(), 1, "nothing was written");
}
