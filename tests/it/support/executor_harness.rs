//! Executors with the surroundings that their tests need, and ways to wait for what they do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::Exit;
use tunesmith::executor::{AttemptSpec, ChannelSpec, Executor, LogRecord, Observed};
use uuid::Uuid;

/// No wait in these tests is longer; reaching it fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One executor under test.
pub(crate) trait ExecutorHarness {
    /// With the settings that tests share.
    async fn fresh() -> Self;
    /// The executor.
    fn executor(&self) -> &dyn Executor;
    /// Forgets the executor and opens it again, as a restarted server does.
    async fn restart(&mut self);
    /// A folder of the test's own, for channels and checkpoints.
    fn scratch(&self) -> &Path;
    /// Makes an empty file of a name in the running attempt's `$SM_OUTPUT_DIR`.
    async fn tell(&self, id: AttemptId, name: &str);
}

/// An attempt that runs a shell script.
pub(crate) fn script(text: &str) -> AttemptSpec {
    AttemptSpec {
        id: AttemptId { training_job: Uuid::new_v4(), number: 1 },
        training_job_name: "tune-001-0badcafe".into(),
        training_job_arn: "arn:aws:sagemaker:us-east-1:000000000000:training-job/tune-001-0badcafe".into(),
        image: "test/sh:1".into(),
        hyperparameters: BTreeMap::from([("script".into(), text.into())]),
        environment: BTreeMap::new(),
        channels: Vec::new(),
        checkpoints: None,
        instance_type: Some("ml.m5.large".into()),
        hosts: 1,
        network_isolation: false,
        volume_bytes: None,
        max_runtime_ms: 60_000,
        stop_grace_ms: 30_000,
    }
}

/// A channel over a new folder with one file.
pub(crate) fn channel(scratch: &Path, name: &str, text: &str) -> ChannelSpec {
    let source = scratch.join(format!("channel-{}", Uuid::new_v4()));
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("data.csv"), text).unwrap();
    let config = BTreeMap::from([("TrainingInputMode".into(), "File".into())]);
    ChannelSpec { name: name.into(), source, sharded: false, config, pipe: None }
}

/// Waits until the attempt is over.
pub(crate) async fn over(executor: &dyn Executor, id: AttemptId) -> Exit {
    let until = Instant::now() + PATIENCE;
    loop {
        match executor.observe(id).await.unwrap() {
            Observed::Exited(exit) => return exit,
            Observed::Running { .. } if Instant::now() < until => executor.changed(id, Duration::from_secs(1)).await,
            other => unreachable!("the attempt is not over but {other:?}"),
        }
    }
}

/// Waits until nothing of the attempt runs any more, and what is then observed.
pub(crate) async fn no_longer_running(executor: &dyn Executor, id: AttemptId) -> Observed {
    let until = Instant::now() + PATIENCE;
    loop {
        match executor.observe(id).await.unwrap() {
            Observed::Running { .. } if Instant::now() < until => executor.changed(id, Duration::from_millis(5)).await,
            other => return other,
        }
    }
}

/// Waits for a line of output.
pub(crate) async fn line(executor: &dyn Executor, id: AttemptId, wanted: &str) {
    let until = Instant::now() + PATIENCE;
    let mut offset = 0;
    while Instant::now() < until {
        let chunk = executor.logs(id, offset, 1 << 20).await.unwrap();
        if chunk.records.iter().any(|record| record.line == wanted.as_bytes()) {
            return;
        }
        if chunk.next_offset == offset {
            executor.changed(id, Duration::from_secs(1)).await;
        }
        offset = chunk.next_offset;
    }
    let last = log(executor, id, 0).await.pop().map(|record| String::from_utf8_lossy(&record.line).into_owned());
    unreachable!("no line {wanted:?} appeared; the last is {last:?}");
}

/// The log from an offset on.
pub(crate) async fn log(executor: &dyn Executor, id: AttemptId, mut offset: u64) -> Vec<LogRecord> {
    let mut records = Vec::new();
    loop {
        let chunk = executor.logs(id, offset, 100_000).await.unwrap();
        if chunk.next_offset == offset {
            return records;
        }
        offset = chunk.next_offset;
        records.extend(chunk.records);
    }
}

