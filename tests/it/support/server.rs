//! A `tunesmith serve` process of its own, on a free loopback port.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long a test waits for something that must happen.
const BOUND: Duration = Duration::from_mins(2);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tunesmith");

/// A running server; killed where a test leaves it running.
pub struct ServerProcess {
    pub url: String,
    child: Child,
}

impl ServerProcess {
    /// Starts a server with a configuration file and a data directory and waits until it listens.
    pub fn start(config: &Path, data_dir: &Path, database_url: Option<&str>) -> Self {
        Self::start_by(command(), config, data_dir, database_url)
    }

    /// The same by a command of the test's own.
    pub fn start_by(mut command: Command, config: &Path, data_dir: &Path, database_url: Option<&str>) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config).arg("--data-dir").arg(data_dir);
        if let Some(url) = database_url {
            command.args(["--database-url", url]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let url = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("tunesmith listens on ")?.to_owned()))
            .expect("the server says where it listens");
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { url, child }
    }

    /// The status of a GET request, and its body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.get(format!("{}{path}", self.url)).call().expect("the server answers");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a text"))
    }

    /// Calls an operation that succeeds.
    pub fn call(&self, operation: &str, input: &Value) -> Value {
        let mut answer = ureq::post(format!("{}/", self.url))
            .header("X-Amz-Target", format!("SageMaker.{operation}"))
            .content_type("application/x-amz-json-1.1")
            .send(input.to_string())
            .expect("the server answers well");
        let text = answer.body_mut().read_to_string().expect("a text");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("a document") }
    }

    /// Looks until a tuning job is over.
    pub fn finish(&self, name: &str) -> Value {
        let mut last = Value::Null;
        until(&format!("{name} is over"), || {
            let input = json!({"HyperParameterTuningJobName": name});
            last = self.call("DescribeHyperParameterTuningJob", &input);
            last["HyperParameterTuningJobStatus"] != "InProgress"
        });
        last
    }

    /// The summaries of a tuning job's training jobs.
    pub fn training_jobs(&self, name: &str) -> Vec<Value> {
        let input = json!({"HyperParameterTuningJobName": name, "MaxResults": 100});
        let listed = self.call("ListTrainingJobsForHyperParameterTuningJob", &input);
        listed["TrainingJobSummaries"].as_array().expect("a list").clone()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("the server is there");
    }

    /// Waits for its end, a bounded time.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The supervisors that run now beneath a data directory.
pub fn supervisors(data_dir: &Path) -> Vec<Pid> {
    supervised(data_dir).into_iter().map(|(pid, _)| pid).collect()
}

/// The same, each with the name of its attempt's folder.
pub fn supervised(data_dir: &Path) -> Vec<(Pid, String)> {
    let processes = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let beneath = |pid: i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        let folder = words.get(2).filter(|_| words.get(1) == Some(&b"supervise".as_slice()))?;
        let folder = Path::new(std::str::from_utf8(folder).ok()?);
        folder.starts_with(data_dir).then_some((Pid::from_raw(pid), folder.file_name()?.to_str()?.to_owned()))
    };
    pids.filter_map(beneath).collect()
}

/// Looks until something holds that must come.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The binary, without the caller's settings.
pub fn command() -> Command {
    command_of(Path::new(BINARY))
}

/// The same for a copy of the binary.
pub fn command_of(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TUNESMITH_")) {
        command.env_remove(name);
    }
    command
}

/// A file of the virtual environment that the test command makes.
pub fn client(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(name);
    assert!(path.is_file(), "{} is missing: scripts/test installs it", path.display());
    path
}
