//! The statuses of tuning jobs, training jobs and attempts, with the API's spelling, and what follows from them.
//!
//! Invariant: the text of every variant is the service model's own enum value; rows and responses both use it.

use serde::{Deserialize, Serialize};

/// A text that names no variant of the enum it was read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}")]
pub struct UnknownVariant {
    /// The enum that was asked for.
    pub kind: &'static str,
    /// The text that did not fit.
    pub text: String,
}

macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "the variants are the service model's own words")]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every variant, in the order of the service model.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The API's spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant)),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownVariant;
            fn from_str(text: &str) -> Result<Self, UnknownVariant> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text)
                    .ok_or_else(|| UnknownVariant { kind: stringify!($name), text: text.to_owned() })
            }
        }
    };
}

text_enum! {
    /// `HyperParameterTuningJobStatus`.
    TuningStatus { Completed, InProgress, Failed, Stopped, Stopping, Deleting, DeleteFailed }
}

text_enum! {
    /// `TrainingJobStatus`.
    TrainingStatus { InProgress, Completed, Failed, Stopping, Stopped, Deleting }
}

text_enum! {
    /// `SecondaryStatus` of a training job.
    SecondaryStatus {
        Starting, LaunchingMLInstances, PreparingTrainingStack, Downloading, DownloadingTrainingImage, Training,
        Uploading, Stopping, Stopped, MaxRuntimeExceeded, Completed, Failed, Interrupted, MaxWaitTimeExceeded, Updating,
        Restarting, Pending
    }
}

text_enum! {
    /// `ObjectiveStatus`: whether a training job's final objective metric was evaluated.
    ObjectiveStatus { Succeeded, Pending, Failed }
}

text_enum! {
    /// `HyperParameterTuningJobStrategyType`, and after the service's own values those that are Tunesmith's.
    Strategy { Bayesian, Random, Hyperband, Grid, TPE, SMAC, Anneal }
}

text_enum! {
    /// `TrainingJobEarlyStoppingType`.
    EarlyStopping { Off, Auto }
}

text_enum! {
    /// `HyperParameterTuningJobObjectiveType`.
    Direction { Maximize, Minimize }
}

text_enum! {
    /// `HyperParameterTuningJobWarmStartType`.
    WarmStart { IdenticalDataAndAlgorithm, TransferLearning }
}

text_enum! {
    /// `HyperParameterScalingType`.
    Scaling { Auto, Linear, Logarithmic, ReverseLogarithmic }
}

text_enum! {
    /// Where an attempt stands. `Inserted`: committed, its executor may start it. `Ended`: its outcome is in the row.
    /// `Removed`: its executor holds nothing of it any more.
    AttemptState { Inserted, Ended, Removed }
}

impl TuningStatus {
    /// Whether the job will never start or wait for anything again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped | Self::DeleteFailed)
    }
}

impl TrainingStatus {
    /// Whether the job is over: it holds no slot and has its final counters.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }
}

impl Direction {
    /// Whether `a` is a strictly better objective value than `b`.
    #[must_use]
    pub fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Maximize => a > b,
            Self::Minimize => a < b,
        }
    }

    /// The value as a loss, the smaller the better; one that is not finite is worse than all that are.
    #[must_use]
    pub fn loss(self, value: f64) -> f64 {
        match self {
            _ if !value.is_finite() => f64::INFINITY,
            Self::Maximize => -value,
            Self::Minimize => value,
        }
    }
}

/// One entry of `SecondaryStatusTransitions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The secondary status entered.
    pub status: SecondaryStatus,
    /// When it was entered.
    pub start: crate::domain::time::Timestamp,
    /// When it was left; absent while it holds.
    pub end: Option<crate::domain::time::Timestamp>,
    /// What the service would tell the user about it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::{Direction, SecondaryStatus, Strategy, TrainingStatus, TuningStatus};

    #[test]
    fn texts_name_their_variants() {
        for status in SecondaryStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        let error = "bayesian".parse::<Strategy>().unwrap_err();
        assert_eq!(error.to_string(), "`bayesian` is not a Strategy");
    }

    #[test]
    fn stopping_is_not_over() {
        assert!(!TuningStatus::Stopping.is_terminal() && !TuningStatus::InProgress.is_terminal());
        assert!(!TrainingStatus::Stopping.is_terminal() && !TrainingStatus::InProgress.is_terminal());
        assert!(TuningStatus::Stopped.is_terminal() && TrainingStatus::Stopped.is_terminal());
    }

    #[test]
    fn what_is_no_number_is_never_better() {
        for direction in Direction::ALL {
            assert!(!direction.is_better(f64::NAN, 1.0) && !direction.is_better(1.0, f64::NAN));
            assert!(!direction.is_better(1.0, 1.0));
        }
        assert!(Direction::Maximize.is_better(2.0, 1.0) && Direction::Minimize.is_better(1.0, 2.0));
    }
}
