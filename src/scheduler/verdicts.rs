//! Verdicts on training jobs that run: which ones the search gives up.
//!
//! Invariant: level-triggered. What was judged is remembered in memory only, so that a restarted server judges the curves
//! again; a training job to be stopped is named in every transaction until its row says so. The study that suggests is
//! the one that was given: the curves of what runs are in it only while verdicts are asked for, off the async threads.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinError;
use uuid::Uuid;

use crate::scheduler::curves::{Curve, Curves};
use crate::search::{Study, Trial, Verdict, verdict};

/// New values of one training job that are judged one by one; of more, the last ones.
const JUDGED_SINGLY: usize = 1_000;

/// What a tuning job's loop remembers of its verdicts.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The last epoch judged, by training job.
    judged: BTreeMap<Uuid, u32>,
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

    /// Judges what came in on the training jobs that run and were not asked to stop: (id, ordinal), by ordinal. Takes
    /// the study and gives it back as it was.
    pub async fn judge(&mut self, curves: &Curves, study: Study, running: &[(Uuid, u32)]) -> Result<Study, JoinError> {
        let ids: BTreeSet<Uuid> = running.iter().map(|(id, _)| *id).collect();
        self.judged.retain(|id, _| ids.contains(id));
        self.stop.retain(|id| ids.contains(id));
        let judged = |id: &Uuid| self.judged.get(id).copied().unwrap_or(0);
        if running.iter().all(|(id, _)| curves.last_epoch(*id) <= judged(id)) {
            return Ok(study);
        }
        let live = running.iter().filter_map(|(id, ordinal)| {
            Some(Live { id: *id, ordinal: *ordinal, curve: curves.get(*id)?, judged: judged(id) })
        });
        let live: Vec<Live> = live.collect();
        for live in &live {
            self.judged.insert(live.id, live.curve.last().map_or(0, |(epoch, _)| *epoch));
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
