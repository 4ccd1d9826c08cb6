//! Training jobs whose channels are manifests, directories of a file system and streams, as their programs see them.

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

/// Fails where what is streamed is not what it should be.
const READER: &str = r#"
import glob, struct, sys
data = '/opt/ml/input/data/'
read = lambda name: open(data + name, 'rb').read()

def records(stream):
    found = []
    while stream:
        magic, length = struct.unpack('<II', stream[:8])
        assert magic == 0xced7230a
        found.append(stream[8:8 + length])
        stream = stream[8 + (length + 3) // 4 * 4:]
    return found

assert sorted(glob.glob(data + '*')) == [data + n for n in ('images_0', 'listed_0', 'rows_0')], glob.glob(data + '*')
for epoch in range(3):
    assert read(f'rows_{epoch}') == b'b is before c'
    assert read(f'listed_{epoch}') == b'c' + b'b is before ' + b'c'
orders = []
for epoch in range(3):
    parts = records(read(f'images_{epoch}'))
    lines = list(zip(parts[::2], parts[1::2]))
    assert sorted(lines) == [(b'image 1', b'1'), (b'image 2', b'{"a":  2}'), (b'image 3', b'"three"')], lines
    orders.append(''.join(chr(line[0][-1]) for line in lines))
# Those of the seed, on whatever machine.
assert orders == ['132', '213', '321'], orders
print('loss=1;')
"#;

/// What a program streams is the same from buckets of the tree and from those of a store; `put` makes an
/// object of a bucket: most are in `lab`, one is in `other`.
pub(crate) fn streamed_channels(put: &dyn Fn(&str, &str, &str)) -> Value {
    for (key, text) in [("rows/b", "b is before "), ("rows/c", "c"), ("img/1", "image 1"), ("img/2", "image 2")] {
        put("lab", key, text);
    }
    put("other", "img/1", "image 3");
    put("lab", "list", r#"[{"prefix": "s3://lab/rows/"}, "c", "b", "c"]"#);
    put(
        "lab",
        "lines",
        "{\"source-ref\": \"s3://lab/img/1\", \"label\": 1, \"unused\": 7}\n\
         {\"label\": {\"a\":  2}, \"source-ref\": \"s3://lab/img/2\"}\n\
         {\"source-ref\": \"s3://other/img/1\", \"label\": \"three\"}\n",
    );
    let source =
        |kind: &str, key: &str| json!({"S3DataSource": {"S3DataType": kind, "S3Uri": format!("s3://lab/{key}")}});
    let mut augmented = source("AugmentedManifestFile", "lines");
    augmented["S3DataSource"]["AttributeNames"] = json!(["source-ref", "label"]);
    json!([
        {"ChannelName": "rows", "InputMode": "Pipe", "DataSource": source("S3Prefix", "rows/")},
        {"ChannelName": "listed", "InputMode": "Pipe", "DataSource": source("ManifestFile", "list")},
        {"ChannelName": "images", "InputMode": "Pipe", "RecordWrapperType": "RecordIO", "DataSource": augmented,
            "ShuffleConfig": {"Seed": 11}}
    ])
}

/// Tunes over such channels, with settings beside the image's: both training jobs find what they should.
pub(crate) fn tune_on_streams(folder: &std::path::Path, settings: &str, channels: &Value) {
    std::fs::write(folder.join("train.py"), READER).unwrap();
    let config = format!(
        "[process]\nallow_root = true\n\
         [[images]]\nname = \"local/inputs:1\"\ncommand = [\"/usr/bin/env\", \"python3\", \"train.py\"]\n{settings}"
    );
    std::fs::write(folder.join("tunesmith.toml"), config).unwrap();
    let server = ServerProcess::start(&folder.join("tunesmith.toml"), &folder.join("data"), None);
    server.call("CreateHyperParameterTuningJob", &request(channels, ""));
    let job = server.finish("inputs");
    let jobs = server.training_jobs("inputs");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 2, "{jobs:?}");
}

/// Makes an object of a bucket in a server's tree.
pub(crate) fn put(folder: &std::path::Path, bucket: &str, key: &str, text: &str) {
    let path = folder.join("data/s3").join(bucket).join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_program_streams_what_prefixes_and_manifests_name() {
    let folder = tempfile::tempdir().unwrap();
    let channels = streamed_channels(&|bucket, key, text| put(folder.path(), bucket, key, text));
    tune_on_streams(folder.path(), "", &channels);
}

#[test]
fn a_stream_of_what_is_not_there_fails_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("data/s3/lab/rows")).unwrap();
    std::fs::write(folder.path().join("data/s3/lab/rows/a"), "no gzip").unwrap();
    std::fs::write(folder.path().join("data/s3/lab/lines"), "{\"label\": 1}\n{\"other\": 1}\n").unwrap();
    std::fs::write(folder.path().join("train.sh"), "cat /opt/ml/input/data/*_0 > /dev/null; echo 'loss=1;'").unwrap();
    let config = "[process]\nallow_root = true\n\
                  [[images]]\nname = \"local/inputs:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n";
    std::fs::write(folder.path().join("tunesmith.toml"), config).unwrap();
    let server = ServerProcess::start(&folder.path().join("tunesmith.toml"), &folder.path().join("data"), None);
    for (name, source, why) in [
        (
            "packed",
            json!({"S3DataType": "S3Prefix", "S3Uri": "s3://lab/rows"}),
            "ClientError: the channel rows cannot be streamed: the object a is no gzip data",
        ),
        (
            "labelled",
            json!({"S3DataType": "AugmentedManifestFile", "S3Uri": "s3://lab/lines", "AttributeNames": ["label"]}),
            "line 2: it has no attribute label",
        ),
    ] {
        let channels = json!([{"ChannelName": "rows", "InputMode": "Pipe", "CompressionType": "Gzip",
            "DataSource": {"S3DataSource": source}}]);
        let mut request = request(&channels, "");
        request["HyperParameterTuningJobName"] = json!(name);
        server.call("CreateHyperParameterTuningJob", &request);
        server.finish(name);
        let jobs = server.training_jobs(name);
        let described = server.call("DescribeTrainingJob", &json!({"TrainingJobName": jobs[0]["TrainingJobName"]}));
        let reason = described["FailureReason"].as_str().unwrap_or_default();
        assert!(described["TrainingJobStatus"] == "Failed" && reason.contains(why), "{described}");
    }
}
