//! A scheduler over a real database and a simulated executor, whose clock the test holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tunesmith::app::{App, Creation, Quotas};
use tunesmith::clock::{Calls, Clock};
use tunesmith::domain::document::Document;
use tunesmith::domain::names::Scope;
use tunesmith::domain::time::Timestamp;
use tunesmith::executor::images::{Image, Images};
use tunesmith::executor::simulated::{Script, Simulated};
use tunesmith::executor::{AttemptSpec, Executor};
use tunesmith::objects::Objects;
use tunesmith::scheduler::study::replay;
use tunesmith::scheduler::{Scheduler, SchedulerParts, UPLOAD_PATIENCE};
use tunesmith::store::rows::{TrainingJob, TuningJob};
use tunesmith::store::{StoreError, WriteClass, metrics, training_jobs, tuning_jobs};
use uuid::Uuid;

use super::faulty::{Faults, Faulty};
use crate::support::database::{Engine, TestDb};

/// How long a test waits for something that must happen.
const BOUND: Duration = Duration::from_mins(1);

pub struct World {
    pub sim: Simulated,
    pub app: App,
    pub clock: Clock,
    /// What of the executor fails.
    pub faults: Arc<Faults>,
    /// As of the next start.
    pub max_running: usize,
    /// As of the next start.
    pub upload_patience: Duration,
    pub database: TestDb,
    scheduler: Option<Scheduler>,
    server_id: Uuid,
    folder: tempfile::TempDir,
}

impl World {
    /// A running scheduler whose attempts do what `author` writes.
    pub async fn new(engine: Engine, author: impl Fn(&AttemptSpec) -> Script + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = TestDb::new(engine).await;
        let clock = Clock::manual(Timestamp(1_700_000_000_000));
        let sim = Simulated::new("simulated:1", clock.clone(), folder.path().join("sim"), author);
        let objects = Arc::new(Objects::new(folder.path().join("s3"), Vec::new()).unwrap());
        let image = Image::command("local/sim:1", ["/bin/true"]);
        let faults = Arc::<Faults>::default();
        let app = App {
            db: database.db.clone(),
            clock: clock.clone(),
            objects,
            executor: Arc::new(Faulty { sim: sim.clone(), faults: Arc::clone(&faults) }) as Arc<dyn Executor>,
            images: Arc::new(Images::new(vec![image]).unwrap()),
            calls: Calls::default(),
            creation: Creation::default(),
            quotas: Quotas::default(),
            container_pipes: false,
        };
        let mut world = Self {
            sim,
            app,
            clock,
            faults,
            max_running: 64,
            upload_patience: UPLOAD_PATIENCE,
            database,
            scheduler: None,
            server_id: Uuid::new_v4(),
            folder,
        };
        world.start();
        world
    }

    /// Starts the scheduler (again).
    pub fn start(&mut self) {
        let app = &self.app;
        self.scheduler = Some(Scheduler::start(SchedulerParts {
            server_id: self.server_id,
            db: app.db.clone(),
            clock: self.clock.clone(),
            objects: Arc::clone(&app.objects),
            executor: Arc::clone(&app.executor),
            calls: app.calls.clone(),
            max_running: self.max_running,
            upload_patience: self.upload_patience,
        }));
    }

