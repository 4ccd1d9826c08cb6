//! The loop of one tuning job, run by the server that holds its lease.
//!
//! Invariant: the study in memory equals the rows; where a transaction turns out otherwise than foreseen, or fails, the
//! memory is thrown away and read again. Suggestions are made here, off the async threads and outside transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock::Wake;
use crate::domain::decide::{CountedAs, TrainingStep, TuningStep, TuningView, decide_training, decide_tuning};
use crate::domain::names::AttemptId;
use crate::domain::status::{Direction, Strategy};
use crate::scheduler::curves::Curve;
use crate::scheduler::report::Report;
use crate::scheduler::settle::{self, Plan, Settled, settle};
use crate::scheduler::spec::{ReadDefinition, Tries};
use crate::scheduler::study::{self, StudyError};
use crate::scheduler::verdicts::Verdicts;
use crate::scheduler::{Inner, SchedulerError};
use crate::search::{Study, TrialState, suggest};
use crate::store::rows::{Attempt, TrainingJob, TuningJob};
use crate::store::{StoreError, WriteClass, definitions, metrics, training_jobs, tuning_jobs};

/// The timer that wakes the loop whatever happens.
const TICK: Duration = Duration::from_secs(1);

/// How long to wait after an error.
const BACKOFF: Duration = Duration::from_millis(500);

/// One tuning job's loop.
#[derive(Debug)]
pub struct TuningLoop {
    pub(super) inner: Arc<Inner>,
    pub(super) id: Uuid,
    pub(super) epoch: i64,
    pub(super) mailbox: mpsc::UnboundedReceiver<Arc<Report>>,
    pub(super) wake: Wake,
    pub(super) progress: Wake,
}

/// Ends of attempts that are not in the rows yet; one for each, however often it was reported.
type Reports = BTreeMap<AttemptId, Arc<Report>>;

/// What the loop remembers between transactions.
#[derive(Debug)]
struct Memory {
    job: TuningJob,
    definition: ReadDefinition,
    study: Study,
    live: BTreeMap<Uuid, (TrainingJob, Option<Attempt>)>,
}

/// What the loop keeps from pass to pass.
#[derive(Debug, Default)]
struct State {
    memory: Option<Memory>,
    reports: Reports,
    verdicts: Verdicts,
}

/// How much a pass does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Everything.
    Full,
    /// New values came in: judge them, and go on only where something is to be stopped.
    Verdicts,
}

/// What the loop does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Again,
    Over,
}

impl TuningLoop {
    /// Runs until the tuning job is over, the lease is lost, or the scheduler ends.
    pub async fn run(mut self) {
        let mut state = State::default();
        let (mut due, mut pass) = (Instant::now(), Pass::Full);
        while !self.inner.stopping.is_cancelled() {
            let mut outcome = self.tick(&mut state, pass).await;
            if let Err(error) = &outcome
                && error.is_permanent()
            {
                tracing::error!(tuning_job = %self.id, error = crate::telemetry::chain(error), "a tuning job can't go on");
                outcome = self.give_up(&mut state.reports, error).await;
            }
            match outcome {
                Ok(Next::Again) => {
                    pass = Pass::Full;
                    continue;
                }
                Ok(Next::Over) => {
                    if let Err(error) = self.inner.parts.objects.unpin(self.id) {
                        tracing::warn!(tuning_job = %self.id, error = crate::telemetry::chain(&error), "its channels' listings stay");
                    }
                    return;
                }
                Ok(Next::Wait) if pass == Pass::Verdicts => {}
                Ok(Next::Wait) => due = Instant::now() + TICK,
                Err(SchedulerError::Store(StoreError::LeaseLost { .. })) => {
                    tracing::warn!(tuning_job = %self.id, "another server took this tuning job over");
                    return;
                }
                Err(error) => {
                    tracing::error!(tuning_job = %self.id, error = crate::telemetry::chain(&error), "a scheduling step failed");
                    state.memory = None;
                    due = Instant::now() + BACKOFF;
                }
            }
            pass = self.wait(due, &mut state.reports).await;
        }
    }

