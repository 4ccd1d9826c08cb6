//! Training jobs that the search gives up: by Hyperband, and by the median rule.

use std::time::Duration;

use serde_json::{Value, json};
use tunesmith::domain::names::AttemptId;
use tunesmith::domain::status::{ObjectiveStatus, SecondaryStatus, TrainingStatus, TuningStatus};
use tunesmith::executor::AttemptSpec;
use tunesmith::executor::simulated::Script;
use tunesmith::store::{StoreError, attempts, training_jobs, tuning_jobs};

use super::world::{World, request};
use crate::support::database::Engine;

const STEP: Duration = Duration::from_millis(40);
const EPOCH_MS: i64 = 100;

/// A program that prints a loss every epoch, and lasts as long as that takes.
fn prints_losses(losses: impl IntoIterator<Item = f64>) -> Script {
    let lines: Vec<(i64, String)> =
        (1..).zip(losses).map(|(epoch, loss)| (epoch * EPOCH_MS, format!("loss={loss}"))).collect();
    let duration_ms = lines.last().map_or(0, |(at, _)| at + EPOCH_MS);
    Script { lines, ..Script::prints("").lasting(duration_ms) }
}

/// Nine epochs on the way down to `x`.
fn converges_to_x(spec: &AttemptSpec) -> Script {
    let x: f64 = spec.hyperparameters["x"].parse().unwrap();
    prints_losses((1..=9).map(move |epoch| x + 1.0 / f64::from(epoch)))
}

fn hyperband(name: &str, jobs: u32, parallel: u32) -> Value {
    let mut request = request(name, jobs, parallel);
    request["HyperParameterTuningJobConfig"]["Strategy"] = json!("Hyperband");
    request["TrainingJobDefinition"]["StaticHyperParameters"] = json!({"epochs": "9"});
    request
}

fn median_rule(name: &str, jobs: u32, parallel: u32) -> Value {
    let mut request = request(name, jobs, parallel);
    request["HyperParameterTuningJobConfig"]["TrainingJobEarlyStoppingType"] = json!("Auto");
    request
}

/// Runs a tuning job to its end and checks what must be true of it, whichever rule stops its training jobs.
async fn stops_the_worse_ones(engine: Engine, request: Value, first_verdict: usize) {
    let world = World::new(engine, converges_to_x).await;
    world.create(&request).await;
    let name = request["HyperParameterTuningJobName"].as_str().unwrap();
    let tuning = world.finish_followed(name, STEP).await;
    let (jobs, curves) = (world.training_jobs(name).await, world.curves(name).await);
    let stopped: Vec<_> = jobs.iter().filter(|job| job.status == TrainingStatus::Stopped).collect();
    let n = u32::try_from(jobs.len()).unwrap();
    assert_eq!(tuning.status, TuningStatus::Completed);
    // How many depends on how soon each verdict reaches its training job.
    assert!(!stopped.is_empty(), "none of {n} was stopped");
    let counters = tuning.counters;
    assert_eq!((counters.stopped as usize, counters.completed), (stopped.len(), n - counters.stopped));
    assert_eq!((tuning.objective.succeeded, tuning.objective.failed), (n, 0));
    for job in &stopped {
        assert!(job.stopped_early);
        assert_eq!((job.secondary, job.objective_status), (SecondaryStatus::Stopped, ObjectiveStatus::Succeeded));
        assert!(job.transitions.iter().any(|t| t.message.contains("early")), "{:?}", job.transitions);
        let curve = &curves[&job.id];
        assert!((first_verdict..9).contains(&curve.len()), "it had {} epochs", curve.len());
        assert_eq!(job.objective_value, curve.last().map(|(_, value)| *value));
        assert!(job.failure_reason.is_none() && job.model_artifacts.is_some());
    }
    let value = |job: &tunesmith::store::rows::TrainingJob| job.objective_value.unwrap();
    let best = jobs.iter().min_by(|a, b| value(a).total_cmp(&value(b))).unwrap();
    assert_eq!(tuning.best, Some((best.id, value(best))));
    let lowest_x = jobs.iter().map(|job| job.tuned["x"].parse::<f64>().unwrap()).min_by(f64::total_cmp);
    assert_eq!(best.tuned["x"].parse::<f64>().ok(), lowest_x, "the best configuration was not stopped");
    world.replays(name).await;
}

async fn hyperband_stops_what_falls_behind(engine: Engine) {
    stops_the_worse_ones(engine, hyperband("rungs", 24, 4), 1).await;
}

async fn the_median_rule_stops_what_is_worse_than_usual(engine: Engine) {
    stops_the_worse_ones(engine, median_rule("median", 24, 3), 4).await;
}

/// Three training jobs, each better than the one before, then one that prints `loss` for nine epochs and stays.
fn the_fourth_stays(loss: f64) -> impl Fn(&AttemptSpec) -> Script + Send + Sync + 'static {
    move |spec| match (1..=4).find(|n| spec.training_job_name.contains(&format!("-00{n}-"))) {
        Some(4) => prints_losses([loss; 9]).lasting(3_600_000),
        Some(n) => prints_losses([4.0 - f64::from(n); 9]),
        None => Script::prints("loss=9"),
    }
}

/// Lets time pass until the fourth training job has been started and has printed nothing.
async fn until_the_fourth_starts(world: &World) {
    world
        .until("the fourth runs", async || {
            let started = world.sim.starts().len();
            if started < 4 {
                world.sim.advance(STEP);
            }
            started == 4
        })
        .await;
}

