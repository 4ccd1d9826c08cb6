//! Starting a training job's container, against creating and starting the same container through the Docker API.
//!
//! All are timed from the request until the daemon says that the container began. The container of the baselines is
//! created from what the daemon tells of one that the executor made: the same image, limits, environment and mounts. One
//! baseline starts it as it is, the other puts the contract's files into it first, as any client of the API would have to. Needs `DOCKER_HOST`, as the tests do (`scripts/test` shows a daemon of one's own).
//!
//!     cargo bench --bench containers
//!     BENCH_ROUNDS=30 …

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    dead_code,
    unused_imports,
    missing_docs,
    reason = "a benchmark, with the surroundings of the tests"
)]

#[path = "../../tests/it/support"]
mod support {
    pub mod docker;
    pub mod executor_harness;
}

use std::collections::HashMap;
use std::time::Instant;

use bollard::models::{ContainerCreateBody, EventMessage};
use bollard::query_parameters::{
    CreateContainerOptions, DownloadFromContainerOptions, EventsOptions, InspectContainerOptions,
    RemoveContainerOptions, StartContainerOptions, UploadToContainerOptions,
};
use bollard::{Docker, body_full};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use support::docker::{Harness, containers};
use support::executor_harness::{over, script};
use tunesmith::executor::Executor;

fn main() {
    let rounds = std::env::var("BENCH_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut ours, mut filled, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    runtime.block_on(async {
        let harness = Harness::start().await;
        for round in 0..=rounds {
            let (launched, body, files) = launch(&harness).await;
            let with_files = create_and_start(&harness.docker, body.clone(), Some(files)).await;
            let without = create_and_start(&harness.docker, body, None).await;
            // The first one finds nothing in any cache.
            if round > 0 {
                ours.push(launched);
                filled.push(with_files);
                bare.push(without);
            }
        }
    });
    println!("until a container runs, median of {rounds} rounds: {:.0} ms", 1e3 * median(ours.clone()));
    for (baseline, times) in [("create, fill and start", filled), ("create and start", bare)] {
        let ratio = median(ours.iter().zip(&times).map(|(ours, theirs)| ours / theirs).collect());
        println!("{baseline}: {:.0} ms, median of ratios {ratio:.2}", 1e3 * median(times));
    }
}

/// Seconds until an attempt's container began, and what it is made of.
async fn launch(harness: &Harness) -> (f64, ContainerCreateBody, Vec<u8>) {
    let spec = script("true");
    let mut starts = starts(&harness.docker, format!("tunesmith.attempt={}", spec.id));
    let begun = Instant::now();
    harness.executor.launch(&spec).await.unwrap();
    starts.next().await.unwrap().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    over(&harness.executor, spec.id).await;
    let id = containers(&harness.docker, &format!("tunesmith.attempt={}", spec.id)).await.remove(0);
    let made = harness.docker.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap();
    let config = made.config.unwrap();
    let body = ContainerCreateBody {
        image: config.image,
        cmd: config.cmd,
        hostname: config.hostname,
        env: config.env,
        labels: Some(HashMap::from([("tunesmith.bench".to_owned(), "bare".to_owned())])),
        host_config: made.host_config,
        ..ContainerCreateBody::default()
    };
    let files = DownloadFromContainerOptions { path: "/opt".into() };
    let files: Vec<Bytes> = harness.docker.download_from_container(&id, Some(files)).try_collect().await.unwrap();
    harness.executor.remove(spec.id).await.unwrap();
    (seconds, body, files.concat())
}

/// Seconds for the same container without Tunesmith.
async fn create_and_start(docker: &Docker, body: ContainerCreateBody, files: Option<Vec<u8>>) -> f64 {
    let mut starts = starts(docker, "tunesmith.bench=bare".to_owned());
    let begun = Instant::now();
    let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    if let Some(files) = files {
        let options = UploadToContainerOptions { path: "/".into(), ..UploadToContainerOptions::default() };
        docker.upload_to_container(&id, Some(options), body_full(files.into())).await.unwrap();
    }
    docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    starts.next().await.unwrap().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    docker.remove_container(&id, Some(options)).await.unwrap();
    seconds
}

/// What the daemon says when containers with a label begin.
fn starts(docker: &Docker, label: String) -> impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + Unpin {
    let filters = [("type", "container".to_owned()), ("event", "start".to_owned()), ("label", label)];
    let filters = filters.map(|(name, value)| (name.to_owned(), vec![value]));
    // The stream is asked for when it is first read: from now on, all the same.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let since = Some(format!("{}.{:09}", now.as_secs(), now.subsec_nanos()));
    let filters = Some(HashMap::from(filters));
    docker.events(Some(EventsOptions { since, filters, ..EventsOptions::default() })).boxed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
