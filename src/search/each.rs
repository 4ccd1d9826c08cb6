//! One suggestion after the other, for strategies that think about one point at a time.
//!
//! Invariant: `suggest(n)` equals n calls of one with the earlier suggestions pending; no point is suggested twice while the
//! space has another. What is proposed is the strategy's; where it proposes nothing new, a random free point is taken.

use crate::domain::space::Value;
use crate::search::lattice::Lattice;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::{Study, Suggestions, random};

/// See [`crate::search::suggest`]. `propose` gets the ordinal, what is taken (with the suggestions of this call before it)
/// and the ordinal's stream.
pub(super) fn suggest_each(
    study: &Study,
    first_ordinal: u32,
    n: u32,
    propose: impl Fn(u32, &Taken, &mut Stream) -> Option<Vec<Value>>,
) -> Suggestions {
    let lattice = Lattice::of(&study.space);
    let mut taken = Taken::of(&study.trials);
    for ordinal in (0..n).map_while(|i| first_ordinal.checked_add(i)) {
        let mut stream = Stream::new(study.seed, study.definition, ordinal);
        let point = propose(ordinal, &taken, &mut stream)
            .filter(|point| !taken.contains(point))
            .or_else(|| random::free(study, lattice.as_ref(), &mut stream, &taken));
        let Some(point) = point else { break };
        taken.suggested.push(point);
    }
    let exhausted = lattice.is_some_and(|lattice| taken.fill(&lattice));
    Suggestions { points: taken.suggested, exhausted }
}
