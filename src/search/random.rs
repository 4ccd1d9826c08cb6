//! Independent draws from the scaled ranges, none twice.
//!
//! Invariant: the draw of a trial depends on the study's seed, its ordinal and the set of values already taken, not on
//! any outcome. A point is repeated only where the space has no other, and then it is not suggested at all.

use crate::domain::space::Value;
use crate::search::each::suggest_each;
use crate::search::lattice::Lattice;
use crate::search::rng::Stream;
use crate::search::taken::Taken;
use crate::search::{Study, Suggestions, scale};

/// Draws before what is left is counted instead. Many are only needed where most of the space, or of its probability, is
/// taken: then counting is the faster way, and the odds of a draw hardly matter.
const DRAWS: u32 = 32;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    suggest_each(study, first_ordinal, n, |_, _, _| None)
}

/// A draw that is not taken; `None` where nothing is left.
pub(super) fn free(study: &Study, lattice: Option<&Lattice>, stream: &mut Stream, taken: &Taken) -> Option<Vec<Value>> {
    draw(study, stream, taken).or_else(|| taken.pick(lattice?, stream))
}

fn draw(study: &Study, stream: &mut Stream, taken: &Taken) -> Option<Vec<Value>> {
    (0..DRAWS).find_map(|_| {
        let point: Vec<Value> = study.space.parameters.iter().map(|p| scale::at(&p.range, stream.unit())).collect();
        (!taken.contains(&point)).then_some(point)
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::{Direction, Scaling, Strategy};
    use crate::search::{Study, Trial, TrialState, suggest};

    fn study(ranges: Vec<Range>) -> Study {
        let named = |(i, range)| Parameter { name: format!("p{i}"), range };
        Study {
            space: Space { parameters: ranges.into_iter().enumerate().map(named).collect() },
            direction: Direction::Maximize,
            strategy: Strategy::Random,
            seed: 2024,
            definition: 0,
            budget: 10_000,
            trials: vec![],
            parents: vec![],
            warm_start: None,
            resource: None,
            early_stopping: false,
        }
    }

    fn texts(n: usize) -> Range {
        Range::Categorical { values: (0..n).map(|i| format!("v{i}")).collect() }
    }

    fn int(min: i64, max: i64, scaling: Scaling) -> Range {
        Range::Integer { min, max, scaling }
    }

    fn pending(ordinal: u32, values: Vec<Value>) -> Trial {
        Trial { ordinal, values, state: TrialState::Pending, curve: vec![], value: None }
    }

    /// These texts are stored in databases: a change here breaks the replay of every job begun before it.
    #[test]
    fn known_seeds_give_known_suggestions() {
        let study = study(vec![
            int(16, 1024, Scaling::Linear),
            int(1, 100_000, Scaling::Auto),
            Range::Continuous { min: 1e-5, max: 0.1, scaling: Scaling::Logarithmic },
            Range::Continuous { min: 0.5, max: 0.999, scaling: Scaling::ReverseLogarithmic },
            Range::Continuous { min: -2.5, max: 7.5, scaling: Scaling::Linear },
            texts(5),
        ]);
        let texts: Vec<Vec<String>> = suggest(&study, 1, 3)
            .unwrap()
            .points
            .iter()
            .map(|point| study.space.format(point).into_values().collect())
            .collect();
        assert_eq!(
            texts,
            [
                ["1012", "1", "9.7234437268533e-5", "0.8376898529657765", "-1.7057869847363916", "v0"],
                ["494", "1924", "0.0008971388417199018", "0.9906794479320719", "5.5653888866321", "v2"],
                ["210", "1", "3.2458796246802806e-5", "0.9731432632624506", "1.799587987143184", "v0"],
            ]
        );
        let far = Study { seed: u64::MAX, definition: 3, ..study.clone() };
        let point = &suggest(&far, 10_000, 1).unwrap().points[0];
        let texts: Vec<String> = far.space.format(point).into_values().collect();
        assert_eq!(texts, ["135", "38", "0.006274189804509975", "0.9658962394240462", "-1.2645185540563963", "v3"]);
    }

    #[test]
    fn a_space_is_used_to_its_last_point_and_then_exhausted() {
        let mut study = study(vec![int(1, 10, Scaling::Logarithmic), texts(4)]);
        let answer = suggest(&study, 1, 39).unwrap();
        assert_eq!((answer.points.len(), answer.exhausted), (39, false));
        study.trials = (1..).zip(answer.points).map(|(ordinal, values)| pending(ordinal, values)).collect();
        let answer = suggest(&study, 40, 5).unwrap();
        assert_eq!((answer.points.len(), answer.exhausted), (1, true));
        study.trials.push(pending(40, answer.points[0].clone()));
        let answer = suggest(&study, 41, 1).unwrap();
        assert_eq!((answer.points.len(), answer.exhausted), (0, true));
    }

    #[test]
    fn the_last_of_ten_thousand_points_is_found_at_once() {
        let mut study = study(vec![int(0, 99, Scaling::Linear), int(1, 100, Scaling::Logarithmic)]);
        let missing = [Value::Int(37), Value::Int(64)];
        let all = (0..100).flat_map(|a| (1..=100).map(move |b| vec![Value::Int(a), Value::Int(b)]));
        study.trials = (1..).zip(all.filter(|point| *point != missing)).map(|(o, values)| pending(o, values)).collect();
        let start = Instant::now();
        let answer = suggest(&study, 10_000, 1).unwrap();
        // A bound that only a walk over draws or points could pass; the work itself is some milliseconds.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!((answer.points.as_slice(), answer.exhausted), ([missing.to_vec()].as_slice(), true));
    }

    #[test]
    fn a_space_of_2_to_the_53_points_with_ten_thousand_trials_is_quick() {
        let mut study = study(vec![int(1, 1 << 53, Scaling::Linear)]);
        study.trials = (1..=10_000).map(|i| pending(i, vec![Value::Int(i64::from(i))])).collect();
        let start = Instant::now();
        let answer = suggest(&study, 10_001, 100).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!((answer.points.len(), answer.exhausted), (100, false));
    }

    #[test]
    fn what_is_left_is_chosen_evenly() {
        // Three of 1000 points are left; which of them comes first must not lean to one side.
        let left = [100, 500, 900];
        let mut counts = [0_u32; 3];
        let mut study = study(vec![int(1, 1000, Scaling::Linear)]);
        study.trials = (1..=1000)
            .filter(|i| !left.contains(i))
            .map(|i| pending(u32::try_from(i).unwrap(), vec![Value::Int(i)]))
            .collect();
        for seed in 0..600 {
            study.seed = seed;
            let Value::Int(i) = suggest(&study, 998, 1).unwrap().points[0][0] else { panic!("not an integer") };
            counts[left.iter().position(|x| *x == i).unwrap()] += 1;
        }
        assert!(counts.iter().all(|n| n.abs_diff(200) < 50), "{counts:?}");
    }

    #[test]
    fn definitions_and_ordinals_draw_apart() {
        let study = study(vec![Range::Continuous { min: 0.0, max: 1.0, scaling: Scaling::Linear }]);
        let other = Study { definition: 1, ..study.clone() };
        assert_ne!(suggest(&study, 1, 2).unwrap().points, suggest(&other, 1, 2).unwrap().points);
        assert_eq!(suggest(&study, 1, 2).unwrap().points[1], suggest(&study, 2, 1).unwrap().points[0]);
    }
}
