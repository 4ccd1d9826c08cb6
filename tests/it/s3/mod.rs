//! Buckets in a real store of S3's protocol: what is staged, shared, saved and refused, and a whole tuning job.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tunesmith::config::Channels;
use tunesmith::domain::names::AttemptId;
use tunesmith::objects::{Names, Objects, ObjectsError};
use uuid::Uuid;

use crate::support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::server::{ServerProcess, client, supervised, until};
use crate::tuning::inputs::{put, streamed_channels, tune_on_streams};

const TUNING_JOB: Uuid = Uuid::from_u128(1);

struct Store {
    s3: S3Server,
    objects: Objects,
    folder: TempDir,
}

fn attempt(number: u32) -> AttemptId {
    AttemptId { training_job: Uuid::from_u128(9), number }
}

/// A store with the remote bucket `far`; every other bucket is in the tree.
fn store() -> Store {
    let (s3, folder) = (S3Server::start(), TempDir::new().unwrap());
    s3.bucket("far");
    let objects = Objects::new(folder.path().join("root"), vec![]).unwrap();
    let objects = objects.with_buckets(vec![s3.settings("far")], "us-east-1", Channels::default()).unwrap();
    Store { s3, objects, folder }
}

impl Store {
    async fn stage(&self, uri: &str, number: u32) -> Result<PathBuf, ObjectsError> {
        self.objects.stage(uri, &Names::Prefix, attempt(number), TUNING_JOB).await.map(|staged| staged.path)
    }

    /// The same object in the remote bucket and in one of the tree.
    fn put_both(&self, key: &str, text: &str) {
        self.s3.put("far", key, text);
        let near = self.folder.path().join("root/near").join(key);
        std::fs::create_dir_all(near.parent().unwrap()).unwrap();
        std::fs::write(near, text).unwrap();
    }
}

/// What is at or beneath a path.
fn files(path: &Path) -> BTreeMap<String, String> {
    if path.is_file() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        return BTreeMap::from([(name, std::fs::read_to_string(path).unwrap())]);
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        let (name, is_dir) = (path.file_name().unwrap().to_str().unwrap().to_owned(), path.is_dir());
        files(&path)
            .into_iter()
            .map(move |(below, text)| (if is_dir { format!("{name}/{below}") } else { below }, text))
    };
    entries.flat_map(below).collect()
}

#[tokio::test]
async fn a_remote_bucket_is_staged_as_the_tree_is() {
    let s = store();
    for key in ["in/train/a.csv", "in/train/deep/b c+ü.csv", "in/train-2/c.csv", "in/train.txt", "in/one"] {
        s.put_both(key, key);
    }
    for prefix in ["in/train", "in/train/", "in/tra", "in/one", "in", "in/train-2/c.csv"] {
        let near = files(&s.stage(&format!("s3://near/{prefix}"), 1).await.unwrap());
        let far = files(&s.stage(&format!("s3://far/{prefix}"), 1).await.unwrap());
        assert!(!near.is_empty() && far == near, "{prefix}: {far:?} is not {near:?}");
    }
    for prefix in ["none", "in/none/", "in/one/"] {
        let error = s.stage(&format!("s3://far/{prefix}"), 1).await.unwrap_err();
        assert!(matches!(error, ObjectsError::NoRemoteInput { .. }), "{prefix}: {error}");
        assert!(!error.is_infrastructure());
    }
}

#[tokio::test]
async fn a_tuning_job_keeps_the_objects_that_it_found_first_and_they_come_once() {
    let s = store();
    s.s3.put("far", "in/a", "first");
    let staged = s.stage("s3://far/in/", 1).await.unwrap();
    s.s3.put("far", "in/b", "later");
    std::fs::remove_file(s.s3.bucket("far").join("in/a")).unwrap();
    // Not listed again and not fetched again: in the bucket it would be another object by now.
    for number in 2..20 {
        assert_eq!(s.stage("s3://far/in/", number).await.unwrap(), staged);
    }
    assert_eq!(files(&staged), BTreeMap::from([("a".into(), "first".into())]));
    let other = s.objects.stage("s3://far/in/", &Names::Prefix, attempt(1), Uuid::from_u128(2)).await.unwrap();
    assert_eq!(files(&other.path), BTreeMap::from([("b".into(), "later".into())]), "another tuning job looks again");
}