    /// Waits for something to do, until `due` at most, and says what.
    async fn wait(&mut self, due: Instant, reports: &mut Reports) -> Pass {
        let wait = due.saturating_duration_since(Instant::now());
        let mut pass = Pass::Full;
        tokio::select! {
            report = self.mailbox.recv() => reports.extend(report.map(|report| (report.attempt, report))),
            () = self.wake.wait(wait) => {}
            () = self.progress.wait(wait) => pass = Pass::Verdicts,
            () = self.inner.stopping.cancelled() => {}
        }
        while let Ok(report) = self.mailbox.try_recv() {
            reports.insert(report.attempt, report);
        }
        if reports.is_empty() && Instant::now() < due { pass } else { Pass::Full }
    }

    /// One pass: judge, foresee, suggest, settle, remember.
    async fn tick(&self, state: &mut State, pass: Pass) -> Result<Next, SchedulerError> {
        if !self.inner.standing.holds() {
            return Ok(Next::Wait);
        }
        let mut known = match state.memory.take() {
            Some(known) => known,
            None if pass == Pass::Verdicts => return Ok(Next::Wait),
            None => match self.load().await? {
                Some((loaded, stored)) => {
                    let live = loaded.live.values().map(|(job, _)| job);
                    state.verdicts.resume(live.filter_map(|job| Some((job.ordinal, stored.get(&job.id)?))));
                    loaded
                }
                None => return Ok(Next::Over),
            },
        };
        if study::stops_early(&known.study) {
            let running = known.running(&state.reports);
            let judged = state.verdicts.judge(&self.inner.curves, known.study, &running).await;
            known.study = judged.map_err(SchedulerError::SearchPanicked)?;
        }
        if pass == Pass::Verdicts && state.verdicts.stop().is_empty() {
            state.memory = Some(known);
            return Ok(Next::Wait);
        }
        let foreseen = known.foresee(&state.reports);
        let plan = if foreseen.wanted > 0 {
            let (study, plan) = plan(&self.inner, known.study, &foreseen).await?;
            known.study = study;
            Some(plan)
        } else {
            None
        };
        let mut input = self.input(&state.reports);
        input.stop_early.clone_from(state.verdicts.stop());
        input.plan = plan;
        input.direction = Some(known.direction());
        input.tries = known.definition.tries();
        let settled = self.settle(input).await?;
        state.reports.clear();
        let Some(settled) = settled else { return Ok(Next::Over) };
        if settle::is_over(&settled) {
            return Ok(Next::Over);
        }
        let again = settled.wants_plan;
        state.memory = known.after(settled, &foreseen.ended);
        Ok(if again { Next::Again } else { Next::Wait })
    }

    /// Ends a tuning job whose rows no version of this program can search: what runs is stopped, and it fails.
    async fn give_up(&self, reports: &mut Reports, error: &SchedulerError) -> Result<Next, SchedulerError> {
        let mut input = self.input(reports);
        input.broken = Some(format!("InternalServerError: {}", crate::telemetry::chain(error)));
        let settled = self.settle(input).await?;
        reports.clear();
        Ok(if settled.as_ref().is_none_or(settle::is_over) { Next::Over } else { Next::Wait })
    }

    /// A transaction's input without a plan.
    fn input(&self, reports: &Reports) -> settle::Input {
        settle::Input {
            tuning_job: self.id,
            server: self.inner.standing.server(),
            epoch: self.epoch,
            now: self.inner.parts.clock.now(),
            reports: reports.values().cloned().collect(),
            stop_early: BTreeSet::new(),
            plan: None,
            direction: None,
            tries: Tries { max_attempts: 1, spot: false, max_wait_ms: None },
            executor_id: self.inner.parts.executor.id().to_owned(),
            broken: None,
        }
    }

