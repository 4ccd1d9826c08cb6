//! A tuning job over HTTP whose training jobs run on two hosts each, with a share of the data for either; the server killed
//! in the middle.

use std::collections::BTreeMap;
use std::io::Read;

use bollard::query_parameters::{ListNetworksOptions, RemoveVolumeOptions};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::database::{Engine, TestDb};
use crate::support::docker::{address, connect, containers, import};
use crate::support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::server::{ServerProcess, until};

const IMAGE: &str = "tunesmith-test/hosts:1";

/// The second host tells the first what it was given; the first trains for five epochs.
const PROGRAM: &str = r#"
x=$(sed 's/.*"x" *: *"\([^"]*\)".*/\1/' /opt/ml/input/config/hyperparameters.json)
files=$(cd /opt/ml/input/data/train; echo *)
case $(hostname) in
algo-1)
  # An input that does not end: nc would end with it.
  mkfifo /tmp/open; exec 3<>/tmp/open
  echo "algo-1 has $files; algo-2 has $(nc -l -p 5000 <&3)"
  for epoch in 1 2 3 4 5; do echo "epoch $epoch"; sleep 0.2; done
  echo "loss=$x;"
  echo "$files" > /opt/ml/model/first;;
algo-2)
  until (echo "$files" | nc -w 5 algo-1 5000) > /dev/null 2>&1; do sleep 0.05; done
  echo "algo-2 is done"
  echo "$files" > /opt/ml/model/second;;
esac
"#;

fn request(name: &str, hosts: u32) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE, "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([^;]+);"}]
            },
            "InputDataConfig": [{
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {
                    "S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data", "S3DataDistributionType": "ShardedByS3Key"
                }}
            }],
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "HyperParameterTuningResourceConfig": {
                "InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "EnableNetworkIsolation": true
        }
    })
}

/// The files of a stored model, with what is in them.
fn model(archive: &std::path::Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap()));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    };
    archive.entries().unwrap().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn training_jobs_on_two_hosts_are_tuned() {
    tuned_on_two_hosts(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn training_jobs_on_two_hosts_share_a_bucket_of_a_store() {
    tuned_on_two_hosts(Some(S3Server::start())).await;
}

/// With the bucket in a store, or in the directory tree.
async fn tuned_on_two_hosts(store: Option<S3Server>) {
    let docker = connect(&address()).await;
    let entrypoint = json!(["/bin/sh", "-c", PROGRAM, "train"]);
    import(&docker, IMAGE, &format!("ENTRYPOINT {entrypoint}")).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (folder.path().join("tunesmith.toml"), folder.path().join("data"));
    let (bucket, buckets) = match &store {
        Some(store) => {
            let of_store = format!(
                "[[buckets]]\nname = \"bucket\"\nendpoint = \"{}\"\naccess_key_id = \"{ACCESS_KEY}\"\n\
                 secret_access_key = \"{SECRET_KEY}\"\n",
                store.endpoint
            );
            (store.bucket("bucket"), of_store)
        }
        None => (data.join("s3/bucket"), String::new()),
    };
    let text = format!(
        "max_running = 2\n[process]\nallow_root = true\n[quotas]\nhosts_per_training_job = 2\n\
         [docker]\npull = \"never\"\nimages = [\"tunesmith-test/hosts:*\"]\n{buckets}"
    );
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(bucket.join("data")).unwrap();
    for nth in 0..5 {
        std::fs::write(bucket.join(format!("data/part-{nth}")), "rows\n").unwrap();
    }
    let database = TestDb::empty(Engine::Sqlite).await;
    let serve = || ServerProcess::start(&config, &data, Some(&database.url));
    let mut server = serve();
    server.call("CreateHyperParameterTuningJob", &request("pairs", 2));
    let attempts = data.join("docker/attempts");
    let begun =
        |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| entry.path().join("started").exists());
    until("a training job has begun", || std::fs::read_dir(&attempts).is_ok_and(|mut entries| entries.any(begun)));
    server.signal(Signal::SIGKILL);
    server.wait();
    server = serve();
    let job = server.finish("pairs");
    let summaries = server.training_jobs("pairs");
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 4, "{summaries:?}");
    assert_eq!(job["ObjectiveStatusCounters"]["Succeeded"], 4, "{job}");

    for summary in summaries {
        let name = summary["TrainingJobName"].as_str().unwrap();
        let (_, log) = server.get(&format!("/v1/training-jobs/{name}/log"));
        let (first, second) = ("part-0 part-2 part-4", "part-1 part-3");
        assert!(log.contains(&format!("algo-1 has {first}; algo-2 has {second}")), "{log}");
        assert!(log.contains("algo-2 is done"), "{log}");
        let training = server.call("DescribeTrainingJob", &json!({"TrainingJobName": name}));
        assert_eq!(training["ResourceConfig"]["InstanceCount"], 2, "{training}");
        let uri = training["ModelArtifacts"]["S3ModelArtifacts"].as_str().unwrap();
        let files = model(&bucket.join(uri.strip_prefix("s3://bucket/").unwrap()));
        let expected =
            [("first", first), ("second", second)].map(|(name, text)| (name.to_owned(), format!("{text}\n")));
        assert_eq!(files, BTreeMap::from(expected));
    }

    let id = std::fs::read_to_string(data.join("executor-id")).unwrap();
    let label = format!("tunesmith.executor=docker:{}", id.trim());
    let networks = async || {
        let filters = Some([("label".to_owned(), vec![label.clone()])].into());
        docker.list_networks(Some(ListNetworksOptions { filters })).await.unwrap().len()
    };
    let gone = async {
        while !containers(&docker, &label).await.is_empty() || networks().await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), gone).await.expect("nothing is left with the daemon");
    for volume in std::fs::read_dir(data.join("docker/volumes")).unwrap() {
        let name = volume.unwrap().file_name().into_string().unwrap();
        docker.remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
    }
}
