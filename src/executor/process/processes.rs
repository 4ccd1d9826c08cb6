//! How many processes and threads an attempt may have, and whether the kernel holds it to that.
//!
//! Invariant: no attempt is held to a number that other users' processes, or the server's, count towards. The kernel
//! counts by user, and apart within each user namespace (since Linux 5.14): so the limit is an attempt's own where it has
//! a user namespace, and all attempts' together where they share a user that is nobody else's.

use super::plan::RunAs;

/// Processes and threads of ours within an attempt's user namespace: its supervisor, and what streams so many channels.
fn ours(streams: u64) -> u64 {
    1 + if streams > 0 { 1 + streams } else { 0 }
}

/// What the kernel holds attempts to; to be said at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessLimit {
    /// Each attempt may have so many processes and threads.
    Each(u64),
    /// All attempts together may: the kernel counts those of the user that they run as.
    Together(u64),
    /// As many as they like.
    Unlimited {
        /// Why no limit holds; none where none was asked for.
        why: Option<&'static str>,
    },
}

/// What decides it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// For each attempt.
    pub(super) wanted: Option<u64>,
    /// Attempts that run at once.
    pub(super) max_running: u64,
    /// Whether attempts are isolated by a user namespace; none where they are not isolated.
    pub(super) sandbox: Option<bool>,
    /// Who programs run as, where it is not the server's own user.
    pub(super) run_as: Option<RunAs>,
    /// Whether the server is root.
    pub(super) root: bool,
    /// As in `/proc/sys/kernel/osrelease`.
    pub(super) kernel: &'a str,
}

impl ProcessLimit {
    pub(super) fn of(circumstances: Circumstances<'_>) -> Self {
        let Circumstances { wanted, max_running, sandbox, run_as, root, kernel } = circumstances;
        let Some(wanted) = wanted else { return Self::Unlimited { why: None } };
        let why = match run_as {
            Some(RunAs { uid, .. }) if root && uid != 0 => return Self::Together(wanted.saturating_mul(max_running)),
            _ if root => "the kernel limits no program that runs as root: name a user of its own with process.run_as",
            _ if sandbox != Some(true) => "the kernel would count all processes of the server's own user",
            _ if !counts_by_namespace(kernel) => "Linux before 5.14 would count all processes of the server's own user",
            _ => return Self::Each(wanted),
        };
        Self::Unlimited { why: Some(why) }
    }

    /// The number for the kernel, for an attempt of which so many channels are streamed.
    pub(super) fn counted(&self, streams: u64) -> Option<u64> {
        match self {
            Self::Each(limit) => Some(limit.saturating_add(ours(streams))),
            Self::Together(limit) => Some(*limit),
            Self::Unlimited { .. } => None,
        }
    }
}

fn counts_by_namespace(kernel: &str) -> bool {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_nobody_elses_processes() {
        let nobody = Some(RunAs { uid: 65534, gid: 65534 });
        let user = Circumstances {
            wanted: Some(10),
            max_running: 4,
            sandbox: Some(true),
            run_as: None,
            root: false,
            kernel: "6.1.0-18-amd64",
        };
        let root = Circumstances { root: true, sandbox: Some(false), ..user };
        let unlimited =
            |circumstances| matches!(ProcessLimit::of(circumstances), ProcessLimit::Unlimited { why: Some(_) });
        assert_eq!(ProcessLimit::of(user), ProcessLimit::Each(10));
        assert_eq!(ProcessLimit::of(Circumstances { kernel: "5.14.0", ..user }), ProcessLimit::Each(10));
        assert!(unlimited(Circumstances { kernel: "5.4.300", ..user }));
        assert!(unlimited(Circumstances { kernel: "", ..user }));
        assert!(unlimited(Circumstances { sandbox: None, ..user }));
        assert_eq!(ProcessLimit::of(Circumstances { run_as: nobody, ..root }), ProcessLimit::Together(40));
        assert!(unlimited(root));
        assert!(unlimited(Circumstances { run_as: Some(RunAs { uid: 0, gid: 0 }), ..root }));
        let unwanted = Circumstances { wanted: None, ..user };
        assert_eq!(ProcessLimit::of(unwanted), ProcessLimit::Unlimited { why: None });
        assert_eq!(ProcessLimit::Each(10).counted(0), Some(11));
        assert_eq!(ProcessLimit::Each(10).counted(2), Some(14));
        assert_eq!(ProcessLimit::Together(10).counted(2), Some(10));
    }
}
