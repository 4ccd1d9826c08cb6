//! The points of a study that are not to be suggested again, and what is left beside them.
//!
//! Invariant: a point counts as taken whatever became of its trial. How a free point is looked for is the strategies'.

use crate::domain::space::Value;
use crate::search::Trial;
use crate::search::lattice::Lattice;
use crate::search::rng::Stream;

/// The points that trials of the study have, whatever became of them, and those of this call.
///
/// Looked through rather than hashed: nearly every call wants one suggestion, and nearly every comparison ends at the
/// first value.
pub(super) struct Taken<'a> {
    trials: &'a [Trial],
    /// The points of this call.
    pub(super) suggested: Vec<Vec<Value>>,
}

impl<'a> Taken<'a> {
    /// The points of some trials.
    pub(super) fn of(trials: &'a [Trial]) -> Self {
        Self { trials, suggested: Vec::new() }
    }

    pub(super) fn points(&self) -> impl Iterator<Item = &[Value]> {
        self.trials.iter().map(|trial| trial.values.as_slice()).chain(self.suggested.iter().map(Vec::as_slice))
    }

    /// Two points are the same when their texts are. A real's text is that of its bits, so equal numbers have equal
    /// texts: `scale` gives no negative zero.
    pub(super) fn contains(&self, point: &[Value]) -> bool {
        self.points().any(|taken| taken == point)
    }

    /// Whether every point of the space is taken.
    pub(super) fn fill(&self, lattice: &Lattice) -> bool {
        // Ranks are only worth counting where they could be enough.
        (self.trials.len() + self.suggested.len()) as u64 >= lattice.size()
            && self.ranks(lattice).len() as u64 >= lattice.size()
    }

    /// The ranks of the taken points, in order, each once.
    fn ranks(&self, lattice: &Lattice) -> Vec<u64> {
        let mut ranks: Vec<u64> = self.points().filter_map(|point| lattice.rank(point)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    /// One of the points that are left, each as likely as any other; `None` where nothing is.
    pub(super) fn pick(&self, lattice: &Lattice, stream: &mut Stream) -> Option<Vec<Value>> {
        let ranks = self.ranks(lattice);
        let left = lattice.size().checked_sub(ranks.len() as u64).filter(|left| *left > 0)?;
        // The k-th free rank: each taken rank at or before it moves it on by one.
        let mut rank = stream.below(left);
        for taken in ranks {
            if taken > rank {
                break;
            }
            rank += 1;
        }
        Some(lattice.point(rank))
    }
}
