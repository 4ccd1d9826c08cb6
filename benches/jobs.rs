//! No-op training jobs through the whole service: how many a second, at what cost, and how soon the next one starts.
//!
//! The server is the release binary over HTTP; the training program is `/bin/true`. Beside every figure stands its
//! baseline from the same run: raw fork/exec of the same program, and the disk's `fdatasync`. Ratios carry over to other
//! machines; absolute figures do not.
//!
//!     cargo bench --bench jobs                                     # SQLite
//!     BENCH_DATABASE_URL=postgres://… cargo bench --bench jobs     # an empty Postgres database
//!     BENCH_JOBS=4000 BENCH_PARALLEL=16 …                          # other sizes

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

fn main() {
    let jobs = setting("BENCH_JOBS", 2_000);
    let parallel = setting("BENCH_PARALLEL", 16);
    let folder = tempfile::tempdir().unwrap();
    let database = std::env::var("BENCH_DATABASE_URL").ok();
    println!("database: {}", database.as_deref().map_or("sqlite", |_| "postgres"));
    println!("disk: {:.0} fdatasync/s", fdatasyncs_per_second(folder.path()));

    let (raw_per_second, raw_cpu_ms) = raw_fork_exec(jobs, parallel);
    println!("raw fork/exec: {raw_per_second:.0}/s, {raw_cpu_ms:.2} ms of processor time each");

    let before = children_cpu_ms();
    let server = Server::start(folder.path(), database.as_deref(), parallel);
    println!("start to ready: {} ms, idle memory: {:.1} MB", server.ready_ms, server.memory_mb());
    let idle_cpu_ms = server.cpu_ms();

    let begun = Instant::now();
    server.create("bench", "local/noop:1", jobs, parallel);
    server.wait("bench");
    let elapsed = begun.elapsed().as_secs_f64();
    println!("training jobs: {:.0}/s at {parallel} parallel ({jobs} in {elapsed:.1} s)", f64::from(jobs) / elapsed);
    println!("memory after: {:.1} MB", server.memory_mb());

    let stamps = folder.path().join("stamps");
    server.create("latency", "local/stamp:1", 200, 1);
    server.wait("latency");
    let gaps = gaps_ms(&stamps);
    println!(
        "start to next start, one at a time (the program's own run included): p50 {:.1} ms, p99 {:.1} ms",
        percentile(&gaps, 0.50),
        percentile(&gaps, 0.99)
    );
    server.end();
    let cpu = (children_cpu_ms() - before - idle_cpu_ms) / f64::from(jobs + 200);
    println!(
        "processor time of a training job: {cpu:.2} ms, {:.2} ms over raw fork/exec (supervisors and programs included)",
        cpu - raw_cpu_ms
    );
}

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn fdatasyncs_per_second(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    200.0 / begun.elapsed().as_secs_f64()
}

fn raw_fork_exec(jobs: u32, parallel: u32) -> (f64, f64) {
    let (before, begun) = (children_cpu_ms(), Instant::now());
    let mut running: Vec<Child> = Vec::new();
    for _ in 0..jobs {
        if running.len() == parallel as usize {
            running.remove(0).wait().unwrap();
        }
        running.push(Command::new("/bin/true").spawn().unwrap());
    }
    for mut child in running {
        child.wait().unwrap();
    }
    (f64::from(jobs) / begun.elapsed().as_secs_f64(), (children_cpu_ms() - before) / f64::from(jobs))
}

fn children_cpu_ms() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let ms = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 * 1e3 + t.tv_usec() as f64 / 1e3;
    ms(usage.user_time()) + ms(usage.system_time())
}

/// Gaps between the time stamps of consecutive starts, sorted.
fn gaps_ms(stamps: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(stamps).unwrap();
    let at: Vec<f64> = text.lines().map(|line| line.parse::<f64>().unwrap() / 1e6).collect();
    let mut gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p).round() as usize]
}

struct Server {
    child: Child,
    endpoint: String,
    ready_ms: u128,
}

impl Server {
    fn start(folder: &Path, database: Option<&str>, parallel: u32) -> Self {
        let config = folder.join("tunesmith.toml");
        let stamps = folder.join("stamps");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nmax_running = {parallel}\n[process]\nallow_root = true\n\
             [[images]]\nname = \"local/noop:1\"\ncommand = [\"/bin/true\"]\n\
             [[images]]\nname = \"local/stamp:1\"\ncommand = [\"/bin/sh\", \"-c\", \"date +%s%N >> {}\"]\n",
            stamps.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunesmith"));
        command.arg("serve").arg("--config").arg(&config).arg("--data-dir").arg(folder.join("data"));
        if let Some(url) = database {
            command.arg("--database-url").arg(url);
        }
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = loop {
            let line = lines.next().expect("the server says where it listens").unwrap();
            if let Some(at) = line.find("http://127.0.0.1:") {
                break line[at..].split_whitespace().next().unwrap().trim_end_matches(['.', ',']).to_owned();
            }
        };
        while ureq::get(format!("{endpoint}/readyz")).call().is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let ready_ms = begun.elapsed().as_millis();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint, ready_ms }
    }

    fn call(&self, operation: &str, input: &Value) -> Value {
        let answer = ureq::post(format!("{}/", self.endpoint))
            .header("X-Amz-Target", format!("SageMaker.{operation}"))
            .content_type("application/x-amz-json-1.1")
            .send(input.to_string());
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn create(&self, name: &str, image: &str, jobs: u32, parallel: u32) {
        self.call(
            "CreateHyperParameterTuningJob",
            &json!({
                "HyperParameterTuningJobName": name,
                "HyperParameterTuningJobConfig": {
                    "Strategy": "Random",
                    "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
                    "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel},
                    "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
                },
                "TrainingJobDefinition": {
                    "AlgorithmSpecification": {
                        "TrainingImage": image, "TrainingInputMode": "File",
                        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(\\S+)"}]
                    },
                    "RoleArn": "arn:aws:iam::000000000000:role/service",
                    "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
                    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
                    "StoppingCondition": {"MaxRuntimeInSeconds": 3600}
                }
            }),
        );
    }

    fn wait(&self, name: &str) {
        let input = json!({"HyperParameterTuningJobName": name});
        loop {
            let job = self.call("DescribeHyperParameterTuningJob", &input);
            match job["HyperParameterTuningJobStatus"].as_str() {
                Some("InProgress") => std::thread::sleep(Duration::from_millis(20)),
                Some("Completed") => return,
                _ => panic!("the tuning job did not complete: {job}"),
            }
        }
    }

    /// Resident memory.
    fn memory_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Processor time so far, from the kernel's ticks of 10 ms.
    fn cpu_ms(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10.0
    }

    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }
}