/// The log as texts, without the service's remarks.
pub(crate) async fn lines(executor: &dyn Executor, id: AttemptId) -> Vec<String> {
    let records = log(executor, id, 0).await;
    let output = records.iter().filter(|record| record.stream != tunesmith::executor::Stream::Service);
    output.map(|record| String::from_utf8_lossy(&record.line).into_owned()).collect()
}

/// The process executor.
pub(crate) mod process {
    use std::path::Path;

    use tempfile::TempDir;
    use tunesmith::domain::names::AttemptId;
    use tunesmith::executor::Executor;
    use tunesmith::executor::images::{Image, Images};
    use tunesmith::executor::process::{ProcessExecutor, ProcessSettings};

    use super::ExecutorHarness;

    /// A process executor on a data directory of its own.
    pub(crate) struct Harness {
        pub(crate) executor: ProcessExecutor,
        pub(crate) settings: ProcessSettings,
        scratch: TempDir,
    }

    impl Harness {
        /// With the settings that tests share.
        pub(crate) fn start() -> Self {
            Self::with(|_| {})
        }

        /// With settings changed.
        pub(crate) fn with(change: impl FnOnce(&mut ProcessSettings)) -> Self {
            let scratch = TempDir::new().unwrap();
            let command = ["/bin/sh", "-c", "eval \"$SM_HP_SCRIPT\"", "job"];
            let images = vec![Image::command("test/sh:1", command), Image::command("test/true:1", ["true"])];
            let data_dir = scratch.path().join("data");
            let binary = env!("CARGO_BIN_EXE_tunesmith").into();
            let mut settings = ProcessSettings::new(data_dir, binary, Images::new(images).unwrap());
            settings.allow_root = true;
            change(&mut settings);
            Self { executor: ProcessExecutor::open(settings.clone()).unwrap(), settings, scratch }
        }
    }

    impl ExecutorHarness for Harness {
        async fn fresh() -> Self {
            Self::start()
        }

        fn executor(&self) -> &dyn Executor {
            &self.executor
        }

        async fn restart(&mut self) {
            self.executor = ProcessExecutor::open(self.settings.clone()).unwrap();
        }

        fn scratch(&self) -> &Path {
            self.scratch.path()
        }

        async fn tell(&self, id: AttemptId, name: &str) {
            let output = self.settings.data_dir.join("attempts").join(id.to_string()).join("ml/output");
            std::fs::write(output.join(name), "").unwrap();
        }
    }

    /// The same without namespaces, as where the kernel forbids them.
    pub(crate) struct Plain(pub(crate) Harness);

    impl Plain {
        pub(crate) fn start() -> Self {
            Self(Harness::with(|settings| settings.isolate = false))
        }
    }

    impl ExecutorHarness for Plain {
        async fn fresh() -> Self {
            Self::start()
        }

        fn executor(&self) -> &dyn Executor {
            self.0.executor()
        }

        async fn restart(&mut self) {
            self.0.restart().await;
        }

        fn scratch(&self) -> &Path {
            self.0.scratch()
        }

        async fn tell(&self, id: AttemptId, name: &str) {
            self.0.tell(id, name).await;
        }
    }

    impl Drop for Harness {
        fn drop(&mut self) {
            // What a test left running ends before its folder goes.
            for entry in std::fs::read_dir(self.settings.data_dir.join("attempts")).into_iter().flatten().flatten() {
                let ended = || entry.path().join("exit.json").exists() || !entry.path().join("started").exists();
                let control = std::fs::File::options().read(true).write(true).open(entry.path().join("control"));
                let Ok(mut control) = control else { continue };
                let begun = std::time::Instant::now();
                while !ended() && begun.elapsed() < std::time::Duration::from_secs(5) {
                    let _ = std::io::Write::write_all(&mut control, b"k");
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
    }
}

/// The process executor where the kernel forbids namespaces.
pub(crate) mod plain_process {
    pub(crate) use super::process::Plain as Harness;
}

/// The Docker executor.
#[cfg(feature = "docker")]
pub(crate) use super::docker;

/// The Docker executor with an image for the helpers that stream.
#[cfg(feature = "docker")]
pub(crate) mod docker_streaming {
    pub(crate) use super::super::docker::Streaming as Harness;
}
