//! Annealing: each value is drawn near that of an earlier good trial, in a neighbourhood that shrinks.
//!
//! After hyperopt's `anneal` (Bergstra, Yamins, Cox: Making a Science of Model Search, ICML 2013; the rule itself is only
//! in that program).
//!
//! | symbol | meaning                                            | shape               |
//! |--------|----------------------------------------------------|---------------------|
//! | `good` | trials with a value, best first                    | T trials            |
//! | T      | how many those are                                 | count               |
//! | w      | width of the neighbourhood, 1 / (1 + T / 10)       | share of unit range |
//! | k      | whose value to start from: P(k) = 2^-(k + 1)       | index into `good`   |
//!
//! Invariant: the answer depends on the seed, the ordinal, the finished trials and the set of taken points. Pending trials
//! have no value to learn from: they are only not repeated.

use crate::domain::space::{Range, Value};
use crate::search::each::suggest_each;
use crate::search::features::Features;
use crate::search::parents::{self, Guides};
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::{Study, Suggestions, Trial, scale};

/// How much each finished trial narrows the neighbourhood.
const SHRINK: f64 = 0.1;

/// Draws near good trials before the whole space is drawn from.
const DRAWS: u32 = 32;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    let joined = parents::joined(study);
    let good = best_first(&joined);
    let guides = Guides::of(study, &Features::of(&study.space));
    suggest_each(study, first_ordinal, n, |ordinal, taken, stream| {
        guides.point(ordinal).or_else(|| near(study, &good, stream, taken))
    })
}

/// The trials with a value, the best first; of equal ones the earlier first.
fn best_first(study: &Study) -> Vec<&Trial> {
    let loss = |trial: &Trial| trial.value.map(|value| study.direction.loss(value));
    let mut good: Vec<(f64, &Trial)> = study.in_order().into_iter().filter_map(|t| Some((loss(t)?, t))).collect();
    good.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    good.into_iter().map(|(_, trial)| trial).collect()
}

/// A free point near good trials. Each draw that is taken widens the neighbourhood: on a lattice the narrow one may have
/// no other point.
fn near(study: &Study, good: &[&Trial], stream: &mut Stream, taken: &Taken) -> Option<Vec<Value>> {
    if good.is_empty() {
        return None;
    }
    let width = 1.0 / (1.0 + SHRINK * good.len() as f64);
    (0..DRAWS).find_map(|draw| {
        let width = (width * f64::from(1 + draw)).min(1.0);
        let parameters = study.space.parameters.iter().enumerate();
        let point: Vec<Value> = parameters
            .map(|(i, parameter)| {
                let start = good.get(rank(stream).min(good.len() - 1)).and_then(|trial| trial.values.get(i));
                match start {
                    Some(start) => step(&parameter.range, *start, width, stream),
                    None => scale::at(&parameter.range, stream.unit()),
                }
            })
            .collect();
        (!taken.contains(&point)).then_some(point)
    })
}

/// Geometric with p = 1/2, from 0 on.
fn rank(stream: &mut Stream) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=53")]
    let rank = -libm::log2(1.0 - stream.unit()) as usize;
    rank
}

/// Numbers: uniform in an interval of `width` around the start, moved so as to lie within the range. Categories: another
/// draw with probability `width`, else the start.
fn step(range: &Range, start: Value, width: f64, stream: &mut Stream) -> Value {
    let (gate, unit) = (stream.unit(), stream.unit());
    if matches!(range, Range::Categorical { .. }) {
        return if gate < width { scale::at(range, unit) } else { start };
    }
    let half = width / 2.0;
    let middle = scale::unit_of(range, start).max(half).min(1.0 - half);
    scale::at(range, middle + (unit - 0.5) * width)
}