    /// Ends the scheduler; what runs goes on.
    pub async fn stop(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.stop().await;
        }
    }

    /// The folder that stands for a bucket.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder.path().join("s3").join(name)
    }

    pub fn scope() -> Scope {
        Scope { account: "000000000000".into(), region: "us-east-1".into() }
    }

    /// Creates a tuning job from `request` through the use case.
    pub async fn create(&self, request: &Value) {
        let raw = request.to_string();
        tunesmith::app::tuning_jobs::create(&self.app, Self::scope(), Document::from(request), &raw).await.unwrap();
    }

    /// Writes nothing, often enough that a failure that was asked for and has not come yet comes now.
    pub async fn spend_failures(&self, nth: u64) {
        for _ in 0..nth {
            let _: Result<(), StoreError> =
                self.app.db.write(WriteClass::Metrics, |_| Box::pin(async { Ok(()) })).await;
        }
    }

    pub async fn tuning_job(&self, name: &str) -> TuningJob {
        let (scope, name) = (Self::scope(), name.to_owned());
        let read = self.app.db.read(move |tx| {
            Box::pin(async move { tuning_jobs::find(tx, &scope, &name).await }) as tunesmith::store::BoxFuture<'_, _>
        });
        let job: Result<Option<TuningJob>, StoreError> = read.await;
        job.unwrap().expect("the tuning job exists")
    }

    /// All training jobs of a tuning job, by ordinal.
    pub async fn training_jobs(&self, name: &str) -> Vec<TrainingJob> {
        let id = self.tuning_job(name).await.id;
        let jobs: Result<Vec<TrainingJob>, StoreError> =
            self.app.db.read(move |tx| Box::pin(training_jobs::history(tx, id))).await;
        jobs.unwrap()
    }

    /// The objective of each training job: (number in the series, value), in order.
    pub async fn curves(&self, name: &str) -> BTreeMap<Uuid, Vec<(u64, f64)>> {
        let id = self.tuning_job(name).await.id;
        self.app.db.read(move |tx| Box::pin(metrics::curves(tx, id, 0))).await.unwrap()
    }

    /// Every suggestion of a tuning job is what its recorded history gives.
    pub async fn replays(&self, name: &str) {
        let (tuning, jobs) = (self.tuning_job(name).await, self.training_jobs(name).await);
        let id = tuning.id;
        let request = self.app.db.read(move |tx| Box::pin(tuning_jobs::request(tx, id))).await.unwrap().unwrap();
        let curves = self.curves(name).await;
        for job in &jobs {
            let again = replay(&tuning, &request, &jobs, curves.clone(), job).unwrap();
            assert_eq!(again, job.tuned, "training job {}", job.ordinal);
        }
    }

    /// Looks again and again until `holds`; time stands still meanwhile.
    pub async fn until<F: AsyncFnMut() -> bool>(&self, what: &str, mut holds: F) {
        let begun = std::time::Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < BOUND, "waited in vain until {what}");
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets simulated time pass, in steps, until the tuning job is over; returns it.
    pub async fn finish(&self, name: &str, step: Duration) -> TuningJob {
        self.finish_after(name, step, async || {}).await
    }

    /// As `finish`; time goes no faster than logs are read, however busy the machine.
    pub async fn finish_followed(&self, name: &str, step: Duration) -> TuningJob {
        self.finish_after(name, step, async || {
            self.until("what attempts print is read", async || self.sim.is_all_read()).await;
        })
        .await
    }

    async fn finish_after<F: AsyncFn()>(&self, name: &str, step: Duration, each_step: F) -> TuningJob {
        let begun = std::time::Instant::now();
        loop {
            let job = self.tuning_job(name).await;
            if job.status.is_terminal() {
                return job;
            }
            assert!(begun.elapsed() < BOUND, "the tuning job does not end: {job:?}");
            assert!(self.sim.running() <= job.max_parallel as usize, "more training jobs run than MaxParallel allows");
            self.sim.advance(step);
            tokio::time::sleep(Duration::from_millis(2)).await;
            each_step().await;
        }
    }
}

/// A request over one continuous and one integer range, with `loss` to be minimised.
pub fn request(name: &str, jobs: u32, parallel: u32) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}],
                "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "1000"}]
            },
            "RandomSeed": 7
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "local/sim:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(\\S+)"}]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600}
        }
    })
}

/// A program whose loss is its `x`.
pub fn loss_is_x(spec: &AttemptSpec) -> Script {
    Script::prints(format!("loss={}", spec.hyperparameters["x"])).lasting(100)
}
