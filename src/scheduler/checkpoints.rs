//! Saving an attempt's checkpoints where their bucket is remote: every so often while it runs, and once more at its end.
//!
//! Invariant: an attempt is over only after its last checkpoints were saved, or were tried often enough, so that a
//! further attempt finds them. Failing to save never changes how the program itself ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::objects::Saver;
use crate::scheduler::collect::{TRIES, add_remark};
use crate::scheduler::drive::{Drive, Subject};
use crate::scheduler::report::Report;

/// How often checkpoints of a running attempt are saved.
const SAVE_EVERY: Duration = Duration::from_secs(20);

impl Drive {
    fn saver(&self, subject: &Subject) -> Option<Saver> {
        let uri = subject.definition.read.checkpoints_uri(&subject.job.name)?;
        // Staging has told what is wrong with the bucket.
        self.inner.parts.objects.saver(&uri, self.attempt.id).ok().flatten()
    }

    /// Saves until the handle is dropped.
    pub(super) fn save_checkpoints_meanwhile(&self, subject: &Subject) -> Option<AbortOnDropHandle<()>> {
        let (saver, attempt) = (self.saver(subject)?, self.attempt.id);
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SAVE_EVERY).await;
                if let Err(error) = saver.save(false, &CancellationToken::new()).await {
                    tracing::warn!(%attempt, error = crate::telemetry::chain(&error), "checkpoints were not saved");
                }
            }
        })))
    }

    /// Saves all that an ended attempt left.
    pub(super) async fn save_checkpoints(&self, subject: &Subject, report: &mut Report) {
        let Some(saver) = self.saver(subject) else { return };
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