    async fn settle(&self, input: settle::Input) -> Result<Option<Settled>, StoreError> {
        let input = Arc::new(input);
        let writing = self.inner.parts.db.write(WriteClass::Scheduling, move |tx| {
            let input = Arc::clone(&input);
            Box::pin(async move { settle(tx, &input).await })
        });
        let settled = writing.await?;
        if let Some(settled) = &settled {
            if settled.wake_executor {
                self.inner.agent.wake();
            }
            if settle::is_over(settled) {
                tracing::info!(tuning_job = settled.job.name, status = %settled.job.status, "tuning job over");
            }
        }
        Ok(settled)
    }

    /// Reads the job and its whole history; of what is not over, the stored curves beside it.
    async fn load(&self) -> Result<Option<(Memory, BTreeMap<Uuid, Curve>)>, SchedulerError> {
        let id = self.id;
        let rows = self
            .inner
            .parts
            .db
            .read_for_scheduling(move |tx| {
                Box::pin(async move {
                    let Some(job) = tuning_jobs::get(tx, id).await? else { return Ok::<_, StoreError>(None) };
                    let Some(request) = tuning_jobs::request(tx, id).await? else { return Ok(None) };
                    let definition = definitions::get(tx, job.id).await?;
                    let history = training_jobs::history(tx, id).await?;
                    let live = training_jobs::live(tx, id).await?;
                    Ok(Some((job, request, definition, history, live)))
                })
            })
            .await?;
        let Some((job, request, definition, history, live)) = rows else { return Ok(None) };
        let definition = definition.ok_or(SchedulerError::DefinitionMissing { tuning_job: id })?;
        let definition = ReadDefinition::read(&definition).map_err(|source| SchedulerError::Definition { source })?;
        let mut study = study::empty(&job, &study::request(&job, &request)?)?;
        let mut curves = self.curves(&study, &definition).await?;
        for row in &history {
            let is_over = row.observation.is_some();
            let curve = if is_over { curves.remove(&row.id).unwrap_or_default() } else { Curve::new() };
            study.trials.push(study::trial(&study.space, row, curve)?);
        }
        let live = live.into_iter().map(|(row, attempt)| (row.id, (row, attempt))).collect();
        Ok(Some((Memory { job, definition, study, live }, curves)))
    }

    /// Reads the curves of the history, where the study has any.
    async fn curves(&self, study: &Study, definition: &ReadDefinition) -> Result<BTreeMap<Uuid, Curve>, StoreError> {
        let objective = definition.objective_index().and_then(|at| u32::try_from(at).ok());
        let Some(objective) = objective.filter(|_| study::stops_early(study)) else { return Ok(BTreeMap::new()) };
        let id = self.id;
        let reading = self.inner.parts.db.glance_for_scheduling(move |tx| Box::pin(metrics::curves(tx, id, objective)));
        Ok(study::curves(study, reading.await?))
    }
}

/// What a transaction is expected to find.
#[derive(Debug)]
struct Foreseen {
    /// Training jobs that it will end.
    ended: Vec<Uuid>,
    /// The tuning job's `observed` then.
    watermark: u32,
    /// The ordinals then pending.
    pending: Vec<u32>,
    /// The next ordinal.
    first: u32,
    /// How many suggestions it will have room for.
    wanted: u32,
}

impl Memory {
    fn direction(&self) -> Direction {
        self.study.direction
    }

    /// What runs and may be judged: (id, ordinal), by ordinal.
    fn running(&self, reports: &Reports) -> Vec<(Uuid, u32)> {
        let over = |job: &TrainingJob| reports.values().any(|report| report.attempt.training_job == job.id);
        let running = self.live.values().filter(|(job, attempt)| {
            let runs = attempt.as_ref().is_some_and(|attempt| attempt.exit.is_none());
            runs && job.stop_requested_at.is_none() && !over(job)
        });
        let mut running: Vec<(Uuid, u32)> = running.map(|(job, _)| (job.id, job.ordinal)).collect();
        running.sort_by_key(|(_, ordinal)| *ordinal);
        running
    }

