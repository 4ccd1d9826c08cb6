//! One attempt, from its row to its report: stage, launch, follow the log, and hand over what it left.
//!
//! Invariant: every step may be done again after a crash. The log is read from its beginning, so that the last value of
//! each metric is exact whatever was read before; points carry their log offset, so that storing them again changes
//! nothing. What the end means for the training job is not decided here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::domain::names::AttemptId;
use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::status::{SecondaryStatus, TrainingStatus};
use crate::domain::time::Timestamp;
use crate::executor::{AttemptSpec, ExecutorError, Observed};
use crate::scheduler::curves::{Curve, curve};
use crate::scheduler::reading::Reading;
use crate::scheduler::report::Report;
use crate::scheduler::spec::{Prepared, attempt_spec};
use crate::scheduler::{Inner, SchedulerError};
use crate::store::rows::{Attempt, MetricPoint, ReadPosition, TrainingJob};
use crate::store::{StoreError, Tx, WriteClass, attempts, metrics, training_jobs, tuning_jobs};

/// How long to wait for a change before looking anyway.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often points of a running attempt are stored.
const STORE_EVERY: Duration = Duration::from_millis(250);

/// How long following an attempt waits for its points to be stored; they are kept for the next time.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait after an error of the database or the executor.
const BACKOFF: Duration = Duration::from_millis(500);

/// A step that takes longer than this is shown in the training job's secondary status.
const SHOW_AFTER: Duration = Duration::from_millis(200);

/// Failures to read a log after which an ended attempt is reported without the rest of it.
const LOG_TRIES: u32 = 10;

/// How much of a log is read at a time.
const READ_BYTES: usize = 64 << 10;

/// Follows one attempt.
#[derive(Debug)]
pub struct Drive {
    pub(super) inner: Arc<Inner>,
    pub(super) attempt: Attempt,
    /// Its training job's row, where it was read with others; taken by the first that asks.
    job: Option<TrainingJob>,
    pub(super) stop: watch::Receiver<bool>,
}

/// What is read of an attempt before it is driven.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) job: TrainingJob,
    pub(super) tuning_job: Uuid,
    pub(super) definition: Arc<Prepared>,
    /// How long earlier attempts ran, together.
    used_ms: i64,
    /// Whether the rows show that this attempt was started, whatever its executor still knows of it.
    known_started: bool,
}

impl Subject {
    /// The objective's place among the metric definitions, where its values decide whether the training job goes on.
    fn followed_metric(&self) -> Option<u32> {
        followed_metric(&self.definition)
    }

    /// What earlier attempts and waiting leave of the training job's time at a moment, where it is not over.
    fn remaining_ms(&self, now: Timestamp) -> Option<i64> {
        Some(self.definition.read.remaining_ms(&self.job, self.used_ms, now)).filter(|left| *left > 0)
    }
}

fn followed_metric(definition: &Prepared) -> Option<u32> {
    let at = definition.read.objective_index().filter(|_| definition.stops_early)?;
    u32::try_from(at).ok()
}

/// The rows that an attempt is driven from.
#[derive(Debug)]
struct Rows {
    job: TrainingJob,
    definition: Result<Arc<Prepared>, SchedulerError>,
    stored: ReadPosition,
    /// How long earlier attempts ran, together.
    used_ms: i64,
}

impl Drive {
    /// A drive of an inserted attempt of a training job, if its row is at hand; `stop` turns true when the rows give
    /// the attempt up.
    pub fn new(inner: &Arc<Inner>, attempt: Attempt, job: Option<TrainingJob>, stop: watch::Receiver<bool>) -> Self {
        Self { inner: Arc::clone(inner), attempt, job, stop }
    }

