//! One attempt, from its row to its report: stage, launch, follow the log, collect what it left.
//!
//! Invariant: every step may be done again after a crash. The log is read from its beginning, so that the last value of
//! each metric is exact whatever was read before; points carry their log offset, so that storing them again changes
//! nothing. What the end means for the training job is not decided here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::status::{ObjectiveStatus, TrainingStatus};
use crate::domain::time::Timestamp;
use crate::executor::{ExecutorError, LogRecord, Observed, Stream, log_format};
use crate::metrics::{Match, Scraper};
use crate::objects::ObjectsError;
use crate::scheduler::report::Report;
use crate::scheduler::spec::{Prepared, ReadDefinition, attempt_spec};
use crate::scheduler::{Inner, SchedulerError};
use crate::store::rows::{Attempt, FinalMetric, LogSegment, MetricPoint, ReadPosition, TrainingJob};
use crate::store::{StoreError, WriteClass, definitions, metrics, training_jobs, tuning_jobs};

/// How long to wait for a change before looking anyway.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often points of a running attempt are stored.
const STORE_EVERY: Duration = Duration::from_millis(250);

/// How long to wait after an error of the database or the executor.
const BACKOFF: Duration = Duration::from_millis(500);

/// How much of a log is read at a time.
const READ_BYTES: usize = 1 << 20;

/// Follows one attempt.
#[derive(Debug)]
pub struct Drive {
    inner: Arc<Inner>,
    attempt: Attempt,
    stop: watch::Receiver<bool>,
}

/// What is read of an attempt before it is driven.
#[derive(Debug)]
struct Subject {
    job: TrainingJob,
    definition: Arc<Prepared>,
    stored: ReadPosition,
}

/// What was read from the log so far.
#[derive(Debug)]
struct Reading {
    scraper: Scraper,
    matches: Vec<Match>,
    position: ReadPosition,
    /// Up to here points were stored before.
    stored: u64,
    unstored: Vec<MetricPoint>,
    /// The last match of each definition, finite or not.
    last: Vec<Option<(f64, Timestamp)>>,
    stored_at: Instant,
    began_stored: bool,
}

impl Drive {
    /// A drive of an inserted attempt; `stop` turns true when the rows give it up.
    pub fn new(inner: &Arc<Inner>, attempt: Attempt, stop: watch::Receiver<bool>) -> Self {
        Self { inner: Arc::clone(inner), attempt, stop }
    }

    /// Drives the attempt to its end. None where its training job is gone.
    pub async fn run(mut self) -> Option<Report> {
        let subject = self.subject().await?;
        let tuning_job = subject.job.tuning_job_id?;
        let prepared_at = self.inner.parts.clock.now();
        let mut reading = Reading::new(&subject);
        let mut report = Report {
            attempt: self.attempt.id,
            tuning_job,
            exit: start_failed(prepared_at, String::new()),
            prepared_at: Some(prepared_at),
            uploading_at: None,
            model_artifacts: None,
            points: Vec::new(),
            position: ReadPosition::default(),
            segments: Vec::new(),
            objective: (ObjectiveStatus::Failed, None),
            final_metrics: Vec::new(),
        };
        if let Err(exit) = self.start(&subject).await {
            report.exit = exit;
            return Some(report);
        }
        report.exit = self.follow(&subject, &mut reading, prepared_at).await;
        self.collect(&subject, &mut reading, &mut report).await;
        Some(report)
    }

    /// Reads the rows, as often as it takes.
    async fn subject(&self) -> Option<Subject> {
        loop {
            match read_subject(&self.inner, &self.attempt).await {
                Ok(subject) => return subject,
                Err(error) => self.complain("the rows of an attempt could not be read", &error).await,
            }
        }
    }

    async fn complain(&self, what: &str, error: &(dyn std::error::Error + Sync)) {
        tracing::warn!(attempt = %self.attempt.id, error = crate::telemetry::chain(error), "{what}");
        tokio::time::sleep(BACKOFF).await;
    }

