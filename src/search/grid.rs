//! Every combination, one after the other.
//!
//! Invariant: the trial `ordinal` is the combination of rank `ordinal - 1` in lexicographic order (the first parameter
//! changes slowest), whatever came of the others. Values keep the order of the request.

use crate::domain::space::Range;
use crate::search::lattice::Lattice;
use crate::search::{Study, Suggestions, Unsupported};

/// See [`crate::search::suggest`]. A continuous range has no combinations to list and is refused; integers are all
/// listed.
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Result<Suggestions, Unsupported> {
    let lattice = match Lattice::of(&study.space) {
        Some(lattice) if !study.space.parameters.iter().any(|p| matches!(p.range, Range::Continuous { .. })) => lattice,
        _ => return Err(Unsupported(study.strategy)),
    };
    let first = u64::from(first_ordinal.saturating_sub(1));
    let end = first.saturating_add(u64::from(n)).min(lattice.size());
    Ok(Suggestions { points: (first..end).map(|rank| lattice.point(rank)).collect(), exhausted: end == lattice.size() })
}

#[cfg(test)]
mod tests {
    use crate::domain::space::{Parameter, Range, Space};
    use crate::domain::status::{Direction, Scaling, Strategy};
    use crate::search::{Study, suggest};

    fn study(ranges: Vec<Range>) -> Study {
        let named = |(i, range)| Parameter { name: format!("p{i}"), range };
        Study {
            space: Space { parameters: ranges.into_iter().enumerate().map(named).collect() },
            direction: Direction::Maximize,
            strategy: Strategy::Grid,
            seed: 1,
            definition: 0,
            budget: 100,
            trials: vec![],
            parents: vec![],
            warm_start: None,
            resource: None,
            early_stopping: false,
        }
    }

    fn texts(values: &[&str]) -> Range {
        Range::Categorical { values: values.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn combinations_come_in_the_order_of_the_request_and_end() {
        let study = study(vec![texts(&["sgd", "adam"]), texts(&["32", "64", "128"])]);
        let answer = suggest(&study, 1, 100).unwrap();
        let texts: Vec<String> = answer
            .points
            .iter()
            .map(|point| study.space.format(point).into_values().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(texts, ["sgd 32", "sgd 64", "sgd 128", "adam 32", "adam 64", "adam 128"]);
        assert!(answer.exhausted);
        assert!(!suggest(&study, 1, 5).unwrap().exhausted);
        let last = suggest(&study, 6, 1).unwrap();
        assert_eq!((last.points.as_slice(), last.exhausted), (&answer.points[5..], true));
        for beyond in [7, u32::MAX] {
            let answer = suggest(&study, beyond, 10).unwrap();
            assert_eq!((answer.points.len(), answer.exhausted), (0, true));
        }
    }

    #[test]
    fn a_continuous_range_is_refused_and_integers_are_listed() {
        let real = Range::Continuous { min: 0.0, max: 1.0, scaling: Scaling::Linear };
        let refused = suggest(&study(vec![texts(&["a"]), real]), 1, 1).unwrap_err();
        assert_eq!(refused.to_string(), "this version has no Grid search for these hyperparameter ranges");
        let int = Range::Integer { min: 3, max: 5, scaling: Scaling::Linear };
        assert_eq!(suggest(&study(vec![int]), 1, 9).unwrap().points.len(), 3);
    }
}