async fn a_verdict_lost_in_a_crash_is_found_again(engine: Engine) {
    let mut world = World::new(engine, the_fourth_stays(8.0)).await;
    world.create(&hyperband("again", 4, 1)).await;
    until_the_fourth_starts(&world).await;
    world.stop().await;
    world.sim.advance(Duration::from_secs(1));
    world.start();
    let tuning = world.finish("again", STEP).await;
    let fourth = &world.training_jobs("again").await[3];
    assert_eq!((fourth.status, fourth.objective_value), (TrainingStatus::Stopped, Some(8.0)));
    assert!(fourth.stopped_early);
    assert_eq!((tuning.counters.completed, tuning.counters.stopped, world.sim.starts().len()), (3, 1, 4));
    world.replays("again").await;
}

/// The fourth is the best by far, so that nothing but the committed intent stops it.
async fn a_crash_between_the_verdict_and_the_stop_stops_it_all_the_same(engine: Engine) {
    let mut world = World::new(engine, the_fourth_stays(0.25)).await;
    world.create(&hyperband("intent", 4, 1)).await;
    until_the_fourth_starts(&world).await;
    world.stop().await;
    let (fourth, now) = (world.training_jobs("intent").await[3].id, world.clock.now());
    let tuning_job = world.tuning_job("intent").await.id;
    let intent = world.app.db.write(tunesmith::store::WriteClass::Scheduling, move |tx| {
        Box::pin(async move {
            tuning_jobs::lock(tx, tuning_job).await?;
            let mut job = training_jobs::lock(tx, fourth).await?.unwrap();
            job.stop_early(now);
            training_jobs::update(tx, &[&job]).await?;
            attempts::request_stop(tx, &[AttemptId { training_job: fourth, number: 1 }]).await?;
            Ok::<_, StoreError>(())
        })
    });
    intent.await.unwrap();
    world.sim.advance(Duration::from_secs(1));
    world.start();
    let tuning = world.finish("intent", STEP).await;
    let job = &world.training_jobs("intent").await[3];
    assert_eq!((job.status, job.objective_status), (TrainingStatus::Stopped, ObjectiveStatus::Succeeded));
    // Its last value counts, and it may be the best.
    assert_eq!(tuning.best, Some((fourth, 0.25)));
    assert_eq!((tuning.counters.stopped, tuning.objective.succeeded, world.sim.starts().len()), (1, 4, 4));
    world.replays("intent").await;
}

async fn a_user_who_stops_a_training_job_does_not_make_it_the_best(engine: Engine) {
    let world = World::new(engine, the_fourth_stays(0.25)).await;
    world.create(&hyperband("user", 4, 1)).await;
    until_the_fourth_starts(&world).await;
    world.sim.advance(Duration::from_secs(1));
    let name = world.training_jobs("user").await[3].name.clone();
    tunesmith::app::training_jobs::stop(&world.app, &World::scope(), &name).await.unwrap();
    let tuning = world.finish("user", STEP).await;
    assert_eq!(tuning.best.map(|(_, value)| value), Some(1.0));
}

async fn epochs_go_on_across_a_retry(engine: Engine) {
    let world = World::new(engine, |spec| match spec.id.number {
        1 => prints_losses([3.0, f64::NAN, 2.0]).lasting(3_600_000),
        _ => prints_losses([1.5, 1.0]),
    })
    .await;
    let mut retried = hyperband("retried", 1, 1);
    retried["TrainingJobDefinition"]["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    world.create(&retried).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    world.sim.advance(Duration::from_secs(1));
    world.sim.lose(AttemptId { training_job: world.sim.starts()[0].id.training_job, number: 1 });
    world.finish("retried", STEP).await;
    let only = &world.training_jobs("retried").await[0];
    assert_eq!((only.status, only.attempts), (TrainingStatus::Completed, 2));
    // The second value was no number: it is an epoch all the same.
    assert_eq!(world.curves("retried").await[&only.id], [(0, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]);
}

async fn what_has_ended_by_itself_is_not_stopped(engine: Engine) {
    let world = World::new(engine, |spec| {
        let fourth = spec.training_job_name.contains("-004-");
        if fourth { prints_losses([8.0]).lasting(EPOCH_MS) } else { the_fourth_stays(8.0)(spec) }
    })
    .await;
    world.create(&hyperband("ended", 4, 1)).await;
    let tuning = world.finish("ended", STEP).await;
    let fourth = &world.training_jobs("ended").await[3];
    assert_eq!((fourth.status, fourth.stopped_early), (TrainingStatus::Completed, false));
    assert_eq!((tuning.counters.completed, tuning.best.map(|(_, value)| value)), (4, Some(1.0)));
}

async fn a_value_that_is_no_number_falls_behind(engine: Engine) {
    let world = World::new(engine, the_fourth_stays(f64::NAN)).await;
    world.create(&hyperband("diverged", 4, 1)).await;
    let tuning = world.finish("diverged", STEP).await;
    let fourth = &world.training_jobs("diverged").await[3];
    assert!(fourth.stopped_early, "{fourth:?}");
    assert_eq!((fourth.status, fourth.objective_status), (TrainingStatus::Stopped, ObjectiveStatus::Failed));
    assert_eq!((tuning.status, tuning.counters.stopped), (TuningStatus::Completed, 1));
}

on_both_databases! {
    hyperband_stops_what_falls_behind,
    the_median_rule_stops_what_is_worse_than_usual,
    a_verdict_lost_in_a_crash_is_found_again,
    a_crash_between_the_verdict_and_the_stop_stops_it_all_the_same,
    a_user_who_stops_a_training_job_does_not_make_it_the_best,
    epochs_go_on_across_a_retry,
    what_has_ended_by_itself_is_not_stopped,
    a_value_that_is_no_number_falls_behind,
}
