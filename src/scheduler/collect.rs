//! What an ended attempt left: its artifacts and its log, put where they last, and the rest of its report.
//!
//! Invariant: an object store that fails is tried again before anything is decided from it, and never changes how the
//! program itself ended: only a success without its artifacts is no success. Everything here may be done again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::outcome::{Exit, ExitCause};
use crate::domain::status::SecondaryStatus;
use crate::executor::{ExecutorError, LogRecord, Stream, log_format};
use crate::objects::ObjectsError;
use crate::scheduler::drive::{Drive, Subject};
use crate::scheduler::reading::Reading;
use crate::scheduler::report::Report;
use crate::store::rows::{LogSegment, MetricPoint, TrainingJob};
use crate::store::{StoreError, metrics, training_jobs};

/// Tries to put artifacts or a log away.
pub(super) const TRIES: u32 = 4;

/// The wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Why artifacts or a log could not be put away.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error("the output folder could not be read")]
    Folder(#[from] std::io::Error),
}

impl Failure {
    /// Whether nobody is: the training job was asked to stop, and the upload with it.
    fn is_given_up(&self) -> bool {
        matches!(self, Self::Objects(ObjectsError::Cancelled { .. }))
    }

    /// Whether the program is to blame: what it left cannot be stored, however often that is tried.
    fn is_the_jobs_own(&self) -> bool {
        match self {
            Self::Objects(error) => !error.is_infrastructure(),
            Self::Executor(error) => matches!(error, ExecutorError::Client(_)),
            Self::Folder(_) => false,
        }
    }
}

impl Drive {
    /// Fills a report in from what the attempt left.
    pub(super) async fn collect(&self, subject: &Subject, reading: &mut Reading, report: &mut Report) {
        let definition = &subject.definition.read;
        report.final_metrics = reading.final_metrics(definition);
        report.objective = reading.objective(definition);
        report.points = self.store_all_but_the_last(subject, reading).await;
        if let Some(remark) = reading.remark() {
            add_remark(report, &remark);
        }
        let ran = report.exit.started_at.is_some() && !matches!(report.exit.cause, ExitCause::Infrastructure { .. });
        if ran && !self.is_interrupted(subject, &report.exit).await {
            let begun = self.now();
            report.uploading_at = Some(begun.max(report.exit.ended_at));
            let uploading = self.upload_within_patience(subject, report.exit.cause.clone());
            let (prepared_at, started_at) = (report.prepared_at, report.exit.started_at);
            let show = move |job: &mut TrainingJob| {
                job.began(prepared_at, started_at);
                job.enter(SecondaryStatus::Uploading, begun, None);
            };
            match self.showing(subject, show, uploading).await {
                Ok(model) => report.model_artifacts = model,
                Err(failure) => blame(report, &failure),
            }
            // Times count from the program's end, whenever a server came to collect.
            let took_ms = self.now().since_ms(begun);
            report.exit.ended_at = report.exit.ended_at.plus_ms(took_ms);
        }
        self.keep_log_for_good(report).await;
        report.position = reading.position;
    }

    /// Whether a further attempt is to follow an interruption: what this one left is in its checkpoints.
    async fn is_interrupted(&self, subject: &Subject, exit: &Exit) -> bool {
        if exit.cause != ExitCause::Stopped || !subject.definition.read.tries().spot {
            return false;
        }
        let id = subject.job.id;
        let job = self.inner.parts.db.glance_for_scheduling(move |tx| Box::pin(training_jobs::get(tx, id))).await;
        let job: Result<Option<TrainingJob>, StoreError> = job;
        job.is_ok_and(|job| job.is_some_and(|job| job.stop_requested_at.is_none()))
    }

    /// Stores the points that are more than one transaction should take, as often as it takes, and returns the rest: it goes
    /// with the report.
    async fn store_all_but_the_last(&self, subject: &Subject, reading: &Reading) -> Vec<MetricPoint> {
        let points = reading.points();
        let mut pieces = metrics::cut(&points, reading.position);
        let last = pieces.pop().map_or_else(Vec::new, |(piece, _)| piece.to_vec());
        for (piece, position) in pieces {
            while let Err(error) = self.store_piece(subject, piece, position, None).await {
                self.complain("metric points were not stored; trying again", &error).await;
            }
        }
        last
    }

    /// Uploads, and gives up some time after the training job was asked to stop.
    async fn upload_within_patience(&self, subject: &Subject, cause: ExitCause) -> Result<Option<String>, Failure> {
        let cancelled = CancellationToken::new();
        let patience = async {
            self.is_asked_to_stop().await;
            tokio::time::sleep(self.inner.parts.upload_patience).await;
        };
        let uploading = self.upload_with_tries(subject, &cause, &cancelled);
        tokio::pin!(uploading);
        tokio::select! {
            uploaded = &mut uploading => uploaded,
            () = patience => {
                cancelled.cancel();
                uploading.await
            }
        }
    }

