//! The training images of `docker/`: their programs without a container, and tuning jobs that run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::docker::{address, connect, nothing_is_left};
use crate::support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::server::{ServerProcess, client};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs Python with the clients' packages.
async fn python(change: impl FnOnce(&mut Command)) {
    let mut command = Command::new(client("python"));
    command.args(["-W", "ignore"]).env("PYTHONDONTWRITEBYTECODE", "1").env("OMP_WAIT_POLICY", "passive");
    change(&mut command);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

async fn keeps_the_contract(image: &str) {
    python(|command| {
        command.args(["-m", "unittest", "test_program"]).current_dir(path("docker").join(image));
    })
    .await;
}

#[tokio::test]
async fn the_xgboost_program_keeps_the_contract() {
    keeps_the_contract("xgboost").await;
}

#[tokio::test]
async fn the_sklearn_program_keeps_the_contract() {
    keeps_the_contract("sklearn").await;
}

/// Runs a client against a server that has the images of `docker/tunesmith.toml` and its buckets in a real store.
async fn tunes(script: &str, image: &str) {
    let docker = connect(&address()).await;
    let found = docker.inspect_image(image).await;
    found.map_err(|error| format!("{image} is not there, scripts/test builds it: {error}")).unwrap();
    let (s3, folder) = (S3Server::start(), TempDir::new().unwrap());
    // The configuration that people copy, with a store of the test's own.
    let text = std::fs::read_to_string(path("docker/tunesmith.toml")).unwrap();
    let text = text.replace("http://127.0.0.1:9000", &s3.endpoint).replace("tunesmith-local", SECRET_KEY);
    let text = text.replace("\"tunesmith\"", &format!("{ACCESS_KEY:?}"));
    let text = format!("max_running = 3\n{text}\n[process]\nallow_root = true\n");
    let (config, data_dir) = (folder.path().join("tunesmith.toml"), folder.path().join("data"));
    std::fs::write(&config, text).unwrap();
    let server = ServerProcess::start(&config, &data_dir, None);
    python(|command| {
        command.arg(path("tests/clients").join(script)).args([&server.url, &s3.endpoint, ACCESS_KEY, SECRET_KEY]);
    })
    .await;
    nothing_is_left(&docker, &data_dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_xgboost_request_is_tuned() {
    tunes("xgboost_tuning.py", "tunesmith/xgboost:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_s3_is_tuned_by_scikit_learn() {
    tunes("sklearn_tuning.py", "tunesmith/sklearn:1").await;
}