    /// Drives the attempt to its end. None where its training job is gone.
    pub async fn run(mut self) -> Option<Report> {
        let Rows { job, definition, stored, used_ms } = self.rows().await?;
        let tuning_job = job.tuning_job_id?;
        let prepared_at = self.now();
        let mut report = Report::new(self.attempt.id, tuning_job, Exit::bare(prepared_at, ExitCause::Stopped));
        report.prepared_at = Some(prepared_at);
        let definition = match definition {
            Ok(definition) => definition,
            Err(error) => {
                report.exit = infrastructure(prepared_at, crate::telemetry::chain(&error));
                return Some(report);
            }
        };
        // Of this attempt: the start of an earlier one is in the row too.
        let began_stored = job.status != TrainingStatus::InProgress || job.secondary == SecondaryStatus::Training;
        let mut reading = Reading::new(&definition, stored, began_stored);
        let number = self.attempt.id.number;
        // `Training` in the row is the latest attempt's.
        let shown = job.attempts == number && job.secondary == SecondaryStatus::Training;
        let began = job.started_at.is_some() && number == 1 || shown;
        let known_started = began || stored != ReadPosition::default();
        let subject = Subject { job, tuning_job, definition, used_ms, known_started };
        self.begin_curve(&subject, &mut reading).await;
        if let Err(exit) = self.start(&subject).await {
            report.exit = exit;
        } else {
            let saving = self.saver(&subject).map(|saver| self.save_checkpoints_meanwhile(saver));
            report.exit = self.follow(&subject, &mut reading, prepared_at).await;
            if let Some(saving) = saving {
                let saver = saving.end().await;
                self.save_checkpoints(saver, &mut report).await;
            }
            self.collect(&subject, &mut reading, &mut report).await;
        }
        self.end_curve(&subject, &mut report).await;
        Some(report)
    }

    /// Where training jobs may be stopped early: lets the curve go on from the attempts before.
    async fn begin_curve(&self, subject: &Subject, reading: &mut Reading) {
        let Some(objective) = subject.followed_metric() else { return };
        let attempt = self.attempt.id;
        let (base, earlier) = if attempt.number > 1 { self.earlier_curve(objective).await } else { (0, Curve::new()) };
        reading.follow(objective as usize, base);
        self.inner.curves.begin(attempt.training_job, earlier);
    }

    /// The number that this attempt's first value has, and the curve before it; read as often as it takes.
    async fn earlier_curve(&self, objective: u32) -> (u64, Curve) {
        let attempt = self.attempt.id;
        loop {
            let reading = self.inner.parts.db.read_for_scheduling(move |tx| {
                Box::pin(async move {
                    let base = metrics::base(tx, attempt, objective).await?;
                    Ok::<_, StoreError>((base, metrics::curve(tx, attempt.training_job, objective).await?))
                })
            });
            match reading.await {
                Ok((base, points)) => {
                    let before = points.iter().map(|point| (point.nth, point.value)).filter(|(nth, _)| *nth < base);
                    return (base, curve(before));
                }
                Err(error) => self.complain("the curve of earlier attempts could not be read", &error).await,
            }
        }
    }

    /// Puts the rest of the points into the rows and the curve into the report as the rows now have it: the study that
    /// is told of the end then equals the one that a restarted server reads.
    async fn end_curve(&self, subject: &Subject, report: &mut Report) {
        let Some(objective) = subject.followed_metric() else { return };
        let (attempt, position) = (self.attempt.id, report.position);
        let points = Arc::new(std::mem::take(&mut report.points));
        loop {
            let points = Arc::clone(&points);
            let writing = self.inner.parts.db.write(WriteClass::Scheduling, move |tx| {
                let points = Arc::clone(&points);
                Box::pin(async move {
                    if position != ReadPosition::default() {
                        metrics::append(tx, attempt, 0, &points, position).await?;
                    }
                    metrics::curve(tx, attempt.training_job, objective).await
                })
            });
            match writing.await {
                Ok(points) => {
                    report.curve = curve(points.iter().map(|point| (point.nth, point.value)));
                    break;
                }
                Err(error) => {
                    let error: StoreError = error;
                    self.complain("the end of a curve was not stored", &error).await;
                }
            }
        }
        self.inner.curves.end(attempt.training_job);
    }

    /// Reads the rows, as often as it takes.
    async fn rows(&mut self) -> Option<Rows> {
        loop {
            let job = self.job.take();
            match read_rows(&self.inner, &self.attempt, job).await {
                Ok(rows) => return rows,
                Err(error) => self.complain("the rows of an attempt could not be read", &error).await,
            }
        }
    }

