//! Requests a second of the real server and of the bare one, in alternating rounds.

use std::net::SocketAddr;

use serde_json::json;

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
        real::document(&name(0)).to_string().len()
    );
    println!("{:38} {:>9} {:>9} {:>7} {:>10} {:>10}", "", "real /s", "bare /s", "ratio", "real p50", "bare p50");
    let mut made = 0;
    for server in [real, bare] {
        round(server, connections, creates(&mut made, JOBS)).await;
    }
    let servers = (real, bare);
    compare("CreateHyperParameterTuningJob", rounds, servers, connections, |_| creates(&mut made, requests)).await;
    // The bare table's jobs have the numbers after the real one's.
    let describe = |i| {
        let body = json!({"HyperParameterTuningJobName": name(i)}).to_string();
        request("DescribeHyperParameterTuningJob", &region(i), &body)
    };
    let describes = |server| {
        let first = if server == real { 0 } else { JOBS };
        (0..requests).map(|i| describe(first + i * 7919 % JOBS)).collect()
    };
    compare("DescribeHyperParameterTuningJob", rounds, servers, connections, describes).await;
    let lists = |_| (0..requests).map(|i| request("ListHyperParameterTuningJobs", &region(i % JOBS), "{}")).collect();
    compare("ListHyperParameterTuningJobs", rounds, servers, connections, lists).await;
}

/// Rounds of each server in turn. `requests` makes those of a round.
async fn compare(
    name: &str,
    rounds: usize,
    (real, bare): (SocketAddr, SocketAddr),
    connections: usize,
    mut requests: impl FnMut(SocketAddr) -> Vec<Vec<u8>>,
) {
    if std::env::var("BENCH_OPERATION").is_ok_and(|only| only != name) {
        return;
    }
    let mut results = Compared::default();
    for _ in 0..rounds {
        let theirs = round(bare, connections, requests(bare)).await;
        let ours = round(real, connections, requests(real)).await;
        results.ours.push(ours);
        results.theirs.push(theirs);
    }
    results.print(name);
}

fn name(job: usize) -> String {
    format!("job-{job:08}")
}

/// Nothing ends the jobs while a round runs, so each 64 have a region, and with it a quota, of their own.
fn region(job: usize) -> String {
    format!("bench-{}", job / 64)
}

/// Requests for jobs of new names.
fn creates(made: &mut usize, count: usize) -> Vec<Vec<u8>> {
    let first = *made;
    *made += count;
    let create = |i| request("CreateHyperParameterTuningJob", &region(i), &real::document(&name(i)).to_string());
    (first..*made).map(create).collect()
}

/// Rounds of both servers, pair by pair.
#[derive(Default)]
struct Compared {
    ours: Vec<Round>,
    theirs: Vec<Round>,
}

impl Compared {
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
