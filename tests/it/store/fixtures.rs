//! Rows to store.

use std::collections::BTreeMap;

use tunesmith::domain::names::{AttemptId, Scope};
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::domain::status::{
    AttemptState, ObjectiveStatus, SecondaryStatus, Strategy, TrainingStatus, Transition, TuningStatus,
};
use tunesmith::domain::time::Timestamp;
use tunesmith::store::rows::{
    Attempt, Definition, FinalMetric, ObjectiveCounters, TrainingCounters, TrainingJob, TuningJob,
};
use tunesmith::store::tuning_jobs::New;
use tunesmith::store::{attempts, definitions, training_jobs, tuning_jobs};
use uuid::Uuid;

use crate::support::database::TestDb;

pub fn scope() -> Scope {
    Scope { account: "000000000000".into(), region: "us-east-1".into() }
}

/// What must come back byte for byte.
pub const REQUEST: &str = "{\"Order\":1,  \"Is\":\"kept\", \"ü\":\"\\u0007\"}";

/// A running tuning job with something in every column that has a default.
pub fn tuning_job(name: &str) -> TuningJob {
    TuningJob {
        id: Uuid::new_v4(),
        scope: scope(),
        name: name.into(),
        status: TuningStatus::InProgress,
        strategy: Strategy::Random,
        seed: u64::MAX - 1,
        max_jobs: 100,
        max_parallel: 4,
        max_runtime_ms: Some(3_600_000),
        created_at: Timestamp(1_700_000_000_001),
        modified_at: Timestamp(1_700_000_000_002),
        ended_at: None,
        stop_requested_at: None,
        failure_reason: None,
        counters: TrainingCounters::default(),
        objective: ObjectiveCounters::default(),
        best: None,
        observed: 0,
        inserted: 0,
        not_improving: 0,
        exhausted: false,
        lease_owner: None,
        lease_epoch: 0,
    }
}

/// A training job; of `tuning` where given.
pub fn training_job(tuning: Option<&TuningJob>, ordinal: u32, name: &str) -> TrainingJob {
    TrainingJob {
        id: Uuid::new_v4(),
        scope: scope(),
        name: name.into(),
        tuning_job_id: tuning.map(|tuning| tuning.id),
        definition_id: tuning.map_or_else(Uuid::new_v4, |tuning| tuning.id),
        ordinal,
        watermark: 3,
        pending: vec![5, 6],
        tuned: BTreeMap::from([("rate".into(), "0.1".into()), ("kind \"x\"".into(), "ü".into())]),
        status: TrainingStatus::InProgress,
        secondary: SecondaryStatus::Pending,
        transitions: vec![Transition {
            status: SecondaryStatus::Pending,
            start: Timestamp(7),
            end: None,
            message: "Waiting".into(),
        }],
        failure_reason: None,
        created_at: Timestamp(1_700_000_000_003),
        modified_at: Timestamp(1_700_000_000_004),
        started_at: None,
        ended_at: None,
        stop_requested_at: None,
        stopped_early: false,
        objective_status: ObjectiveStatus::Pending,
        objective_value: None,
        final_metrics: vec![],
        model_artifacts: None,
        attempts: 1,
        observation: None,
    }
}

/// The job at its end, every column set.
pub fn finished(job: &TrainingJob) -> TrainingJob {
    TrainingJob {
        status: TrainingStatus::Completed,
        secondary: SecondaryStatus::Completed,
        transitions: vec![],
        failure_reason: Some("a remark".into()),
        modified_at: Timestamp(20),
        started_at: Some(Timestamp(10)),
        ended_at: Some(Timestamp(20)),
        stop_requested_at: Some(Timestamp(15)),
        objective_status: ObjectiveStatus::Succeeded,
        objective_value: Some(-0.1 + 1e-17),
        final_metrics: vec![FinalMetric { name: "loss".into(), value: 1.0 / 3.0, time: Timestamp(19) }],
        model_artifacts: Some("s3://b/m.tar.gz".into()),
        attempts: 2,
        observation: Some(1),
        ..job.clone()
    }
}

/// The configuration of every tuning job here.
pub const CONFIG: &str = "{\"Strategy\": \"Random\"}";

pub fn definition(id: Uuid) -> Definition {
    Definition { id, tuning_job_name: Some("tune".into()), document: "{\"a\": 1}".into(), objective: Some("{}".into()) }
}

pub fn attempt(job: &TrainingJob, number: u32) -> Attempt {
    Attempt {
        id: AttemptId { training_job: job.id, number },
        executor_id: "here".into(),
        state: AttemptState::Inserted,
        stop_requested: false,
        exit: None,
        inserted_at: Timestamp(100 + i64::from(number)),
    }
}

pub fn exit() -> Exit {
    Exit {
        started_at: Some(Timestamp(1)),
        ended_at: Timestamp(2),
        cause: ExitCause::Exited { code: 3 },
        failure: Some("it \"broke\" with \u{0}".into()),
        stderr_tail: "tail\u{0}".into(),
        remark: None,
    }
}

impl TestDb {
    /// Stores a tuning job and its definition.
    pub async fn put(&self, job: &TuningJob) {
        let job = job.clone();
        self.write(move |tx| {
            let job = job.clone();
            Box::pin(async move {
                let new = New { job: &job, request: REQUEST, config: CONFIG, definition: &definition(job.id) };
                tuning_jobs::insert(tx, &[new], u32::MAX).await?.pop().unwrap()?;
                tuning_jobs::update(tx, &job).await
            })
        })
        .await
        .unwrap();
    }

    /// Stores training jobs, with a definition where they have no tuning job.
    pub async fn put_training(&self, jobs: &[TrainingJob]) {
        let jobs = jobs.to_vec();
        self.write(move |tx| {
            let jobs = jobs.clone();
            Box::pin(async move {
                for job in jobs.iter().filter(|job| job.tuning_job_id.is_none()) {
                    definitions::insert(tx, &definition(job.definition_id)).await?;
                }
                assert_eq!(training_jobs::insert(tx, &jobs).await?.len(), jobs.len(), "names that are free");
                Ok(())
            })
        })
        .await
        .unwrap();
    }

    /// Stores a training job of its own with its first attempt.
    pub async fn put_attempt(&self, name: &str) -> (TrainingJob, AttemptId) {
        let job = training_job(None, 1, name);
        self.put_training(std::slice::from_ref(&job)).await;
        let first = attempt(&job, 1);
        let id = first.id;
        self.write(move |tx| {
            let first = first.clone();
            Box::pin(async move { attempts::insert(tx, &[first]).await })
        })
        .await
        .unwrap();
        (job, id)
    }

    pub async fn tuning(&self, id: Uuid) -> Option<TuningJob> {
        self.read(move |tx| Box::pin(tuning_jobs::get(tx, id))).await.unwrap()
    }

    pub async fn training(&self, id: Uuid) -> Option<TrainingJob> {
        self.read(move |tx| Box::pin(training_jobs::get(tx, id))).await.unwrap()
    }
}
