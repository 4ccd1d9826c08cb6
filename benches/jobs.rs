//! No-op training jobs through the whole service: how many a second, at what cost, and how soon the next one starts.
//!
//! The server is the release binary over HTTP; the training program is `/bin/true`. Beside every figure stands its
//! baseline from the same run: raw fork/exec of the same program, and the disk's `fdatasync`. Ratios carry over to other
//! machines; absolute figures do not.
//!
//!     cargo bench --bench jobs                                     # SQLite
//!     BENCH_DATABASE_URL=postgres://… cargo bench --bench jobs     # an empty Postgres database
//!     BENCH_JOBS=4000 BENCH_PARALLEL=16 …                          # other sizes
//!     BENCH_BINARY=/path/to/tunesmith …                            # another build, to compare in alternation

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

/// The bench itself as training program: it writes when it began and when it is about to end.
const STAMP: &str = "stamp";

/// Training jobs one at a time.
const LATENCY_JOBS: u32 = 200;

fn main() {
    let begun = now_ns();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == STAMP) {
        let mut file = std::fs::File::options().append(true).create(true).open(&arguments[2]).unwrap();
        file.write_all(format!("{begun} {}\n", now_ns()).as_bytes()).unwrap();
        return;
    }
    let jobs = setting("BENCH_JOBS", 2_000);
    let parallel = setting("BENCH_PARALLEL", 16);
    let folder = tempfile::tempdir().unwrap();
    let database = std::env::var("BENCH_DATABASE_URL").ok();
    println!("database: {}", database.as_deref().map_or("sqlite", |_| "postgres"));
    println!("disk: {:.0} fdatasync/s", fdatasyncs_per_second(folder.path()));

    let (raw_per_second, raw_cpu_ms) = raw_fork_exec(jobs, parallel);
    println!("raw fork/exec: {raw_per_second:.0}/s, {raw_cpu_ms:.2} ms of processor time each");
    at_once(folder.path(), database.as_deref(), jobs, parallel, raw_cpu_ms);
    one_at_a_time(folder.path(), database.as_deref());
}

/// Many at once: rate, cost, commits.
fn at_once(folder: &Path, database: Option<&str>, jobs: u32, parallel: u32, raw_cpu_ms: f64) {
    let before = children_cpu_ms();
    let server = Server::start(folder, database, parallel);
    println!("start to ready: {} ms, idle memory: {:.1} MB", server.ready_ms, server.memory_mb());
    let idle_cpu_ms = server.cpu_ms();
    let begun = Instant::now();
    server.create("bench", "local/noop:1", jobs, parallel);
    server.wait("bench");
    let elapsed = begun.elapsed().as_secs_f64();
    println!("training jobs: {:.0}/s at {parallel} parallel ({jobs} in {elapsed:.1} s)", f64::from(jobs) / elapsed);
    println!("memory after: {:.1} MB", server.memory_mb());
    let commits = server.end();
    let cpu = (children_cpu_ms() - before - idle_cpu_ms) / f64::from(jobs);
    println!(
        "processor time of a training job: {cpu:.2} ms, {:.2} ms over raw fork/exec (supervisors and programs included)",
        cpu - raw_cpu_ms
    );
    tell_commits(commits, jobs);
}

/// One after the other: how soon the next program begins once one is over.
fn one_at_a_time(folder: &Path, database: Option<&str>) {
    let server = Server::start(folder, database, 1);
    let records = ExitRecords::watch(&folder.join("data/attempts"));
    server.create("latency", "local/stamp:1", LATENCY_JOBS, 1);
    server.wait("latency");
    let records = records.end();
    let commits = server.end();
    let mut stamps = stamps(&folder.join("stamps"));
    stamps.sort_unstable();
    let tell = |what: &str, mut gaps: Vec<f64>| {
        gaps.sort_by(f64::total_cmp);
        let (p50, p99, count) = (percentile(&gaps, 0.50), percentile(&gaps, 0.99), gaps.len());
        println!("{what} to the next program's beginning, one at a time: p50 {p50:.1} ms, p99 {p99:.1} ms ({count})");
    };
    tell("exit record", stamps.windows(2).filter_map(|pair| after_record(&records, pair[0], pair[1])).collect());
    tell("a program's last act", stamps.windows(2).map(|pair| ms_between(pair[0].1, pair[1].0)).collect());
    tell_commits(commits, LATENCY_JOBS);
}