    async fn upload_with_tries(
        &self,
        subject: &Subject,
        cause: &ExitCause,
        cancelled: &CancellationToken,
    ) -> Result<Option<String>, Failure> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match self.upload(subject, cause, cancelled).await {
                Err(failure) if !failure.is_the_jobs_own() => {
                    self.complain("artifacts were not stored; trying again", &failure).await;
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                done => return done,
            }
        }
        self.upload(subject, cause, cancelled).await
    }

    /// Packs and stores the model (unless the program failed) and the output folder; where the model went.
    async fn upload(
        &self,
        subject: &Subject,
        cause: &ExitCause,
        cancelled: &CancellationToken,
    ) -> Result<Option<String>, Failure> {
        let objects = &self.inner.parts.objects;
        let outputs = tokio::select! {
            outputs = self.inner.parts.executor.outputs(self.attempt.id) => outputs?,
            () = cancelled.cancelled() => {
                let doing = "fetching what the training job wrote".to_owned();
                return Err(ObjectsError::Cancelled { doing }.into());
            }
        };
        let uri = subject.definition.read.output_uri(&subject.job.name);
        let packs = subject.definition.read.packs_artifacts();
        let mut stored = None;
        if matches!(cause, ExitCause::Exited { code: 0 } | ExitCause::Stopped | ExitCause::Deadline) {
            let model = if packs { format!("{uri}/model.tar.gz") } else { format!("{uri}/model/") };
            if packs {
                objects.put_tar_gz(&outputs.model, &model, cancelled.clone()).await?;
            } else {
                objects.put_tree(&outputs.model, &model, cancelled.clone()).await?;
            }
            stored = Some(model);
        }
        let wrote_data = std::fs::read_dir(&outputs.data)?.next().transpose()?.is_some();
        if wrote_data && packs {
            objects.put_tar_gz(&outputs.data, &format!("{uri}/output.tar.gz"), cancelled.clone()).await?;
        } else if wrote_data {
            objects.put_tree(&outputs.data, &format!("{uri}/output/"), cancelled.clone()).await?;
        }
        Ok(stored)
    }

    /// Keeps the log, as often as it takes; a log that cannot be kept is said in the report.
    async fn keep_log_for_good(&self, report: &mut Report) {
        for _ in 0..TRIES {
            match self.keep_log(report).await {
                Ok(segments) => {
                    report.segments = segments;
                    return;
                }
                Err(failure) => self.complain("a log was not kept; trying again", &failure).await,
            }
        }
        add_remark(report, "The log could not be kept");
    }

    /// Links the log's files into the object store, with the remark as its last record.
    async fn keep_log(&self, report: &Report) -> Result<Vec<LogSegment>, Failure> {
        let objects = &self.inner.parts.objects;
        let mut segments = Vec::new();
        for file in self.inner.parts.executor.log_files(self.attempt.id).await? {
            let object_key = objects.keep_log(self.attempt.id, file.first_offset, &file.path).await?;
            let (first_offset, first_time, bytes) = (file.first_offset, file.first_time, file.bytes);
            segments.push(LogSegment { first_offset, first_time, bytes, object_key });
        }
        if let Some(remark) = &report.exit.remark {
            let first_offset = segments.last().map_or(0, |s| s.first_offset + s.bytes);
            let (time, line) = (report.exit.ended_at, remark.clone().into_bytes());
            let mut stored = Vec::new();
            log_format::write(&LogRecord { offset: first_offset, time, stream: Stream::Service, line }, &mut stored);
            let object_key = objects.keep_log_bytes(self.attempt.id, first_offset, &stored).await?;
            let bytes = stored.len() as u64;
            segments.push(LogSegment { first_offset, first_time: time, bytes, object_key });
        }
        Ok(segments)
    }
}

/// A success whose artifacts could not be stored is a failure, or a stop where that is why; any other end stays what it
/// was.
fn blame(report: &mut Report, failure: &Failure) {
    let text = crate::telemetry::chain(failure);
    match report.exit.cause {
        ExitCause::Exited { code: 0 } if failure.is_given_up() => {
            report.exit.cause = ExitCause::Stopped;
            add_remark(report, &format!("Artifacts were not stored: {text}"));
        }
        ExitCause::Exited { code: 0 } if failure.is_the_jobs_own() => {
            report.exit.cause = ExitCause::OutputRefused { message: text };
        }
        ExitCause::Exited { code: 0 } => {
            report.exit.cause = ExitCause::Infrastructure { message: format!("artifacts were not stored: {text}") };
        }
        _ => add_remark(report, &format!("Artifacts were not stored: {text}")),
    }
}

pub(super) fn add_remark(report: &mut Report, remark: &str) {
    let earlier = report.exit.remark.take();
    report.exit.remark = Some(earlier.map_or_else(|| remark.to_owned(), |earlier| format!("{earlier}. {remark}")));
}