    pub(super) async fn complain(&self, what: &str, error: &(dyn std::error::Error + Send + Sync + 'static)) {
        tracing::warn!(attempt = %self.attempt.id, error = crate::telemetry::chain(error), "{what}");
        tokio::time::sleep(BACKOFF).await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.parts.clock.now()
    }

    /// When this attempt began, as far as the rows know.
    fn began_at(&self, subject: &Subject) -> Option<Timestamp> {
        subject.job.started_at.filter(|_| self.attempt.id.number == 1)
    }

    /// Starts the attempt unless it was started before. An error is the attempt's end.
    async fn start(&self, subject: &Subject) -> Result<(), Exit> {
        let executor = &self.inner.parts.executor;
        loop {
            match executor.observe(self.attempt.id).await {
                // A power failure may take all that the executor had of it. At most one start: it is not started again.
                Ok(Observed::Absent) if subject.known_started => {
                    let lost = "the attempt had begun, and its executor holds nothing of it any more".to_owned();
                    return Err(Exit { started_at: self.began_at(subject), ..infrastructure(self.now(), lost) });
                }
                Ok(Observed::Absent) => break,
                Ok(_) => return Ok(()),
                Err(error) => self.complain("an attempt could not be observed", &error).await,
            }
        }
        let spec = tokio::select! {
            biased;
            // What was staged by then is released with the attempt.
            () = self.is_asked_to_stop() => Err(Exit::bare(self.now(), ExitCause::Stopped)),
            staged = self.stage(subject) => staged,
        }?;
        self.launch(&spec).await.map_err(|error| match error {
            ExecutorError::Client(message) => start_failed(self.now(), message),
            infra @ ExecutorError::Infrastructure { .. } => infrastructure(self.now(), crate::telemetry::chain(&infra)),
        })
    }

    /// Has the executor start the attempt; one that is asked to stop meanwhile, it may give up.
    async fn launch(&self, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        let executor = &self.inner.parts.executor;
        let mut launching = executor.launch(spec);
        tokio::select! {
            biased;
            launched = &mut launching => return launched,
            () = self.is_asked_to_stop() => {}
        }
        if let Err(error) = executor.stop(spec.id).await {
            self.complain("an attempt could not be asked to stop", &error).await;
        }
        launching.await
    }

    /// Ends once the attempt is asked to stop.
    pub(super) async fn is_asked_to_stop(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the attempt is to be launched with, its channels where they are to be read.
    async fn stage(&self, subject: &Subject) -> Result<AttemptSpec, Exit> {
        let too_late = || Exit::bare(self.now(), ExitCause::Deadline);
        let remaining_ms = subject.remaining_ms(self.now()).ok_or_else(too_late)?;
        let (objects, definition) = (&self.inner.parts.objects, &subject.definition.read);
        let staging = attempt_spec(objects, &subject.job, &self.attempt, definition, remaining_ms);
        let now = self.now();
        let spec = self.showing(subject, move |job| job.began(Some(now), None), staging).await;
        let mut spec = spec.map_err(|error| {
            let told = crate::telemetry::chain(&error);
            if error.is_the_jobs_own() { start_failed(self.now(), told) } else { infrastructure(self.now(), told) }
        })?;
        // Staging took its time, too.
        spec.max_runtime_ms = subject.remaining_ms(self.now()).ok_or_else(too_late)?;
        Ok(spec)
    }

    /// Waits for a step, and shows it in the training job's row where it takes its time.
    pub(super) async fn showing<T>(
        &self,
        subject: &Subject,
        show: impl Fn(&mut TrainingJob) + Clone + Send + Sync + 'static,
        step: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(step);
        if let Ok(done) = tokio::time::timeout(SHOW_AFTER, &mut step).await {
            return done;
        }
        let (id, tuning_job, now) = (self.attempt.id.training_job, subject.tuning_job, self.now());
        let shown = self.inner.parts.db.write(WriteClass::Metrics, move |tx| {
            let show = show.clone();
            Box::pin(async move {
                tuning_jobs::lock(tx, tuning_job).await?;
                let job = training_jobs::lock(tx, id).await?;
                if let Some(mut job) = job.filter(|job| job.status == TrainingStatus::InProgress) {
                    show(&mut job);
                    job.modified_at = now;
                    training_jobs::update(tx, &[&job]).await?;
                }
                Ok::<_, StoreError>(())
            })
        });
        // Only what is shown depends on it.
        let _ = tokio::time::timeout(STORE_PATIENCE, shown).await;
        step.await
    }

    /// Follows the log until the attempt is over.
    async fn follow(&mut self, subject: &Subject, reading: &mut Reading, prepared_at: Timestamp) -> Exit {
        let executor = Arc::clone(&self.inner.parts.executor);
        let (mut stop_sent, mut unreadable) = (false, 0);
        let mut seen_started_at = self.began_at(subject);
        loop {
            if *self.stop.borrow() && !stop_sent {
                match executor.stop(self.attempt.id).await {
                    Ok(()) => stop_sent = true,
                    Err(error) => self.complain("an attempt could not be asked to stop", &error).await,
                }
            }
            // Observed before the log is read: what an ended attempt wrote is all there to read.
            let observed = executor.observe(self.attempt.id).await;
            let read_all = match self.read_log(reading).await {
                Ok(read_all) => {
                    unreadable = 0;
                    read_all
                }
                Err(error) => {
                    self.complain("a log could not be read", &error).await;
                    unreadable += 1;
                    unreadable >= LOG_TRIES
                }
            };
            let news = reading.news();
            // What has ended needs no verdict.
            if !news.is_empty() && matches!(observed, Ok(Observed::Running { .. })) {
                self.inner.tell_progress(subject.tuning_job, subject.job.id, news);
            }
            match observed {
                Ok(Observed::Exited(exit)) if read_all => return exit,
                Ok(Observed::Lost) if read_all => {
                    let lost = infrastructure(self.now(), "the attempt's supervisor was lost".to_owned());
                    return Exit { started_at: seen_started_at, ..lost };
                }
                Ok(Observed::Absent) => {
                    return infrastructure(self.now(), "the executor holds nothing of the attempt".to_owned());
                }
                Ok(Observed::Running { started_at }) => {
                    seen_started_at = started_at.or(seen_started_at);
                    self.store(subject, reading, prepared_at, started_at).await;
                }
                Ok(_) => self.store(subject, reading, prepared_at, None).await,
                Err(error) => self.complain("an attempt could not be observed", &error).await,
            }
            if !read_all {
                continue;
            }
            let patience = if reading.has_points() || !reading.began_stored { STORE_EVERY } else { LOOK_EVERY };
            tokio::select! {
                () = executor.changed(self.attempt.id, patience) => {}
                _ = self.stop.changed(), if !stop_sent => {}
            }
        }
    }

    /// Scrapes what is new in the log, for as long as storing points is not due. True where that was all of it.
    async fn read_log(&self, reading: &mut Reading) -> Result<bool, ExecutorError> {
        loop {
            let chunk = self.inner.parts.executor.logs(self.attempt.id, reading.position.offset, READ_BYTES).await?;
            if chunk.records.is_empty() {
                return Ok(true);
            }
            for record in &chunk.records {
                reading.scrape(record);
            }
            reading.position.offset = chunk.next_offset;
            if reading.has_points() && reading.stored_at.elapsed() >= STORE_EVERY {
                return Ok(false);
            }
            tokio::task::yield_now().await;
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
        if reading.stored_at.elapsed() < STORE_EVERY || (!began && !reading.has_points()) {
            return;
        }
        let points = reading.points();
        for (piece, position) in metrics::cut(&points, reading.position) {
            let beginning = (!reading.began_stored && started_at.is_some()).then_some((prepared_at, started_at));
            let writing = self.store_piece(subject, piece, position, beginning);
            match tokio::time::timeout(STORE_PATIENCE, writing).await {
                Ok(Ok(())) => {
                    reading.points_stored(position.offset);
                    reading.began_stored |= beginning.is_some();
                }
                Ok(Err(error)) => return self.complain("metric points were not stored", &error).await,
                Err(_) => {
                    return tracing::debug!(attempt = %self.attempt.id, "metric points wait for the database");
                }
            }
        }
    }

    /// Writes points with the position after them, and the training job's beginning where it is given.
    pub(super) async fn store_piece(
        &self,
        subject: &Subject,
        points: &[MetricPoint],
        position: ReadPosition,
        beginning: Option<(Timestamp, Option<Timestamp>)>,
    ) -> Result<(), StoreError> {
        let (attempt, tuning_job, now) = (self.attempt.id, subject.tuning_job, self.now());
        let points: Arc<[MetricPoint]> = points.into();
        let write = self.inner.parts.db.write(WriteClass::Metrics, move |tx| {
            let points = Arc::clone(&points);
            Box::pin(async move {
                if let Some((prepared_at, started_at)) = beginning {
                    tuning_jobs::lock(tx, tuning_job).await?;
                    let job = training_jobs::lock(tx, attempt.training_job).await?;
                    if let Some(mut job) = job.filter(|job| !job.status.is_terminal()) {
                        job.began(Some(prepared_at), started_at);
                        job.modified_at = now;
                        training_jobs::update(tx, &[&job]).await?;
                    }
                }
                metrics::append(tx, attempt, 0, &points, position).await
            })
        });
        write.await
    }
}

/// Reads what an attempt is driven from: for one that has not been started, its training job's row alone, where the
/// definition is known and the row is not at hand.
async fn read_rows(inner: &Inner, attempt: &Attempt, job: Option<TrainingJob>) -> Result<Option<Rows>, SchedulerError> {
    let (db, id) = (&inner.parts.db, attempt.id);
    let job = match job {
        Some(job) => Some(job),
        None => db.glance_for_scheduling(move |tx| Box::pin(training_jobs::get(tx, id.training_job))).await?,
    };
    let Some(job): Option<TrainingJob> = job else { return Ok(None) };
    let Some(definition) = inner.definition(job.definition_id, job.tuning_job_id).await? else { return Ok(None) };
    let started = !matches!(inner.parts.executor.observe(id).await, Ok(Observed::Absent));
    if !started && id.number == 1 {
        return Ok(Some(Rows { job, definition, stored: ReadPosition::default(), used_ms: 0 }));
    }
    let (stored, used_ms) = db.read_for_scheduling(move |tx| Box::pin(read_history(tx, id))).await?;
    Ok(Some(Rows { job, definition, stored, used_ms }))
}

/// How far an attempt's log was read, and how long the attempts before it ran.
async fn read_history(tx: &mut Tx<'_>, id: AttemptId) -> Result<(ReadPosition, i64), StoreError> {
    let stored = metrics::position(tx, id, 0).await?;
    let mut used_ms = 0;
    for number in 1..id.number {
        let earlier = attempts::get(tx, AttemptId { number, ..id }).await?.and_then(|a| a.exit);
        used_ms += earlier.and_then(|exit| Some(exit.ended_at.since_ms(exit.started_at?))).unwrap_or(0);
    }
    Ok((stored, used_ms))
}

/// The report of an attempt that was given up before any executor started it. None where its training job is gone.
pub(super) async fn stopped_before_start(inner: &Inner, attempt: &Attempt) -> Result<Option<Report>, SchedulerError> {
    let Some(rows) = read_rows(inner, attempt, None).await? else { return Ok(None) };
    let Some(tuning_job) = rows.job.tuning_job_id else { return Ok(None) };
    let mut report = Report::new(attempt.id, tuning_job, Exit::bare(inner.parts.clock.now(), ExitCause::Stopped));
    if let Some(objective) = rows.definition.ok().as_deref().and_then(followed_metric) {
        let id = rows.job.id;
        let reading = inner.parts.db.glance_for_scheduling(move |tx| Box::pin(metrics::curve(tx, id, objective)));
        report.curve = curve(reading.await?.iter().map(|point| (point.nth, point.value)));
    }
    Ok(Some(report))
}

fn start_failed(at: Timestamp, message: String) -> Exit {
    Exit::bare(at, ExitCause::StartFailed { message })
}

pub(super) fn infrastructure(at: Timestamp, message: String) -> Exit {
    Exit::bare(at, ExitCause::Infrastructure { message })
}