fn tell_commits(commits: Option<u64>, jobs: u32) {
    match commits {
        Some(commits) => {
            println!("durable commits a training job: {:.2} (and its exit record)", commits as f64 / f64::from(jobs));
        }
        None => println!("durable commits a training job: this build does not say"),
    }
}

/// When the programs began and ended.
fn stamps(path: &Path) -> Vec<(i64, i64)> {
    let text = std::fs::read_to_string(path).unwrap();
    let stamp = |line: &str| {
        let (begun, ended) = line.split_once(' ').unwrap();
        (begun.parse().unwrap(), ended.parse().unwrap())
    };
    text.lines().map(stamp).collect()
}

/// From the one exit record between two programs to the second's beginning; none where it was not seen in time.
fn after_record(records: &[i64], first: (i64, i64), second: (i64, i64)) -> Option<f64> {
    let seen = records.iter().find(|seen| (first.1..second.0).contains(seen))?;
    Some(ms_between(*seen, second.0))
}

fn ms_between(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e6
}

fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since_epoch.as_nanos()).unwrap()
}

/// Sees exit records come into being: a thread with a watch on each attempt's folder. What it is late for is later in its
/// figures too, so the figure from a program's last act stands beside it as the upper bound.
struct ExitRecords {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<i64>>,
}

impl ExitRecords {
    fn watch(attempts: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        inotify.add_watch(attempts, AddWatchFlags::IN_CREATE).unwrap();
        let (done, attempts) = (Arc::new(AtomicBool::new(false)), attempts.to_owned());
        let over = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                poll(&mut ready, 50_u16).unwrap();
                let at = now_ns();
                for event in inotify.read_events().unwrap_or_default() {
                    let name = event.name.unwrap_or_default();
                    if event.mask.contains(AddWatchFlags::IN_MOVED_TO) && name == "exit.json" {
                        seen.push(at);
                    } else if event.mask.contains(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ISDIR) {
                        // Gone already, perhaps.
                        let _ = inotify.add_watch(&attempts.join(name), AddWatchFlags::IN_MOVED_TO);
                    }
                }
            }
            seen
        });
        Self { done, thread }
    }

    fn end(self) -> Vec<i64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
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

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p).round() as usize]
}

struct Server {
    child: Child,
    endpoint: String,
    ready_ms: u128,
    /// Reads the server's own log, and finds the number of commits in its last line.
    log: JoinHandle<Option<u64>>,
}

impl Server {
    fn start(folder: &Path, database: Option<&str>, parallel: u32) -> Self {
        let config = folder.join("tunesmith.toml");
        let stamps = folder.join("stamps");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nmax_running = {parallel}\n[log]\nlevel = \"info,tunesmith::cli=debug\"\n[process]\nallow_root = true\n\
             [[images]]\nname = \"local/noop:1\"\ncommand = [\"/bin/true\"]\n\
             [[images]]\nname = \"local/stamp:1\"\ncommand = [\"{}\", \"{STAMP}\", \"{}\"]\n",
            std::env::current_exe().unwrap().display(),
            stamps.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command =
            Command::new(std::env::var("BENCH_BINARY").unwrap_or(env!("CARGO_BIN_EXE_tunesmith").to_owned()));
        command.arg("serve").arg("--config").arg(&config).arg("--data-dir").arg(folder.join("data"));
        if let Some(url) = database {
            command.arg("--database-url").arg(url);
        }
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = std::thread::spawn(move || log.map_while(Result::ok).filter_map(|line| commits(&line)).last());
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
        Self { child, endpoint, ready_ms, log }
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

    /// Ends it; how often it committed.
    fn end(mut self) -> Option<u64> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
        self.log.join().unwrap()
    }
}

fn commits(line: &str) -> Option<u64> {
    let number = line.split_once("drained commits=")?.1;
    number.split_whitespace().next()?.parse().ok()
}