    /// Applies reports to the study, and foresees what the transaction will decide from them.
    fn foresee(&mut self, reports: &Reports) -> Foreseen {
        let mut ended = Vec::new();
        let (mut succeeded, mut failed) = (self.job.counters.completed > 0 || self.job.best.is_some(), 0);
        failed += self.job.counters.retryable_error + self.job.counters.non_retryable_error;
        for report in reports.values() {
            let Some((job, Some(attempt))) = self.live.get(&report.attempt.training_job) else { continue };
            if attempt.id != report.attempt {
                continue;
            }
            let view = self.definition.tries().view(job, Some(attempt), Some(&report.exit), report.exit.ended_at);
            if let Some(TrainingStep::End(ending)) = decide_training(&view) {
                if let Ok(at) = self.study.trials.binary_search_by_key(&job.ordinal, |t| t.ordinal) {
                    let trial = &mut self.study.trials[at];
                    study::conclude(trial, ending.status, report.objective, report.curve.clone());
                }
                succeeded |= match ending.counted_as {
                    CountedAs::Completed => true,
                    _ => job.stopped_early && report.objective.1.is_some(),
                };
                failed += u32::from(ending.status == crate::domain::status::TrainingStatus::Failed);
                ended.push(job.id);
            }
        }
        let pending: Vec<u32> =
            self.study.trials.iter().filter(|t| t.state == TrialState::Pending).map(|t| t.ordinal).collect();
        let next = decide_tuning(&TuningView {
            status: self.job.status,
            // The runtime budget is the transaction's to judge; a plan made in vain is only dropped.
            now: self.job.created_at,
            created_at: self.job.created_at,
            max_runtime_ms: self.job.max_runtime_ms,
            max_jobs: self.job.max_jobs,
            max_parallel: self.job.max_parallel,
            inserted: self.job.inserted,
            live: u32::try_from(pending.len()).unwrap_or(u32::MAX),
            succeeded,
            failed,
            exhausted: self.job.exhausted,
        });
        let wanted = if let Some(TuningStep::Insert { at_most }) = next { at_most } else { 0 };
        let watermark = self.job.observed + u32::try_from(ended.len()).unwrap_or(u32::MAX);
        Foreseen { ended, watermark, pending, first: self.job.inserted + 1, wanted }
    }

    /// The memory after a transaction; none where it turned out otherwise than foreseen.
    fn after(mut self, settled: Settled, foreseen: &[Uuid]) -> Option<Self> {
        let as_foreseen =
            settled.ended.len() == foreseen.len() && settled.ended.iter().all(|j| foreseen.contains(&j.id));
        if !as_foreseen {
            return None;
        }
        let mut attempts: BTreeMap<Uuid, Attempt> =
            settled.attempts.into_iter().map(|a| (a.id.training_job, a)).collect();
        let known = self.job.inserted;
        for job in settled.live.iter().filter(|job| job.ordinal > known) {
            self.study.trials.push(study::trial(&self.study.space, job, Curve::new()).ok()?);
        }
        self.live = settled.live.into_iter().map(|job| (job.id, (job.clone(), attempts.remove(&job.id)))).collect();
        self.job = settled.job;
        Some(self)
    }
}

/// Makes the suggestions off the async threads; takes the study and gives it back.
async fn plan(inner: &Inner, study: Study, foreseen: &Foreseen) -> Result<(Study, Plan), SchedulerError> {
    let (first, wanted) = (foreseen.first, foreseen.wanted);
    // What takes no time need not wait for what does.
    let at_once = matches!(study.strategy, Strategy::Random | Strategy::Grid);
    let _permit = if at_once { None } else { inner.thinking.acquire().await.ok() };
    let (study, suggested) = tokio::task::spawn_blocking(move || {
        let suggested = suggest(&study, first, wanted);
        (study, suggested)
    })
    .await
    .map_err(SchedulerError::SearchPanicked)?;
    let suggested = suggested.map_err(StudyError::from)?;
    let plan = Plan {
        watermark: foreseen.watermark,
        pending: foreseen.pending.clone(),
        first,
        points: suggested.points.iter().map(|values| study.space.format(values)).collect(),
        exhausted: suggested.exhausted,
    };
    Ok((study, plan))
}
