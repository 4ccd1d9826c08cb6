//! Verdicts on training jobs that run: which ones the search gives up.
//!
//! Invariant: level-triggered. What was judged is remembered in memory only, for as long as a training job is not over; a
//! restarted server judges the last stored value of each again and none before, for what passed a rung among few must not
//! pass it a second time among many. A training job to be stopped is named in every transaction until its row says so.
//! The study that suggests is the one that was given: the curves of what runs are in it only while verdicts are asked for,
//! off the async threads.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinError;
use uuid::Uuid;

use crate::scheduler::curves::{Curve, Curves};
use crate::search::{Study, Trial, TrialState, Verdict, verdict};

/// New values of one training job that are judged one by one; of more, the last ones.
const JUDGED_SINGLY: usize = 1_000;

/// What a tuning job's loop remembers of its verdicts.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The last epoch judged, by ordinal.
    judged: BTreeMap<u32, u32>,
    /// Training jobs to stop, until the rows say so.
    stop: BTreeSet<Uuid>,
}

/// A training job that runs.
#[derive(Debug)]
struct Live {
    id: Uuid,
    ordinal: u32,
    curve: Curve,
    judged: u32,
}

impl Verdicts {
    /// The training jobs to stop.
    pub fn stop(&self) -> &BTreeSet<Uuid> {
        &self.stop
    }

    /// Takes the stored curves of training jobs that are not over, by ordinal, as judged but for their last values; what
    /// this server itself has judged counts more.
    pub fn resume<'c>(&mut self, stored: impl Iterator<Item = (u32, &'c Curve)>) {
        for (ordinal, curve) in stored {
            if let [.., (epoch, _), _] = curve.as_slice() {
                self.judged.entry(ordinal).or_insert(*epoch);
            }
        }
    }

    /// Judges what came in on the training jobs that run and were not asked to stop: (id, ordinal), by ordinal. Takes
    /// the study and gives it back as it was.
    pub async fn judge(&mut self, curves: &Curves, study: Study, running: &[(Uuid, u32)]) -> Result<Study, JoinError> {
        let ids: BTreeSet<Uuid> = running.iter().map(|(id, _)| *id).collect();
        // Also between two attempts, when nothing of a training job runs.
        let pending: BTreeSet<u32> =
            study.trials.iter().filter(|trial| trial.state == TrialState::Pending).map(|trial| trial.ordinal).collect();
        self.judged.retain(|ordinal, _| pending.contains(ordinal));
        self.stop.retain(|id| ids.contains(id));
        let judged = |ordinal: &u32| self.judged.get(ordinal).copied().unwrap_or(0);
        if running.iter().all(|(id, ordinal)| curves.last_epoch(*id) <= judged(ordinal)) {
            return Ok(study);
        }
        let live = running.iter().filter_map(|(id, ordinal)| {
            Some(Live { id: *id, ordinal: *ordinal, curve: curves.get(*id)?, judged: judged(ordinal) })
        });
        let live: Vec<Live> = live.collect();
        for live in &live {
            let last = live.curve.last().map_or(0, |(epoch, _)| *epoch);
            let judged = self.judged.entry(live.ordinal).or_default();
            *judged = last.max(*judged);
        }
        let (study, stop) = tokio::task::spawn_blocking(move || judge_all(study, &live)).await?;
        self.stop.extend(stop);
        Ok(study)
    }
}

/// Asks for a verdict on each new value, in the order of ordinals.
fn judge_all(mut study: Study, live: &[Live]) -> (Study, Vec<Uuid>) {
    let mut stop = Vec::new();
    for live in live {
        if let Some(trial) = find(&mut study, live.ordinal) {
            trial.curve = live.curve.iter().copied().take_while(|(epoch, _)| *epoch <= live.judged).collect();
        }
    }
    for live in live {
        let news: Vec<(u32, f64)> = live.curve.iter().copied().filter(|(epoch, _)| *epoch > live.judged).collect();
        let (before, singly) = news.split_at(news.len().saturating_sub(JUDGED_SINGLY));
        if let Some(trial) = find(&mut study, live.ordinal) {
            trial.curve.extend(before);
        }
        for value in singly {
            let Some(trial) = find(&mut study, live.ordinal) else { break };
            trial.curve.push(*value);
            if verdict(&study, live.ordinal) == Verdict::Stop {
                stop.push(live.id);
                break;
            }
        }
    }
    for live in live {
        if let Some(trial) = find(&mut study, live.ordinal) {
            trial.curve.clear();
        }
    }
    (study, stop)
}

fn find(study: &mut Study, ordinal: u32) -> Option<&mut Trial> {
    let at = study.trials.binary_search_by_key(&ordinal, |trial| trial.ordinal).ok()?;
    study.trials.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::space::{Parameter, Range, Space, Value};
    use crate::domain::status::{Direction, Scaling, Strategy};
    use crate::search::Resource;

    fn trial(ordinal: u32, state: TrialState, curve: Curve) -> Trial {
        let value = curve.last().map(|(_, value)| *value).filter(|_| state == TrialState::Completed);
        Trial { ordinal, values: vec![Value::Real(f64::from(ordinal) / 100.0)], state, curve, value }
    }

    /// Forty trials that were better after one epoch and stopped there, and one that runs.
    fn study() -> Study {
        let range = Range::Continuous { min: 0.0, max: 1.0, scaling: Scaling::Linear };
        let mut trials = vec![trial(1, TrialState::Pending, Curve::new())];
        trials.extend((2..=41).map(|ordinal| trial(ordinal, TrialState::Completed, vec![(1, 1.0)])));
        Study {
            space: Space { parameters: vec![Parameter { name: "x".to_owned(), range }] },
            direction: Direction::Maximize,
            strategy: Strategy::Hyperband,
            seed: 1,
            definition: 0,
            budget: 60,
            trials,
            parents: vec![],
            warm_start: None,
            resource: Some(Resource { min: 1, max: 27 }),
            early_stopping: false,
        }
    }

    #[tokio::test]
    async fn what_has_passed_a_rung_is_not_judged_there_again_after_a_restart() {
        let (id, curves) = (Uuid::new_v4(), Curves::default());
        let long: Curve = (1..=26).map(|epoch| (epoch, 0.5)).collect();
        curves.begin(id, long.clone());
        let running = [(id, 1)];
        let mut forgetful = Verdicts::default();
        forgetful.judge(&curves, study(), &running).await.unwrap();
        assert!(forgetful.stop().contains(&id), "at its first epoch it is far behind");
        let mut resumed = Verdicts::default();
        resumed.resume([(1, &long)].into_iter());
        resumed.judge(&curves, study(), &running).await.unwrap();
        assert!(resumed.stop().is_empty());
        // Nor by a further attempt, which begins with the curve of the one before.
        resumed.judge(&curves, study(), &[]).await.unwrap();
        resumed.judge(&curves, study(), &running).await.unwrap();
        assert!(resumed.stop().is_empty());
    }
}