#[tokio::test]
async fn a_manifest_is_read_once_wherever_it_and_its_objects_are() {
    let s = store();
    for key in ["in/a.csv", "in/deep/b.csv", "in/c.csv"] {
        s.put_both(key, key);
    }
    let expected: BTreeMap<String, String> =
        [("a.csv", "in/a.csv"), ("deep/b.csv", "in/deep/b.csv")].map(|(k, v)| (k.into(), v.into())).into();
    let mut tuning_job = 10;
    for (manifest, data) in [("far", "far"), ("far", "near"), ("near", "far")] {
        s.put_both("list", &format!(r#"[{{"prefix": "s3://{data}/in/"}}, "a.csv", "deep/b.csv"]"#));
        tuning_job += 1;
        let (uri, tuning_job) = (format!("s3://{manifest}/list"), Uuid::from_u128(tuning_job));
        let stage = |number| s.objects.stage(&uri, &Names::Manifest, attempt(number), tuning_job);
        let staged = stage(1).await.unwrap();
        assert_eq!(files(&staged.path), expected, "{manifest} {data}");
        s.put_both("list", "no manifest any more");
        assert_eq!(stage(2).await.unwrap(), staged, "the second training job does not read it again");
    }
    s.put_both("list", r#"[{"prefix": "s3://far/in/"}, "a.csv", "d.csv"]"#);
    for (uri, told) in [("s3://far/list", "names s3://far/in/d.csv"), ("s3://far/none", "No S3 objects found")] {
        let error = s.objects.stage(uri, &Names::Manifest, attempt(1), TUNING_JOB).await.unwrap_err();
        assert!(error.to_string().contains(told) && !error.is_infrastructure(), "{error}");
    }
    assert!(!format!("{:?}", s.objects).contains(SECRET_KEY));
}

#[tokio::test]
async fn an_augmented_manifest_names_objects_wherever_they_are() {
    let s = store();
    for (manifest, data, tuning_job) in [("far", "far", 20), ("far", "near", 21), ("near", "far", 22)] {
        s.put_both("img/1", "one");
        s.put_both("lines", &format!("{{\"source-ref\": \"s3://{data}/img/1\", \"label\": 1}}"));
        let names = Names::Augmented { attributes: vec!["label".into(), "source-ref".into()] };
        let (uri, tuning_job) = (format!("s3://{manifest}/lines"), Uuid::from_u128(tuning_job));
        let stage = |number| s.objects.stage(&uri, &names, attempt(number), tuning_job);
        let staged = stage(1).await.unwrap();
        assert_eq!(files(&staged.path), BTreeMap::from([("img/1".into(), "one".into())]), "{manifest} {data}");
        let list = std::fs::read_to_string(staged.list.as_ref().unwrap()).unwrap();
        assert_eq!(list, "[{\"text\":\"1\"},{\"file\":\"img/1\"}]\n");
        s.put_both("lines", "nothing that anybody reads again");
        assert_eq!(stage(2).await.unwrap(), staged);
    }
    // In several buckets at once.
    s.put_both(
        "lines",
        "{\"source-ref\": \"s3://far/img/1\", \"label\": 1}\n{\"source-ref\": \"s3://near/img/1\", \"label\": 2}",
    );
    let names = Names::Augmented { attributes: vec!["source-ref".into()] };
    let staged = s.objects.stage("s3://far/lines", &names, attempt(1), Uuid::from_u128(23)).await.unwrap();
    let found: Vec<_> = staged.buckets.iter().map(|(bucket, path)| (bucket.as_str(), files(path))).collect();
    let one = || BTreeMap::from([("img/1".into(), "one".into())]);
    assert_eq!(found, [("far", one()), ("near", one())]);
    let list = std::fs::read_to_string(staged.list.as_ref().unwrap()).unwrap();
    assert_eq!(list, "[{\"file\":\"far/img/1\"}]\n[{\"file\":\"near/img/1\"}]\n");
    assert_eq!(s.objects.stage("s3://far/lines", &names, attempt(2), Uuid::from_u128(23)).await.unwrap(), staged);

    // Without any object there is nothing to fetch.
    s.put_both("lines", "{\"label\": 1}");
    let names = Names::Augmented { attributes: vec!["label".into()] };
    let staged = s.objects.stage("s3://far/lines", &names, attempt(1), TUNING_JOB).await.unwrap();
    assert!(staged.path.is_dir() && files(&staged.path).is_empty());
}

#[test]
fn a_program_streams_what_is_in_s3() {
    let (s3, folder) = (S3Server::start(), TempDir::new().unwrap());
    let channels = streamed_channels(&|bucket, key, text| match bucket {
        "lab" => s3.put(bucket, key, text),
        other => put(folder.path(), other, key, text),
    });
    let settings = format!(
        "[[buckets]]\nname = \"lab\"\nendpoint = \"{}\"\naccess_key_id = \"{ACCESS_KEY}\"\n\
         secret_access_key = \"{SECRET_KEY}\"\n",
        s3.endpoint
    );
    tune_on_streams(folder.path(), &settings, &channels);
}

#[tokio::test]
async fn attempts_that_come_at_once_share_one_copy() {
    let s = store();
    for n in 0..40 {
        s.s3.put("far", &format!("in/{n}"), &n.to_string());
    }
    let staging: Vec<_> = (0..8).map(|number| s.stage("s3://far/in/", number)).collect();
    let mut staged = Vec::new();
    for stage in staging {
        staged.push(stage.await.unwrap());
    }
    staged.dedup();
    assert_eq!(staged.len(), 1);
    assert_eq!(files(&staged[0]).len(), 40);
}

#[tokio::test]
async fn a_copy_that_broke_off_goes_on_where_it_was() {
    let s = store();
    s.s3.put("far", "in/a", "aaa");
    s.s3.put("far", "in/b", "bbb");
    let staged = s.stage("s3://far/in/", 1).await.unwrap();
    // As a crash leaves it: one object there, one not, and nothing that says it is whole.
    std::fs::remove_file(staged.join("b")).unwrap();
    std::fs::remove_file(staged.parent().unwrap().join("complete")).unwrap();
    let kept = std::fs::metadata(staged.join("a")).unwrap().ino();
    assert_eq!(s.stage("s3://far/in/", 2).await.unwrap(), staged);
    assert_eq!(files(&staged), BTreeMap::from([("a".into(), "aaa".into()), ("b".into(), "bbb".into())]));
    assert_eq!(std::fs::metadata(staged.join("a")).unwrap().ino(), kept, "what was there is not fetched again");
}

#[tokio::test]
async fn an_object_that_changed_since_is_refused_and_named() {
    let s = store();
    s.s3.put("far", "in/a", "as it was");
    let staged = s.stage("s3://far/in/", 1).await.unwrap();
    std::fs::remove_dir_all(staged.parent().unwrap()).unwrap();
    s.s3.put("far", "in/a", "as it is now");
    let error = s.stage("s3://far/in/", 2).await.unwrap_err();
    assert!(matches!(&error, ObjectsError::Changed { uri } if uri == "s3://far/in/a"), "{error}");
    assert!(!error.is_infrastructure(), "another try finds the same");
}

#[tokio::test]
async fn a_store_that_is_away_is_not_the_jobs_fault_and_a_missing_bucket_is() {
    let s = store();
    let refused = {
        let settings = s.s3.settings("absent");
        let objects = Objects::new(s.folder.path().join("other"), vec![]).unwrap();
        let objects = objects.with_buckets(vec![settings], "us-east-1", Channels::default()).unwrap();
        objects.stage("s3://absent/in/", &Names::Prefix, attempt(1), TUNING_JOB).await.unwrap_err()
    };
    assert!(!refused.is_infrastructure(), "{refused}");
    let mut settings = s.s3.settings("far");
    settings.secret_access_key = "another".into();
    let objects = Objects::new(s.folder.path().join("third"), vec![]).unwrap();
    let objects = objects.with_buckets(vec![settings], "us-east-1", Channels::default()).unwrap();
    let denied = objects.stage("s3://far/in/", &Names::Prefix, attempt(1), TUNING_JOB).await.unwrap_err();
    assert!(matches!(denied, ObjectsError::Remote { .. }), "{denied}");
    assert!(!format!("{denied:?}").contains(SECRET_KEY), "{denied:?}");
}

#[tokio::test]
async fn artifacts_go_up_whole_however_large() {
    let s = store();
    let model = TempDir::new().unwrap();
    // More than one part, and nothing that packs well.
    let mut noise = vec![0; 40 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    std::fs::write(model.path().join("weights"), &noise).unwrap();
    symlink("/etc/passwd", model.path().join("link")).unwrap();
    let go = CancellationToken::new();
    s.objects.put_tar_gz(model.path(), "s3://far/out/job/output/model.tar.gz", go.clone()).await.unwrap();
    let packed = std::fs::File::open(s.s3.bucket("far").join("out/job/output/model.tar.gz")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut bytes) = (entry.path().unwrap().display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        found.insert(name, bytes);
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), ["weights"], "a link that leads out is left out");
    assert!(found["weights"] == noise);
    s.objects.put_tree(model.path(), "s3://far/plain/", go).await.unwrap();
    assert!(std::fs::read(s.s3.bucket("far").join("plain/weights")).unwrap() == noise);
    assert!(!s.s3.bucket("far").join("plain/link").exists());
    let given_up = CancellationToken::new();
    given_up.cancel();
    let outcome = s.objects.put_tree(model.path(), "s3://far/given-up/", given_up).await;
    assert!(matches!(outcome, Err(ObjectsError::Cancelled { .. })), "{outcome:?}");
    assert!(!s.s3.bucket("far").join("given-up/weights").exists());
}

#[tokio::test]
async fn checkpoints_come_back_for_the_next_attempt() {
    let s = store();
    let uri = "s3://far/ckpt/job";
    let first = s.objects.checkpoints(uri, attempt(1)).await.unwrap();
    assert_eq!(files(&first), BTreeMap::new());
    std::fs::create_dir(first.join("epoch")).unwrap();
    std::fs::write(first.join("epoch/1"), "one").unwrap();
    symlink("/etc/passwd", first.join("link")).unwrap();
    let saver = s.objects.saver(uri, attempt(1)).unwrap().unwrap();
    let go = CancellationToken::new();
    saver.save(false, &go).await.unwrap();
    let object = s.s3.bucket("far").join("ckpt/job/epoch/1");
    assert!(!object.exists(), "it may be in the middle of being written");
    saver.save(true, &go).await.unwrap();
    let written_at = std::fs::metadata(&object).unwrap().modified().unwrap();
    std::fs::write(first.join("state"), "two").unwrap();
    saver.save(true, &go).await.unwrap();
    assert_eq!(std::fs::metadata(&object).unwrap().modified().unwrap(), written_at, "what has not changed stays");
    s.objects.release(attempt(1)).await.unwrap();
    assert!(!first.exists());
    let second = s.objects.checkpoints(uri, attempt(2)).await.unwrap();
    let expected = BTreeMap::from([("epoch/1".into(), "one".into()), ("state".into(), "two".into())]);
    assert_eq!(files(&second), expected);
    // What no attempt holds any more, a restarted server lets go of.
    s.objects.release_all_but(&[]).unwrap();
    assert!(!second.exists());
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_saved_keeps_no_other_from_it() {
    use std::os::unix::ffi::OsStrExt as _;
    let s = store();
    let uri = "s3://far/ckpt/job";
    let folder = s.objects.checkpoints(uri, attempt(1)).await.unwrap();
    let unprintable = std::ffi::OsStr::from_bytes(b"a\x01");
    for name in [unprintable, "b".as_ref(), "c".as_ref()] {
        std::fs::write(folder.join(name), "one").unwrap();
    }
    let saver = s.objects.saver(uri, attempt(1)).unwrap().unwrap();
    saver.save(true, &CancellationToken::new()).await.unwrap_err();
    for name in ["b", "c"] {
        assert!(s.s3.bucket("far").join("ckpt/job").join(name).exists(), "{name}");
    }
}

#[test]
fn a_stop_is_heard_while_a_store_keeps_silent() {
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = TempDir::new().unwrap();
    let config = format!(
        "[process]\nallow_root = true\n[[images]]\nname = \"local/any:1\"\ncommand = [\"/bin/true\"]\n\
         [[buckets]]\nname = \"far\"\nendpoint = \"http://{}\"\naccess_key_id = \"a\"\nsecret_access_key = \"b\"\n",
        silent.local_addr().unwrap()
    );
    std::fs::write(folder.path().join("tunesmith.toml"), config).unwrap();
    let server = ServerProcess::start(&folder.path().join("tunesmith.toml"), &folder.path().join("data"), None);
    let s3 = json!({"S3DataType": "S3Prefix", "S3Uri": "s3://far/in"});
    let request = json!({
        "HyperParameterTuningJobName": "silent",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/any:1", "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": s3}}],
            "OutputDataConfig": {"S3OutputPath": "s3://near/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60}
        }
    });
    server.call("CreateHyperParameterTuningJob", &request);
    let secondary = || {
        let jobs = server.training_jobs("silent");
        let name = jobs.first().map(|job| json!({"TrainingJobName": job["TrainingJobName"]}))?;
        server.call("DescribeTrainingJob", &name)["SecondaryStatus"].as_str().map(str::to_owned)
    };
    until("the channel is being fetched", || secondary().as_deref() == Some("Downloading"));
    server.call("StopHyperParameterTuningJob", &json!({"HyperParameterTuningJobName": "silent"}));
    until("the training job has stopped", || secondary().as_deref() == Some("Stopped"));
    let name = json!({"HyperParameterTuningJobName": "silent"});
    let status = || server.call("DescribeHyperParameterTuningJob", &name)["HyperParameterTuningJobStatus"].clone();
    until("the tuning job has stopped", || status() == "Stopped");
}

/// Reads its channel, goes on from its checkpoint, and without one writes it and waits for the worst.
const PROGRAM: &str = r#"
set -e
x=$(sed 's/.*"x" *: *"\([^"]*\)".*/\1/' /opt/ml/input/config/hyperparameters.json)
rows=$(wc -l < /opt/ml/input/data/train/rows.csv)
if [ ! -f /opt/ml/checkpoints/half ]; then
  echo "half of $x" > /opt/ml/checkpoints/half
  sleep 300
fi
cp /opt/ml/checkpoints/half /opt/ml/model/from
echo "rows $rows" > /opt/ml/model/rows
echo "loss=$x;"
"#;

#[tokio::test]
async fn boto3_tunes_on_data_in_s3() {
    let (s3, folder) = (S3Server::start(), TempDir::new().unwrap());
    std::fs::write(folder.path().join("train.sh"), PROGRAM).unwrap();
    let config = format!(
        "max_running = 4\n[process]\nallow_root = true\n\
         [[images]]\nname = \"local/rows:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n\
         [[buckets]]\nname = \"*\"\nendpoint = \"{}\"\naccess_key_id = \"{ACCESS_KEY}\"\n\
         secret_access_key = \"{SECRET_KEY}\"\n",
        s3.endpoint
    );
    std::fs::write(folder.path().join("tunesmith.toml"), config).unwrap();
    let data_dir = folder.path().join("data");
    let server = ServerProcess::start(&folder.path().join("tunesmith.toml"), &data_dir, None);
    let mut client = Command::new(client("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/s3.py"))
        .args([&server.url, &s3.endpoint, ACCESS_KEY, SECRET_KEY])
        .spawn()
        .unwrap();
    // Each first attempt loses its supervisor once it has a checkpoint.
    let checkpoints = data_dir.join("s3/.fetched/checkpoints");
    let mut over = None;
    until("boto3 has seen the tuning job's end", || {
        for (pid, attempt) in supervised(&data_dir) {
            if attempt.ends_with("-1") && checkpoints.join(&attempt).join("half").exists() {
                // It may be gone by itself.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        over = client.try_wait().unwrap();
        over.is_some()
    });
    assert!(over.unwrap().success());
    // Nobody holds what is over.
    let users = folder.path().join("data/s3/.fetched/users");
    until("every copy is released", || std::fs::read_dir(&users).unwrap().next().is_none());
    assert_eq!(std::fs::read_dir(folder.path().join("data/s3/.fetched/sets")).unwrap().count(), 1, "one copy for all");
}
