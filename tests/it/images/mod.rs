//! The training images of `docker/`: their programs without a container, and tuning jobs that run them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bollard::query_parameters::RemoveVolumeOptions;
use tempfile::TempDir;

use crate::support::docker::{address, connect, containers};
use crate::support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::server::{ServerProcess, client, until_async};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}
