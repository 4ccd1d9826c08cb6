//! Interruptions of training jobs on spot capacity: they go on, and wait no longer than they may.

use std::time::Duration;

use serde_json::{Value, json};
use tunesmith::app::{AppError, training_jobs};
use tunesmith::domain::outcome::ExitCause;
use tunesmith::domain::status::{SecondaryStatus, TrainingStatus, TuningStatus};

use super::world::{World, loss_is_x, request};
use crate::support::database::Engine;

const STEP: Duration = Duration::from_millis(40);

fn spot(name: &str, max_runtime_s: i64, max_wait_s: i64) -> Value {
    let mut request = request(name, 1, 1);
    request["TrainingJobDefinition"]["EnableManagedSpotTraining"] = json!(true);
    request["TrainingJobDefinition"]["StoppingCondition"] =
        json!({"MaxRuntimeInSeconds": max_runtime_s, "MaxWaitTimeInSeconds": max_wait_s});
    request
}

/// Interrupts a tuning job's one training job.
async fn interrupt(world: &World, name: &str) -> Result<(), AppError> {
    let job = world.training_jobs(name).await[0].name.clone();
    training_jobs::interrupt(&world.app, &World::scope(), &job).await
}

async fn it_runs(world: &World, name: &str) {
    let trains = async || {
        let jobs = world.training_jobs(name).await;
        jobs.first().is_some_and(|job| job.secondary == SecondaryStatus::Training)
    };
    world.until("it runs", trains).await;
}

async fn an_interrupted_job_goes_on_and_needs_no_retry_strategy(engine: Engine) {
    let lasting = |number| if number < 3 { 3_600_000 } else { 50 };
    let world = World::new(engine, move |spec| loss_is_x(spec).lasting(lasting(spec.id.number))).await;
    world.create(&spot("spot", 3600, 7200)).await;
    for starts in [1, 2] {
        world.until("it is started", async || world.sim.starts().len() == starts).await;
        it_runs(&world, "spot").await;
        interrupt(&world, "spot").await.unwrap();
    }
    let job = world.finish("spot", STEP).await;
    assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 1));
    let trained = &world.training_jobs("spot").await[0];
    let stages: Vec<_> = trained.transitions.iter().map(|transition| transition.status.as_str()).collect();
    let run = "Starting Downloading Training";
    let expected = format!("Pending {run} Interrupted {run} Interrupted {run} Uploading Completed");
    assert_eq!(stages.join(" "), expected);
    assert_eq!((trained.attempts, world.sim.starts().len()), (3, 3));
    let over = interrupt(&world, "spot").await.unwrap_err().to_string();
    assert!(over.contains("in status Completed"), "{over}");
    world.replays("spot").await;
}

async fn an_interruption_uses_up_no_retry(engine: Engine) {
    let world = World::new(engine, |spec| match spec.id.number {
        1 => loss_is_x(spec).lasting(3_600_000),
        2 => loss_is_x(spec).ending(ExitCause::Infrastructure { message: "a fault".into() }),
        _ => loss_is_x(spec),
    })
    .await;
    let mut request = spot("faulty", 3600, 7200);
    request["TrainingJobDefinition"]["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    world.create(&request).await;
    it_runs(&world, "faulty").await;
    interrupt(&world, "faulty").await.unwrap();
    let job = world.finish("faulty", STEP).await;
    assert_eq!((job.counters.completed, world.sim.starts().len()), (1, 3));
}

async fn a_job_that_waits_and_runs_too_long_is_stopped(engine: Engine) {
    let world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    world.create(&spot("late", 100, 100)).await;
    it_runs(&world, "late").await;
    world.sim.advance(Duration::from_secs(30));
    interrupt(&world, "late").await.unwrap();
    world.until("it is started again", async || world.sim.starts().len() == 2).await;
    let left = world.sim.starts()[1].max_runtime_ms;
    assert!((60_000..=70_000).contains(&left), "{left}");
    world.finish("late", Duration::from_secs(5)).await;
    let late = &world.training_jobs("late").await[0];
    assert_eq!((late.status, late.secondary), (TrainingStatus::Stopped, SecondaryStatus::MaxWaitTimeExceeded));
}

async fn a_stop_ends_a_job_whatever_interrupts_it_and_others_are_not_interrupted(engine: Engine) {
    let world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    world.create(&spot("stopped", 3600, 7200)).await;
    it_runs(&world, "stopped").await;
    let name = world.training_jobs("stopped").await[0].name.clone();
    training_jobs::stop(&world.app, &World::scope(), &name).await.unwrap();
    assert!(interrupt(&world, "stopped").await.is_err());
    world.finish("stopped", STEP).await;
    let job = &world.training_jobs("stopped").await[0];
    assert_eq!((job.secondary, world.sim.starts().len()), (SecondaryStatus::Stopped, 1));

    world.create(&request("on-demand", 1, 1)).await;
    it_runs(&world, "on-demand").await;
    let refused = interrupt(&world, "on-demand").await.unwrap_err().to_string();
    assert!(refused.contains("EnableManagedSpotTraining is not true"), "{refused}");
}

on_both_databases!(
    an_interrupted_job_goes_on_and_needs_no_retry_strategy,
    an_interruption_uses_up_no_retry,
    a_job_that_waits_and_runs_too_long_is_stopped,
    a_stop_ends_a_job_whatever_interrupts_it_and_others_are_not_interrupted,
);
