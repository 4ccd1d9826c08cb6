//! Requests a second of the real server and of the bare one, in alternating rounds.

use std::net::SocketAddr;

use serde_json::json;
use sqlx::{Connection as _, Executor as _};

use crate::client::{Round, request, round};
use crate::{Place, bare, median, real, setting};

/// Jobs that Describe and List find, in each of the two tables.
const JOBS: usize = 1_000;

pub async fn run(place: &Place) {
    let connections = setting("BENCH_CONNECTIONS", 16);
    let (requests, rounds) = (setting("BENCH_REQUESTS", 2_000), setting("BENCH_ROUNDS", 7));
    let url = place.database().await;
    let real = real::serve(&url, place.folder.path()).await;
    let bare = bare::serve(&url).await;
    println!(
        "{connections} connections, {rounds} rounds of {requests} requests each; a request of {} bytes",
        real::document("job-00000000").to_string().len()
    );
    println!("{:38} {:>9} {:>9} {:>7} {:>10} {:>10}", "", "real /s", "bare /s", "ratio", "real p50", "bare p50");
    let mut made = 0;
    for server in [real, bare] {
        round(server, connections, creates(&mut made, JOBS)).await;
        finish_jobs(&url).await;
    }
    // The bare table's jobs have the numbers after the real one's.
    let describes = |first: usize| -> Vec<Vec<u8>> {
        let body = |i| json!({"HyperParameterTuningJobName": format!("job-{:08}", first + i % JOBS)}).to_string();
        (0..requests).map(|i| request("DescribeHyperParameterTuningJob", &body(i * 7919))).collect()
    };
    let lists = || -> Vec<Vec<u8>> { vec![request("ListHyperParameterTuningJobs", "{}"); requests] };

    let mut results = Compared::default();
    for _ in 0..rounds {
        let theirs = round(bare, connections, creates(&mut made, requests)).await;
        let ours = round(real, connections, creates(&mut made, requests)).await;
        results.add(ours, theirs);
        finish_jobs(&url).await;
    }
    results.print("CreateHyperParameterTuningJob");
    compare("DescribeHyperParameterTuningJob", rounds, (real, bare), connections, || (describes(0), describes(JOBS)))
        .await;
    compare("ListHyperParameterTuningJobs", rounds, (real, bare), connections, || (lists(), lists())).await;
}

async fn compare(
    name: &str,
    rounds: usize,
    (real, bare): (SocketAddr, SocketAddr),
    connections: usize,
    requests: impl Fn() -> (Vec<Vec<u8>>, Vec<Vec<u8>>),
) {
    let mut results = Compared::default();
    for _ in 0..rounds {
        let (to_real, to_bare) = requests();
        let theirs = round(bare, connections, to_bare).await;
        let ours = round(real, connections, to_real).await;
        results.add(ours, theirs);
    }
    results.print(name);
}

/// Requests for jobs of new names.
fn creates(made: &mut usize, count: usize) -> Vec<Vec<u8>> {
    let first = *made;
    *made += count;
    let body = |i: usize| real::document(&format!("job-{i:08}")).to_string();
    (first..*made).map(|i| request("CreateHyperParameterTuningJob", &body(i))).collect()
}

/// What the scheduler would have done by now: a job in progress counts towards the quota of every Create.
async fn finish_jobs(url: &str) {
    const FINISH: &str = "UPDATE tuning_jobs SET status = 'Completed' WHERE status = 'InProgress'";
    if let Some(path) = url.strip_prefix("sqlite://") {
        sqlx::SqliteConnection::connect(path).await.unwrap().execute(FINISH).await.unwrap();
    } else {
        sqlx::PgConnection::connect(url).await.unwrap().execute(FINISH).await.unwrap();
    }
}

/// Rounds of both servers, pair by pair.
#[derive(Default)]
struct Compared {
    ours: Vec<Round>,
    theirs: Vec<Round>,
}

impl Compared {
    fn add(&mut self, ours: Round, theirs: Round) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// Medians over the rounds; the ratio is the median of the pairs' ratios.
    fn print(&self, name: &str) {
        let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.per_second).collect());
        let latency = |rounds: &[Round]| median(rounds.iter().flat_map(|round| round.latencies.clone()).collect());
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratio = median(pairs.map(|(ours, theirs)| ours.per_second / theirs.per_second).collect());
        println!(
            "{name:38} {:9.0} {:9.0} {:6.0}% {:7.2} ms {:7.2} ms   answers of {} and {} bytes",
            rate(&self.ours),
            rate(&self.theirs),
            100.0 * ratio,
            latency(&self.ours),
            latency(&self.theirs),
            self.ours[0].answer,
            self.theirs[0].answer,
        );
    }
}
