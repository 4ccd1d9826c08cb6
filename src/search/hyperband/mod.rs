//! Hyperband as the service runs it, asynchronously: every trial starts, and those that fall behind are stopped at
//! rungs.
//!
//! Invariant: what is suggested and what is stopped is a function of the study alone. No trial is stopped below
//! `MinResource`, nor the best at its rung; without a resource none at all, and the search goes by final values.
//!
//! `rungs` decides who goes on, `standing` compares trials that went differently far, `proposal` makes new ones from
//! that by way of the process of Bayesian search and of a forest (`by_forest`). Draws, and what is left of a small
//! space, are those of random search.

mod by_forest;
mod proposal;
mod rungs;
mod standing;

use crate::search::each::suggest_each;
use crate::search::features::Features;
use crate::search::parents::Guides;
use crate::search::{Study, Suggestions};

pub(super) use rungs::verdict;

/// See [`crate::search::suggest`].
pub(super) fn suggest(study: &Study, first_ordinal: u32, n: u32) -> Suggestions {
    let proposer = proposal::Proposer::of(study);
    // A parent's final values say nothing beside a first epoch, so that parents of either kind guide.
    let guides = Guides::best(study, &Features::of(&study.space));
    suggest_each(study, first_ordinal, n, |ordinal, taken, stream| {
        guides.point(ordinal).or_else(|| proposer.propose(ordinal, taken, stream))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::{Direction, Scaling, Strategy};
    use crate::search::{Resource, Study, Trial, TrialState, Verdict, scale, suggest, verdict};

    fn study(resource: Option<Resource>) -> Study {
        let named = |(i, range)| Parameter { name: format!("p{i}"), range };
        let ranges = [
            Range::Continuous { min: 1e-4, max: 1.0, scaling: Scaling::Logarithmic },
            Range::Integer { min: 1, max: 40, scaling: Scaling::Linear },
            Range::Categorical { values: ["a", "b", "c"].map(String::from).to_vec() },
        ];
        Study {
            space: Space { parameters: ranges.into_iter().enumerate().map(named).collect() },
            direction: Direction::Maximize,
            strategy: Strategy::Hyperband,
            seed: 9,
            definition: 0,
            budget: 100,
            trials: vec![],
            parents: vec![],
            warm_start: None,
            resource,
            early_stopping: false,
        }
    }

    fn place(study: &Study, values: &[Value]) -> Vec<f64> {
        study.space.parameters.iter().zip(values).map(|(p, value)| scale::unit_of(&p.range, *value)).collect()
    }

    /// Trains one after the other, asking for a verdict at each epoch as the service does.
    fn train(study: &mut Study, n: u32, value: impl Fn(&[f64], u32) -> f64) {
        for ordinal in 1..=n {
            let values = suggest(study, ordinal, 1).unwrap().points.remove(0);
            let place = place(study, &values);
            study.trials.push(Trial { ordinal, values, state: TrialState::Pending, curve: vec![], value: None });
            let max = study.resource.map_or(1, |resource| resource.max);
            for epoch in 1..=max {
                let value = value(&place, epoch);
                let trial = study.trials.last_mut().unwrap();
                trial.curve.push((epoch, value));
                (trial.value, trial.state) = (Some(value), TrialState::Completed);
                if epoch < max && verdict(study, ordinal) == Verdict::Stop {
                    study.trials.last_mut().unwrap().state = TrialState::Stopped;
                    break;
                }
            }
        }
    }

    fn bowl(place: &[f64], epoch: u32) -> f64 {
        let far = (place[0] - 0.8).abs() + (place[1] - 0.3).abs() + if place[2] < 0.6 { 0.3 } else { 0.0 };
        -far - 1.0 / f64::from(epoch)
    }

    #[test]
    fn proposals_gather_where_results_are_good_and_some_run_in_full() {
        let resource = Resource { min: 1, max: 27 };
        let means = (0..6).map(|seed| {
            let mut study = Study { seed, ..study(Some(resource)) };
            train(&mut study, 80, bowl);
            let full = study.trials.iter().filter(|trial| trial.curve.len() == 27).count();
            assert!((4..60).contains(&full), "{full} of 80 in full");
            let final_of = |trial: &Trial| bowl(&place(&study, &trial.values), 27);
            let mean = |trials: &[Trial]| trials.iter().map(final_of).sum::<f64>() / trials.len() as f64;
            (mean(&study.trials[..20]), mean(&study.trials[50..]))
        });
        let (drawn, proposed) = means.fold((0.0, 0.0), |(a, b), (drawn, proposed)| (a + drawn, b + proposed));
        assert!(proposed > 0.75 * drawn, "{proposed} after, {drawn} before");
    }

    #[test]
    fn without_a_resource_it_searches_and_stops_nothing() {
        let mut study = study(None);
        train(&mut study, 60, bowl);
        assert!(study.trials.iter().all(|trial| trial.state == TrialState::Completed));
        let mean = |trials: &[Trial]| trials.iter().filter_map(|trial| trial.value).sum::<f64>() / trials.len() as f64;
        let (drawn, proposed) = (mean(&study.trials[..20]), mean(&study.trials[20..]));
        assert!(proposed > drawn + 0.1, "{proposed} after, {drawn} before");
    }

    /// These texts are stored in databases: a change here breaks the replay of every job begun before it.
    #[test]
    fn known_histories_give_known_suggestions() {
        let mut study = study(Some(Resource { min: 1, max: 9 }));
        train(&mut study, 40, bowl);
        let texts: Vec<String> = suggest(&study, 41, 3)
            .unwrap()
            .points
            .iter()
            .map(|point| study.space.format(point).into_values().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(texts, ["0.16179533056011172 12 c", "0.13703935896108366 2 c", "0.0012322794461864233 3 a"]);
    }

    fn reported(min: u32, curves: &[Vec<f64>]) -> Study {
        let mut study = study(Some(Resource { min, max: 27 }));
        study.trials = (1..)
            .zip(curves)
            .map(|(ordinal, values)| Trial {
                ordinal,
                values: vec![],
                state: TrialState::Pending,
                curve: (1..).zip(values.iter().copied()).collect(),
                value: None,
            })
            .collect();
        study
    }

    fn curves() -> impl proptest::strategy::Strategy<Value = Vec<Vec<f64>>> {
        let value = prop_oneof![8 => -1.0..1.0_f64, 1 => Just(f64::NAN), 1 => Just(f64::NEG_INFINITY)];
        prop::collection::vec(prop::collection::vec(value, 1..28), 1..30)
    }

    proptest! {
        #[test]
        fn none_is_stopped_below_the_minimum_nor_the_best_of_a_rung(min in 1..12_u32, curves in curves()) {
            let study = reported(min, &curves);
            for trial in &study.trials {
                let epoch = trial.curve.len();
                let rungs = std::iter::successors(Some(min as usize), |rung| Some(3 * rung));
                let rung = rungs.take_while(|rung| *rung <= epoch && *rung < 27).last().unwrap_or(epoch);
                let own = trial.curve[rung - 1].1;
                let reached = curves.iter().filter_map(|curve| curve.get(rung - 1));
                let best = reached.filter(|value| value.is_finite()).all(|value| own >= *value);
                if epoch < min as usize || epoch == 27 || best && own.is_finite() {
                    prop_assert_eq!(verdict(&study, trial.ordinal), Verdict::Continue, "at epoch {}", epoch);
                }
            }
        }

        #[test]
        fn a_verdict_does_not_depend_on_the_order_of_arrival(curves in curves()) {
            let study = reported(1, &curves);
            let mut other = study.clone();
            other.trials.reverse();
            for trial in &study.trials {
                prop_assert_eq!(verdict(&study, trial.ordinal), verdict(&other, trial.ordinal));
            }
        }

        #[test]
        fn a_fixed_share_of_those_at_a_rung_goes_on_and_a_larger_one_beyond_it(
            values in prop::collection::hash_set(-1_000_000..1_000_000_i32, 3..60)
        ) {
            for (epochs, times, of) in [(1, 1, 5), (2, 1, 3), (3, 1, 2), (4, 5, 6), (9, 1, 3), (26, 5, 9)] {
                let curves: Vec<Vec<f64>> = values.iter().map(|value| vec![f64::from(*value); epochs]).collect();
                let study = reported(1, &curves);
                let on = study.trials.iter().filter(|trial| verdict(&study, trial.ordinal) == Verdict::Continue).count();
                prop_assert_eq!(on, (times * curves.len()).div_ceil(of), "of {} at epoch {}", curves.len(), epochs);
            }
        }
    }

    #[test]
    fn one_that_rivals_left_behind_is_stopped_on_its_way_and_one_that_outruns_the_maximum_too() {
        let stopped_among = |rivals: &[Vec<f64>]| {
            let judged =
                |len: &usize| verdict(&reported(2, &[&[vec![-9.0; *len]], rivals].concat()), 1) == Verdict::Stop;
            (1..=28).filter(judged).collect::<Vec<usize>>()
        };
        assert_eq!(stopped_among(&[]), [28]);
        let ahead: Vec<Vec<f64>> = (0..9).map(|_| vec![0.0; 28]).collect();
        assert_eq!(stopped_among(&ahead), [2..=26, 28..=28].into_iter().flatten().collect::<Vec<_>>());
        let behind: Vec<Vec<f64>> = (0..9).map(|_| vec![0.0; 2]).collect();
        assert_eq!(stopped_among(&behind), [2, 3, 4, 5, 28], "rivals that came to the first rung only are met there");
    }

    #[test]
    fn a_trial_that_reports_now_and_then_is_judged_at_its_next_report() {
        let mut study = reported(1, &[vec![0.0; 12], vec![0.0; 12], vec![0.0; 12], vec![-1.0]]);
        study.trials[3].curve = vec![(1, 5.0), (7, -1.0)];
        assert_eq!(verdict(&study, 4), Verdict::Stop, "epoch 7 is the first at or after rung 3");
        study.trials[3].curve = vec![(1, 5.0), (3, 5.0), (7, -1.0)];
        assert_eq!(verdict(&study, 4), Verdict::Continue, "between rungs, where the loss at rung 3 counts");
    }
}
