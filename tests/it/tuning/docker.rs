//! A tuning job over HTTP whose image is a container's, named as on AWS, on a server that runs programs of its machine too;
//! the server killed in the middle.

use std::io::Read;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::database::{Engine, TestDb};
use crate::support::docker::{address, connect, helper_image, import, nothing_is_left};
use crate::support::server::{ServerProcess, until};

/// What the requests name, and what stands behind it.
const AWS_IMAGE: &str = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-epochs:1.0-1-cpu-py3";
const LOCAL_IMAGE: &str = "tunesmith-test/epochs:1";

/// Reads its hyperparameter and its channel, trains for five epochs, leaves a model.
const PROGRAM: &str = r#"
x=$(sed 's/.*"x" *: *"\([^"]*\)".*/\1/' /opt/ml/input/config/hyperparameters.json)
echo "argument $1; $(ls /sys/class/net | tr '\n' ' ')"
for epoch in 1 2 3 4 5; do echo "epoch $epoch"; sleep 0.2; done
cat /opt/ml/input/data/train/data.csv > /opt/ml/model/model
echo "loss=$x;"
"#;

fn request(name: &str, image: &str, isolated: bool) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": image, "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([^;]+);"}]
            },
            "InputDataConfig": [{
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data"}}
            }],
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "EnableNetworkIsolation": isolated
        }
    })
}

fn is_completed(server: &ServerProcess, name: &str) {
    let job = server.finish(name);
    assert_eq!(job["HyperParameterTuningJobStatus"], "Completed", "{job}");
    let told = |summary: &Value| (summary["TrainingJobName"].to_string(), summary["FailureReason"].to_string());
    let told: Vec<_> = server.training_jobs(name).iter().map(told).collect();
    assert_eq!(job["TrainingJobStatusCounters"]["Completed"], 6, "{told:?}");
    assert_eq!(job["ObjectiveStatusCounters"]["Succeeded"], 6, "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_programs_are_tuned_by_one_server() {
    let docker = connect(&address()).await;
    let entrypoint = json!(["/bin/sh", "-c", PROGRAM, "train"]);
    import(&docker, LOCAL_IMAGE, &format!("ENTRYPOINT {entrypoint}")).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (folder.path().join("tunesmith.toml"), folder.path().join("data"));
    std::fs::write(folder.path().join("train.sh"), PROGRAM).unwrap();
    let text = format!(
        "max_running = 3\n[process]\nallow_root = true\n[docker]\npull = \"never\"\n\
         [[images]]\nname = \"*.dkr.ecr.*.amazonaws.com/sagemaker-epochs:*\"\ndocker_image = \"{LOCAL_IMAGE}\"\n\
         [[images]]\nname = \"local/epochs:1\"\ncommand = [\"/bin/sh\", \"train.sh\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(data.join("s3/bucket/data")).unwrap();
    std::fs::write(data.join("s3/bucket/data/data.csv"), "rows\n").unwrap();
    let database = TestDb::empty(Engine::Sqlite).await;
    let serve = || ServerProcess::start(&config, &data, Some(&database.url));

    let mut server = serve();
    server.call("CreateHyperParameterTuningJob", &request("contained", AWS_IMAGE, true));
    server.call("CreateHyperParameterTuningJob", &request("plain", "local/epochs:1", false));
    let attempts = data.join("docker/attempts");
    until("containers are looked after", || std::fs::read_dir(&attempts).is_ok_and(|entries| entries.count() >= 2));
    server.signal(Signal::SIGKILL);
    server.wait();
    server = serve();
    is_completed(&server, "contained");
    is_completed(&server, "plain");

    for summary in server.training_jobs("contained") {
        let name = summary["TrainingJobName"].as_str().unwrap();
        let (status, log) = server.get(&format!("/v1/training-jobs/{name}/log"));
        assert_eq!(status, 200);
        assert!(log.contains("argument train; ") && !log.contains("eth0"), "{log}");
        let epochs: Vec<&str> = log.lines().filter_map(|line| line.split_once("epoch ").map(|(_, n)| n)).collect();
        assert_eq!(epochs, ["1", "2", "3", "4", "5"], "{log}");
        let training = server.call("DescribeTrainingJob", &json!({"TrainingJobName": name}));
        let model = training["ModelArtifacts"]["S3ModelArtifacts"].as_str().unwrap();
        let archive = std::fs::File::open(data.join("s3").join(model.strip_prefix("s3://").unwrap())).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let mut text = String::new();
        archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "rows\n");
    }

    // A program of the machine cannot be kept from its network.
    let refused = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut refused = refused
        .post(format!("{}/", server.url))
        .header("X-Amz-Target", "SageMaker.CreateHyperParameterTuningJob")
        .content_type("application/x-amz-json-1.1")
        .send(request("isolated", "local/epochs:1", true).to_string())
        .unwrap();
    let text = refused.body_mut().read_to_string().unwrap();
    assert!(refused.status() == 400 && text.contains("enableNetworkIsolation"), "{text}");

    nothing_is_left(&docker, &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_read_their_channels_from_pipes() {
    let docker = connect(&address()).await;
    let helper = helper_image(&docker).await;
    let program = "x=$(sed 's/.*\"x\" *: *\"\\([^\"]*\\)\".*/\\1/' /opt/ml/input/config/hyperparameters.json)\n\
                   cd /opt/ml/input/data; for epoch in 0 1 2; do echo \"epoch $epoch: $(wc -c < train_$epoch)\"; sleep 0.2; done\n\
                   echo \"loss=$x;\"";
    let entrypoint = json!(["/bin/sh", "-c", program, "train"]);
    import(&docker, "tunesmith-test/streamed:1", &format!("ENTRYPOINT {entrypoint}")).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (folder.path().join("tunesmith.toml"), folder.path().join("data"));
    let text = format!(
        "max_running = 3\n[process]\nallow_root = true\n[docker]\npull = \"never\"\nhelper_image = \"{helper}\"\n\
         images = [\"tunesmith-test/streamed:1\"]\n"
    );
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(data.join("s3/bucket/data")).unwrap();
    std::fs::write(data.join("s3/bucket/data/a"), vec![b'a'; 3 << 20]).unwrap();
    std::fs::write(data.join("s3/bucket/data/b"), "b").unwrap();
    let database = TestDb::empty(Engine::Sqlite).await;
    let serve = || ServerProcess::start(&config, &data, Some(&database.url));

    let mut server = serve();
    let mut request = request("streamed", "tunesmith-test/streamed:1", true);
    request["TrainingJobDefinition"]["AlgorithmSpecification"]["TrainingInputMode"] = json!("Pipe");
    server.call("CreateHyperParameterTuningJob", &request);
    let attempts = data.join("docker/attempts");
    until("containers are looked after", || std::fs::read_dir(&attempts).is_ok_and(|entries| entries.count() >= 2));
    server.signal(Signal::SIGKILL);
    server.wait();
    server = serve();
    is_completed(&server, "streamed");
    for summary in server.training_jobs("streamed") {
        let name = summary["TrainingJobName"].as_str().unwrap();
        let (_, log) = server.get(&format!("/v1/training-jobs/{name}/log"));
        let epochs: Vec<&str> = log.lines().filter_map(|line| line.split_once("epoch ").map(|(_, n)| n)).collect();
        assert_eq!(epochs, ["0: 3145729", "1: 3145729", "2: 3145729"], "{log}");
    }
    nothing_is_left(&docker, &data).await;
}
