//! The clients that people use, against the binary that people run: boto3 and the aws CLI over the whole life of a job.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::database::{Engine, TestDb};
use crate::support::server::{BINARY, ServerProcess, client, command};

/// Two images; the programs lie beside the configuration, as a user's would.
const CONFIG: &str = r#"
max_running = 4
[process]
allow_root = true
[[images]]
name = "local/score:1"
command = ["/bin/sh", "score.sh"]
[[images]]
name = "local/sleep:1"
command = ["/bin/sh", "-c", "exec sleep 300"]
"#;

struct Project {
    server: ServerProcess,
    folder: tempfile::TempDir,
    _database: TestDb<()>,
}

async fn project(engine: Engine) -> Project {
    let folder = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    std::fs::copy(scripts.join("score.sh"), folder.path().join("score.sh")).unwrap();
    let config = folder.path().join("tunesmith.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let database = TestDb::empty(engine).await;
    let server = ServerProcess::start(&config, &folder.path().join("data"), Some(&database.url));
    Project { server, folder, _database: database }
}

impl Project {
    fn buckets(&self) -> PathBuf {
        self.folder.path().join("data/s3")
    }

    /// Runs the aws CLI; `Err` is what it wrote to standard error.
    fn aws(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = Command::new(client("aws"))
            .args(["--endpoint-url", &self.server.url, "--region", "us-east-1", "--output", "json", "sagemaker"])
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .env("AWS_PAGER", "")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(text(&output.stderr));
        }
        Ok(if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

async fn boto3_sees_a_whole_life(engine: Engine) {
    let project = project(engine).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/lifecycle.py");
    let output = Command::new(client("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .arg(&project.server.url)
        .arg(project.buckets())
        .output()
        .unwrap();
    succeeded(&output);
    assert_eq!(text(&output.stdout), "every expectation was met\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_sees_a_whole_life_on_sqlite() {
    boto3_sees_a_whole_life(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_sees_a_whole_life_on_postgres() {
    boto3_sees_a_whole_life(Engine::Postgres).await;
}

fn grid(name: &str) -> String {
    let request = json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Grid",
            "HyperParameterTuningJobObjective": { "Type": "Minimize", "MetricName": "score" },
            "ResourceLimits": { "MaxParallelTrainingJobs": 3 },
            "ParameterRanges": { "CategoricalParameterRanges": [{ "Name": "x", "Values": ["3", "1", "2"] }] },
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/score:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{ "Name": "score", "Regex": "score=([0-9.]+)" }],
            },
            "RoleArn": "arn:aws:iam::000000000000:role/any",
            "InputDataConfig": [{
                "ChannelName": "train",
                "DataSource": { "S3DataSource": { "S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data/" } },
            }],
            "OutputDataConfig": { "S3OutputPath": "s3://bucket/models" },
            "ResourceConfig": { "InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1 },
            "StoppingCondition": { "MaxRuntimeInSeconds": 300 },
        },
    });
    request.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_and_ours_follow_a_job() {
    let project = project(Engine::Sqlite).await;
    let data = project.buckets().join("bucket/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("rows.csv"), "1,2\n").unwrap();

    let created = project.aws(&["create-hyper-parameter-tuning-job", "--cli-input-json", &grid("cli")]).unwrap();
    let arn = "arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/cli";
    assert_eq!(created["HyperParameterTuningJobArn"], arn);
    let name = ["--hyper-parameter-tuning-job-name", "cli"];
    // Each look takes the CLI most of a second: that is the pause between them.
    let described = (0..120)
        .map(|_| project.aws(&[&["describe-hyper-parameter-tuning-job"][..], &name].concat()).unwrap())
        .find(|described| described["HyperParameterTuningJobStatus"] != "InProgress")
        .expect("the tuning job ends");
    assert_eq!(described["HyperParameterTuningJobStatus"], "Completed", "{described}");
    assert_eq!(described["BestTrainingJob"]["TunedHyperParameters"]["x"], "1");
    let best = described["BestTrainingJob"]["TrainingJobName"].as_str().unwrap();

    // The CLI pages by itself.
    let list = ["list-training-jobs-for-hyper-parameter-tuning-job", "--page-size", "1"];
    let listed = project.aws(&[&list[..], &name].concat()).unwrap();
    assert_eq!(listed["TrainingJobSummaries"].as_array().unwrap().len(), 3);
    project.aws(&["wait", "training-job-completed-or-stopped", "--training-job-name", best]).unwrap();
    let training = project.aws(&["describe-training-job", "--training-job-name", best]).unwrap();
    assert_eq!(training["SecondaryStatus"], "Completed");

    let logs = command().args(["logs", "-f", best, "--endpoint-url", &project.server.url]).output().unwrap();
    succeeded(&logs);
    assert!(text(&logs.stdout).contains("score=1\n"), "{}", text(&logs.stdout));

    let missing = project.aws(&["describe-training-job", "--training-job-name", "nowhere"]).unwrap_err();
    assert!(
        missing.contains("(ValidationException)") && missing.contains("Requested resource not found."),
        "{missing}"
    );
    project.aws(&[&["delete-hyper-parameter-tuning-job"][..], &name].concat()).unwrap();
    let gone = project.aws(&[&["describe-hyper-parameter-tuning-job"][..], &name].concat()).unwrap_err();
    assert!(gone.contains("(ResourceNotFound)"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_the_server() {
    let mut project = project(Engine::Sqlite).await;
    assert_eq!(project.server.get("/healthz").0, 200);
    assert_eq!(project.server.get("/readyz").0, 200);
    project.server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(project.server.wait().success());
}

#[test]
fn a_draining_server_is_seen_not_to_be_ready() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tunesmith.toml");
    std::fs::write(&config, "drain_grace_seconds = 600\n[process]\nallow_root = true\n").unwrap();
    let mut server = ServerProcess::start(&config, &folder.path().join("data"), None);
    assert_eq!(server.get("/readyz").0, 200);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    while server.get("/readyz").0 != 503 {}
    assert_eq!(server.get("/healthz").0, 200);
    // The second signal ends it within the grace.
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(!server.wait().success());
}

#[test]
fn serving_beyond_loopback_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = command().args(["serve", "--listen", "0.0.0.0:0", "--data-dir"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does not check signatures yet"), "{}", text(&output.stderr));
}

#[test]
fn the_settings_in_force_are_shown_without_the_password() {
    let output = command()
        .args(["config", "check", "--database-url", "postgres://me:s3cret@db/t"])
        .env("TUNESMITH_MAX_RUNNING", "3")
        .env("TUNESMITH_PROCESS_ALLOW_ROOT", "true")
        .output()
        .unwrap();
    succeeded(&output);
    let shown = text(&output.stdout);
    assert!(shown.contains("database_url = \"postgres://me:***@db/t\"  # --database-url\n"), "{shown}");
    assert!(shown.contains("max_running = 3  # TUNESMITH_MAX_RUNNING\n") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_command_line_without_sense_is_a_usage_error() {
    let output = Command::new(BINARY).arg("sreve").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
