//! How an attempt ended.
//!
//! Invariant: a cause tells whose fault an end was, in one form for all executors, and is kept in exit records and rows
//! as it stands here. What follows for the training job is for `decide` to say.

use serde::{Deserialize, Serialize};

use crate::domain::time::Timestamp;

/// The exit record of an attempt, as its supervisor wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When the training program was started; none where it never was.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Timestamp,
    /// Why it was over.
    pub cause: ExitCause,
    /// `/opt/ml/output/failure`, its first 1024 characters, where written.
    pub failure: Option<String>,
    /// The last lines of stderr, at most 2 KiB.
    pub stderr_tail: String,
    /// What the server found in its log that the user should know, such as metric definitions that never matched.
    #[serde(default)]
    pub remark: Option<String>,
}

impl Exit {
    /// The end of an attempt whose program never ran, or is not known to have.
    #[must_use]
    pub fn bare(at: Timestamp, cause: ExitCause) -> Self {
        Self { started_at: None, ended_at: at, cause, failure: None, stderr_tail: String::new(), remark: None }
    }
}

/// Why an attempt was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExitCause {
    /// The program ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal that nobody here sent ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// Stopped at the end of its `StoppingCondition`.
    Deadline,
    /// Stopped on request.
    Stopped,
    /// The program could not be started: the image's or the job's fault.
    StartFailed {
        /// What failed.
        message: String,
    },
    /// Ended because it took more of the machine than it may: the job's fault.
    OverLimit {
        /// Of what, how much it may, and what to change.
        message: String,
    },
    /// Ended because the data of a channel cannot be streamed: the job's fault.
    InputRefused {
        /// Which channel, and why not.
        message: String,
    },
    /// The program ended well, but what it left cannot be stored: the job's fault.
    OutputRefused {
        /// Why not.
        message: String,
    },
    /// The supervisor, daemon, node or host was lost, or the machine failed it.
    Infrastructure {
        /// What failed.
        message: String,
    },
}
