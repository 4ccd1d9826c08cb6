//! Saving an attempt's checkpoints where their bucket is remote: every so often while it runs, and once more at its end.
//!
//! Invariant: an attempt is over only after its last checkpoints were saved, or were tried often enough, so that a
//! further attempt finds them. Failing to save never changes how the program itself ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::objects::{ObjectsError, Saver};
use crate::scheduler::collect::{TRIES, add_remark};
use crate::scheduler::drive::{Drive, Subject};
use crate::scheduler::report::Report;

/// How often checkpoints of a running attempt are saved.
const SAVE_EVERY: Duration = Duration::from_secs(20);

/// Checkpoints that are being saved while their attempt runs.
#[derive(Debug)]
pub(super) struct Saving {
    saver: Saver,
    ending: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Saving {
    /// Ends it, in the middle of a file too, and gives back what knows which files are saved.
    pub(super) async fn end(self) -> Saver {
        self.ending.cancel();
        // One that panicked has ended.
        let _ = self.task.await;
        self.saver
    }
}

impl Drive {
    /// What saves the attempt's checkpoints, where their bucket is remote.
    pub(super) fn saver(&self, subject: &Subject) -> Option<Saver> {
        let uri = subject.definition.read.checkpoints_uri(&subject.job.name)?;
        // Staging has told what is wrong with the bucket.
        self.inner.parts.objects.saver(&uri, self.attempt.id).ok().flatten()
    }

    /// Saves every so often.
    pub(super) fn save_checkpoints_meanwhile(&self, saver: Saver) -> Saving {
        let (attempt, ending) = (self.attempt.id, CancellationToken::new());
        let (of_task, ended) = (saver.clone(), ending.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            while ended.run_until_cancelled(tokio::time::sleep(SAVE_EVERY)).await.is_some() {
                match of_task.save(false, &ended).await {
                    Ok(()) | Err(ObjectsError::Cancelled { .. }) => {}
                    Err(error) => {
                        let error = crate::telemetry::chain(&error);
                        tracing::warn!(%attempt, error, "checkpoints were not saved");
                    }
                }
            }
        }));
        Saving { saver, ending, task }
    }

    /// Saves all that an ended attempt left.
    pub(super) async fn save_checkpoints(&self, saver: Saver, report: &mut Report) {
        let mut failure = None;
        for _ in 0..TRIES {
            match saver.save(true, &CancellationToken::new()).await {
                Ok(()) => return,
                Err(error) if error.is_infrastructure() => {
                    self.complain("checkpoints were not saved; trying again", &error).await;
                    failure = Some(error);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if let Some(failure) = failure {
            add_remark(report, &format!("Checkpoints were not saved: {}", crate::telemetry::chain(&failure)));
        }
    }
}