    /// Starts the attempt unless it was started before. An error is the attempt's end.
    async fn start(&self, subject: &Subject) -> Result<(), Exit> {
        let executor = &self.inner.parts.executor;
        let now = || self.inner.parts.clock.now();
        loop {
            match executor.observe(self.attempt.id).await {
                Ok(Observed::Absent) => break,
                Ok(_) => return Ok(()),
                Err(error) => self.complain("an attempt could not be observed", &error).await,
            }
        }
        if *self.stop.borrow() {
            return Err(ended(now(), ExitCause::Stopped));
        }
        let spec = attempt_spec(&self.inner.parts.objects, &subject.job, &self.attempt, &subject.definition.read).await;
        let spec = spec.map_err(|error| match error {
            ObjectsError::Io { .. } => infrastructure(now(), crate::telemetry::chain(&error)),
            client => start_failed(now(), client.to_string()),
        })?;
        executor.launch(&spec).await.map_err(|error| match error {
            ExecutorError::Client(message) => start_failed(now(), message),
            infra @ ExecutorError::Infrastructure { .. } => infrastructure(now(), crate::telemetry::chain(&infra)),
        })
    }

    /// Follows the log until the attempt is over.
    async fn follow(&mut self, subject: &Subject, reading: &mut Reading, prepared_at: Timestamp) -> Exit {
        let executor = Arc::clone(&self.inner.parts.executor);
        let mut stop_sent = false;
        loop {
            if *self.stop.borrow() && !stop_sent {
                match executor.stop(self.attempt.id).await {
                    Ok(()) => stop_sent = true,
                    Err(error) => self.complain("an attempt could not be asked to stop", &error).await,
                }
            }
            // Observed before the log is read: what an ended attempt wrote is all there to read.
            let observed = executor.observe(self.attempt.id).await;
            if let Err(error) = self.read_log(reading).await {
                self.complain("a log could not be read", &error).await;
                continue;
            }
            match observed {
                Ok(Observed::Exited(exit)) => return exit,
                Ok(Observed::Lost) => {
                    return infrastructure(self.now(), "the attempt's supervisor was lost".to_owned());
                }
                Ok(Observed::Absent) => {
                    return infrastructure(self.now(), "the executor holds nothing of the attempt".to_owned());
                }
                Ok(Observed::Running { started_at }) => self.store(subject, reading, prepared_at, started_at).await,
                Err(error) => self.complain("an attempt could not be observed", &error).await,
            }
            let patience = if reading.unstored.is_empty() && reading.began_stored { LOOK_EVERY } else { STORE_EVERY };
            tokio::select! {
                () = executor.changed(self.attempt.id, patience) => {}
                _ = self.stop.changed(), if !stop_sent => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.inner.parts.clock.now()
    }

    /// Scrapes what is new in the log.
    async fn read_log(&self, reading: &mut Reading) -> Result<(), ExecutorError> {
        loop {
            let chunk = self.inner.parts.executor.logs(self.attempt.id, reading.position.offset, READ_BYTES).await?;
            if chunk.records.is_empty() {
                return Ok(());
            }
            for record in &chunk.records {
                reading.scrape(record);
            }
            reading.position.offset = chunk.next_offset;
        }
    }

    /// Stores points and the beginning of a running attempt, now and then. What fails is kept for the next time.
    async fn store(
        &self,
        subject: &Subject,
        reading: &mut Reading,
        prepared_at: Timestamp,
        started_at: Option<Timestamp>,
    ) {
        let began = !reading.began_stored && started_at.is_some();
        let due = reading.stored_at.elapsed() >= STORE_EVERY;
        if !due || (!began && reading.unstored.is_empty()) {
            return;
        }
        let (attempt, points, position) = (self.attempt.id, reading.unstored.clone(), reading.position);
        let (tuning_job, now) = (subject.job.tuning_job_id, self.now());
        let stored = self
            .inner
            .parts
            .db
            .write(WriteClass::Metrics, move |tx| {
                let points = points.clone();
                Box::pin(async move {
                    if began {
                        if let Some(id) = tuning_job {
                            tuning_jobs::lock(tx, id).await?;
                        }
                        let job = training_jobs::lock(tx, attempt.training_job).await?;
                        if let Some(mut job) = job.filter(|job| !job.status.is_terminal()) {
                            job.began(Some(prepared_at), started_at);
                            job.modified_at = now;
                            training_jobs::update(tx, &job).await?;
                        }
                    }
                    metrics::append(tx, attempt, 0, &points, position).await
                })
            })
            .await;
        match stored {
            Ok(()) => {
                reading.unstored.clear();
                reading.began_stored |= began;
                reading.stored_at = Instant::now();
            }
            Err(error) => {
                let error: StoreError = error;
                self.complain("metric points were not stored", &error).await;
            }
        }
    }

    /// Fills a report in from what the attempt left: artifacts, log, metrics.
    async fn collect(&self, subject: &Subject, reading: &mut Reading, report: &mut Report) {
        let definition = &subject.definition.read;
        report.final_metrics = reading.final_metrics(definition);
        report.objective = reading.objective(definition);
        report.points = std::mem::take(&mut reading.unstored);
        report.exit.remark = reading.remark();
        let began = report.exit.started_at.is_some();
        if began && !matches!(report.exit.cause, ExitCause::Infrastructure { .. }) {
            report.uploading_at = Some(self.now());
            if let Err(error) = self.upload(subject, report).await {
                let text = crate::telemetry::chain(error.as_ref());
                report.exit.cause = ExitCause::Infrastructure { message: format!("artifacts were not stored: {text}") };
            }
        }
        if let Err(error) = self.keep_log(reading, report).await {
            tracing::warn!(attempt = %self.attempt.id, error = crate::telemetry::chain(error.as_ref()), "a log was not kept");
        }
        report.position = reading.position;
    }

    /// Packs and stores the model (unless the program failed) and the output folder.
    async fn upload(&self, subject: &Subject, report: &mut Report) -> Result<(), Failure> {
        let objects = &self.inner.parts.objects;
        let outputs = self.inner.parts.executor.outputs(self.attempt.id).await?;
        let uri = subject.definition.read.output_uri(&subject.job.name);
        let packs = subject.definition.read.packs_artifacts();
        let failed =
            !matches!(report.exit.cause, ExitCause::Exited { code: 0 } | ExitCause::Stopped | ExitCause::Deadline);
        if !failed {
            let model = if packs { format!("{uri}/model.tar.gz") } else { format!("{uri}/model/") };
            if packs {
                objects.put_tar_gz(&outputs.model, &model, CancellationToken::new()).await?;
            } else {
                objects.put_tree(&outputs.model, &model, CancellationToken::new()).await?;
            }
            report.model_artifacts = Some(model);
        }
        let wrote_data = tokio::fs::read_dir(&outputs.data).await?.next_entry().await?.is_some();
        if wrote_data && packs {
            objects.put_tar_gz(&outputs.data, &format!("{uri}/output.tar.gz"), CancellationToken::new()).await?;
        } else if wrote_data {
            objects.put_tree(&outputs.data, &format!("{uri}/output/"), CancellationToken::new()).await?;
        }
        Ok(())
    }

    /// Moves the log's files to the object store, with the remark as its last record.
    async fn keep_log(&self, reading: &mut Reading, report: &mut Report) -> Result<(), Failure> {
        let objects = &self.inner.parts.objects;
        for file in self.inner.parts.executor.log_files(self.attempt.id).await? {
            let object_key = objects.keep_log(self.attempt.id, file.first_offset, &file.path).await?;
            report.segments.push(LogSegment {
                first_offset: file.first_offset,
                first_time: file.first_time,
                bytes: file.bytes,
                object_key,
            });
        }
        if let Some(remark) = &report.exit.remark {
            let end = report.segments.last().map_or(0, |s| s.first_offset + s.bytes);
            let record = LogRecord {
                offset: end,
                time: report.exit.ended_at,
                stream: Stream::Service,
                line: remark.clone().into(),
            };
            let mut bytes = Vec::new();
            log_format::write(&record, &mut bytes);
            let object_key = objects.keep_log_bytes(self.attempt.id, end, &bytes).await?;
            let length = bytes.len() as u64;
            report.segments.push(LogSegment { first_offset: end, first_time: record.time, bytes: length, object_key });
            reading.position.offset = reading.position.offset.max(end + length);
        }
        Ok(())
    }
}

/// Anything that can go wrong while collecting.
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Reading {
    fn new(subject: &Subject) -> Self {
        Self {
            scraper: subject.definition.scraper.fork(),
            matches: Vec::new(),
            position: ReadPosition::default(),
            stored: subject.stored.offset,
            unstored: Vec::new(),
            last: vec![None; subject.definition.read.metrics.len()],
            stored_at: Instant::now(),
            began_stored: subject.job.status != TrainingStatus::InProgress || subject.job.started_at.is_some(),
        }
    }

    fn scrape(&mut self, record: &LogRecord) {
        if record.stream == Stream::Service {
            return;
        }
        self.matches.clear();
        self.scraper.scrape(&record.line, &mut self.matches);
        for found in &self.matches {
            self.last[found.definition] = Some((found.value, record.time));
            if !found.value.is_finite() {
                self.position.non_finite += 1;
            } else if record.offset >= self.stored {
                self.unstored.push(MetricPoint {
                    // A match takes at least a byte of its line, so that this is unique in the log.
                    offset: record.offset + u64::from(found.nth),
                    definition: u32::try_from(found.definition).unwrap_or(u32::MAX),
                    time: record.time,
                    value: found.value,
                });
            }
        }
    }

    fn final_metrics(&self, definition: &ReadDefinition) -> Vec<FinalMetric> {
        let named = definition.metrics.iter().zip(&self.last);
        named
            .filter_map(|(metric, last)| {
                let (value, time) = (*last)?;
                value.is_finite().then(|| FinalMetric { name: metric.name.clone(), value, time })
            })
            .collect()
    }

    fn objective(&self, definition: &ReadDefinition) -> (ObjectiveStatus, Option<f64>) {
        match definition.objective_index().and_then(|at| self.last[at]) {
            Some((value, _)) if value.is_finite() => (ObjectiveStatus::Succeeded, Some(value)),
            _ => (ObjectiveStatus::Failed, None),
        }
    }

    /// What to tell of definitions that never matched, and of values that are no numbers.
    fn remark(&self) -> Option<String> {
        let mut parts: Vec<String> = self.scraper.unmatched().map(|metric| metric.to_string()).collect();
        if self.position.non_finite > 0 {
            parts.push(format!("{} metric values were infinite or not a number", self.position.non_finite));
        }
        (!parts.is_empty()).then(|| parts.join(". "))
    }
}

async fn read_subject(inner: &Inner, attempt: &Attempt) -> Result<Option<Subject>, SchedulerError> {
    let id = attempt.id;
    let rows = inner
        .parts
        .db
        .read(move |tx| {
            Box::pin(async move {
                let Some(job) = training_jobs::get(tx, id.training_job).await? else {
                    return Ok::<_, StoreError>(None);
                };
                let definition = definitions::get(tx, job.definition_id).await?;
                let stored = metrics::position(tx, id, 0).await?;
                Ok(Some((job, definition, stored)))
            })
        })
        .await?;
    let Some((job, Some(definition), stored)) = rows else { return Ok(None) };
    let definition = inner.prepared(&definition)?;
    Ok(Some(Subject { job, definition, stored }))
}

/// The report of an attempt that was given up before any executor started it. None where its training job is gone or
/// could not be read now.
pub async fn stopped_before_start(inner: &Arc<Inner>, attempt: &Attempt) -> Option<Report> {
    let subject = read_subject(inner, attempt).await.ok()??;
    Some(Report {
        attempt: attempt.id,
        tuning_job: subject.job.tuning_job_id?,
        exit: ended(inner.parts.clock.now(), ExitCause::Stopped),
        prepared_at: None,
        uploading_at: None,
        model_artifacts: None,
        points: Vec::new(),
        position: ReadPosition::default(),
        segments: Vec::new(),
        objective: (ObjectiveStatus::Failed, None),
        final_metrics: Vec::new(),
    })
}

fn ended(at: Timestamp, cause: ExitCause) -> Exit {
    Exit { started_at: None, ended_at: at, cause, failure: None, stderr_tail: String::new(), remark: None }
}

fn start_failed(at: Timestamp, message: String) -> Exit {
    ended(at, ExitCause::StartFailed { message })
}

fn infrastructure(at: Timestamp, message: String) -> Exit {
    ended(at, ExitCause::Infrastructure { message })
}
