//! What a tuning job does from Create to its end.

use std::time::Duration;

use serde_json::json;
use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::ExitCause;
use tunesmith::domain::status::{ObjectiveStatus, SecondaryStatus, TrainingStatus, TuningStatus};
use tunesmith::executor::simulated::Script;
use tunesmith::store::failpoint::Moment;

use super::world::{World, loss_is_x, request};
use crate::support::database::Engine;

const STEP: Duration = Duration::from_millis(40);

async fn spends_its_budget_exactly_and_finds_the_best(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    world.create(&request("exact", 20, 3)).await;
    let job = world.finish("exact", STEP).await;
    assert_eq!(job.status, TuningStatus::Completed);
    assert_eq!((job.counters.completed, job.objective.succeeded, job.counters.in_progress), (20, 20, 0));
    assert_eq!(world.sim.starts().len(), 20);
    let jobs = world.training_jobs("exact").await;
    assert_eq!(jobs.iter().map(|j| j.ordinal).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    let best = jobs.iter().min_by(|a, b| a.objective_value.unwrap().total_cmp(&b.objective_value.unwrap())).unwrap();
    assert_eq!(job.best, Some((best.id, best.objective_value.unwrap())));
    assert_eq!(best.objective_value.unwrap().to_string(), best.tuned["x"].parse::<f64>().unwrap().to_string());
    assert!(best.model_artifacts.as_deref().unwrap().ends_with("/output/model.tar.gz"));
    let shown: Vec<_> = best.transitions.iter().map(|t| t.status).collect();
    assert_eq!(shown.first(), Some(&SecondaryStatus::Pending));
    assert_eq!(shown.last(), Some(&SecondaryStatus::Completed));
    assert!(shown.contains(&SecondaryStatus::Training) && shown.contains(&SecondaryStatus::Uploading));
}

async fn every_suggestion_replays_from_its_recorded_history(engine: Engine) {
    let world =
        World::new(engine, |spec| loss_is_x(spec).lasting(spec.hyperparameters["depth"].parse().unwrap())).await;
    world.create(&request("replay", 30, 5)).await;
    world.finish("replay", STEP).await;
    assert_eq!(world.training_jobs("replay").await.len(), 30);
    world.replays("replay").await;
}

async fn a_job_without_its_objective_completes_and_the_search_goes_on(engine: Engine) {
    let world = World::new(engine, |spec| match spec.hyperparameters["depth"].parse::<u32>().unwrap() % 2 {
        0 => Script::prints("nothing to see"),
        _ => Script::prints("loss=nan"),
    })
    .await;
    world.create(&request("silent", 7, 2)).await;
    let job = world.finish("silent", STEP).await;
    assert_eq!(job.status, TuningStatus::Completed);
    assert_eq!((job.counters.completed, job.objective.failed, job.best), (7, 7, None));
    let jobs = world.training_jobs("silent").await;
    let silent = jobs.iter().find(|j| j.tuned["depth"].parse::<u32>().unwrap() % 2 == 0).unwrap();
    let message = &silent.transitions.last().unwrap().message;
    assert!(message.contains("loss") && message.contains(r"loss=(\S+)"), "{message}");
    assert!(jobs.iter().all(|j| j.objective_status == ObjectiveStatus::Failed));
}

async fn gives_up_after_five_failures_and_no_success(engine: Engine) {
    let world = World::new(engine, |_| Script::prints("boom").lasting(50).ending(ExitCause::Exited { code: 3 })).await;
    world.create(&request("hopeless", 100, 4)).await;
    let job = world.finish("hopeless", STEP).await;
    assert_eq!(job.status, TuningStatus::Failed);
    assert!(job.failure_reason.unwrap().starts_with("No training job succeeded after 5 attempts."));
    assert!((5..=8).contains(&job.counters.non_retryable_error), "{:?}", job.counters);
    let failed = &world.training_jobs("hopeless").await[0];
    assert!(failed.failure_reason.as_deref().unwrap().ends_with("exit code: 3"));
}

async fn stop_starts_nothing_more_and_ends_what_runs(engine: Engine) {
    let world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    world.create(&request("halted", 50, 4)).await;
    world.until("four run", async || world.sim.running() == 4).await;
    tunesmith::app::tuning_jobs::stop(&world.app, &World::scope(), "halted").await.unwrap();
    let job = world.finish("halted", STEP).await;
    assert_eq!(job.status, TuningStatus::Stopped);
    assert_eq!((job.counters.stopped, world.sim.starts().len()), (4, 4));
    assert!(world.training_jobs("halted").await.iter().all(|j| j.status == TrainingStatus::Stopped));
}

async fn a_stopped_training_job_frees_its_slot_for_the_next(engine: Engine) {
    let world = World::new(engine, |spec| {
        let first = spec.training_job_name.contains("-001-");
        loss_is_x(spec).lasting(if first { 3_600_000 } else { 50 })
    })
    .await;
    world.create(&request("onestop", 3, 1)).await;
    world.until("the first runs", async || world.sim.running() == 1).await;
    let first = world.training_jobs("onestop").await[0].name.clone();
    tunesmith::app::training_jobs::stop(&world.app, &World::scope(), &first).await.unwrap();
    let job = world.finish("onestop", STEP).await;
    assert_eq!(job.status, TuningStatus::Completed);
    assert_eq!((job.counters.stopped, job.counters.completed), (1, 2));
}

async fn a_lost_attempt_is_retried_within_the_retry_strategy(engine: Engine) {
    let world =
        World::new(engine, |spec| loss_is_x(spec).lasting(if spec.id.number == 1 { 3_600_000 } else { 50 })).await;
    let mut retried = request("retried", 1, 1);
    retried["TrainingJobDefinition"]["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    world.create(&retried).await;
    world.create(&request("unretried", 1, 1)).await;
    world.until("both run", async || world.sim.running() == 2).await;
    for spec in world.sim.starts() {
        world.sim.lose(AttemptId { training_job: spec.id.training_job, number: 1 });
    }
    let job = world.finish("retried", STEP).await;
    assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 1));
    assert_eq!(world.training_jobs("retried").await[0].attempts, 2);
    let job = world.finish("unretried", STEP).await;
    assert_eq!((job.status, job.counters.retryable_error), (TuningStatus::Failed, 1));
    assert_eq!(world.sim.starts().len(), 3);
}

async fn the_runtime_budget_of_the_tuning_job_ends_it(engine: Engine) {
    let world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    let mut timed = request("timed", 1_000, 2);
    timed["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxRuntimeInSeconds"] = json!(120);
    world.create(&timed).await;
    world.until("both run", async || world.sim.running() == 2).await;
    world.sim.advance(Duration::from_secs(119));
    assert_eq!(world.tuning_job("timed").await.counters.in_progress, 2);
    let job = world.finish("timed", Duration::from_millis(500)).await;
    assert_eq!(job.status, TuningStatus::Completed);
    assert_eq!((job.counters.stopped, world.sim.starts().len()), (2, 2));
    assert!(job.ended_at.unwrap().since_ms(job.created_at) >= 120_000);
}

async fn grid_tries_every_combination_once(engine: Engine) {
    let world = World::new(engine, |_| Script::prints("loss=1")).await;
    let mut grid = request("grid", 6, 2);
    grid["HyperParameterTuningJobConfig"]["Strategy"] = json!("Grid");
    grid["HyperParameterTuningJobConfig"]["ResourceLimits"] = json!({"MaxParallelTrainingJobs": 2});
    grid["HyperParameterTuningJobConfig"]["ParameterRanges"] = json!({"CategoricalParameterRanges": [
        {"Name": "a", "Values": ["1", "2", "3"]}, {"Name": "b", "Values": ["x", "y"]}
    ]});
    world.create(&grid).await;
    let job = world.finish("grid", STEP).await;
    assert_eq!((job.status, job.counters.completed, job.max_jobs), (TuningStatus::Completed, 6, 6));
    let tried: std::collections::BTreeSet<_> =
        world.training_jobs("grid").await.into_iter().map(|j| (j.tuned["a"].clone(), j.tuned["b"].clone())).collect();
    assert_eq!(tried.len(), 6);
}

async fn a_restarted_scheduler_goes_on_where_it_was(engine: Engine) {
    let mut world = World::new(engine, |spec| loss_is_x(spec).lasting(80)).await;
    world.create(&request("restarted", 40, 4)).await;
    let mut restarts = 0;
    while !world.tuning_job("restarted").await.status.is_terminal() {
        let begun = world.sim.starts().len();
        world
            .until("some more start", async || {
                world.sim.advance(Duration::from_millis(10));
                world.sim.starts().len() >= begun + 6 || world.tuning_job("restarted").await.status.is_terminal()
            })
            .await;
        world.stop().await;
        world.sim.advance(Duration::from_millis(200));
        world.start();
        restarts += 1;
    }
    assert!(restarts >= 4);
    let job = world.tuning_job("restarted").await;
    assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 40));
    let mut started: Vec<_> = world.sim.starts().iter().map(|spec| spec.id).collect();
    started.sort_unstable();
    started.dedup();
    assert_eq!((started.len(), world.sim.starts().len()), (40, 40));
    assert!(started.iter().all(|id| id.number == 1), "nothing was lost, so nothing is retried");
}

async fn the_same_seed_gives_the_same_run(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    world.create(&request("first", 12, 1)).await;
    world.finish("first", STEP).await;
    world.create(&request("second", 12, 1)).await;
    world.finish("second", STEP).await;
    let tuned = async |name| world.training_jobs(name).await.into_iter().map(|j| j.tuned).collect::<Vec<_>>();
    assert_eq!(tuned("first").await, tuned("second").await);
}

async fn a_failed_job_has_no_objective_value(engine: Engine) {
    let world = World::new(engine, |spec| {
        let first = spec.training_job_name.contains("-001-");
        let cause = ExitCause::Exited { code: if first { 3 } else { 0 } };
        Script::prints(if first { "loss=-5" } else { "loss=1" }).lasting(50).ending(cause)
    })
    .await;
    world.create(&request("halffailed", 2, 1)).await;
    let job = world.finish("halffailed", STEP).await;
    let jobs = world.training_jobs("halffailed").await;
    assert_eq!((jobs[0].status, jobs[0].objective_value), (TrainingStatus::Failed, None));
    assert_eq!(job.best, Some((jobs[1].id, 1.0)));
    assert_eq!((job.objective.failed, job.objective.succeeded), (1, 1));
}

async fn attempts_share_the_stopping_condition(engine: Engine) {
    let world = World::new(engine, |spec| loss_is_x(spec).lasting(3_600_000)).await;
    let mut shared = request("shared", 1, 1);
    shared["TrainingJobDefinition"]["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    shared["TrainingJobDefinition"]["StoppingCondition"] = json!({"MaxRuntimeInSeconds": 100});
    world.create(&shared).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    world.sim.advance(Duration::from_mins(1));
    world.sim.lose(world.sim.starts()[0].id);
    world.until("it runs again", async || world.sim.starts().len() == 2).await;
    assert_eq!(world.sim.starts()[1].max_runtime_ms, 40_000);
    let job = world.finish("shared", Duration::from_secs(1)).await;
    assert_eq!(job.counters.stopped, 1);
    let only = &world.training_jobs("shared").await[0];
    assert_eq!(only.secondary, SecondaryStatus::MaxRuntimeExceeded);
}

async fn an_end_keeps_its_own_time_however_late_it_is_heard_of(engine: Engine) {
    let mut world = World::new(engine, |spec| loss_is_x(spec).lasting(10_000)).await;
    world.create(&request("late", 1, 1)).await;
    world.until("it runs", async || world.sim.running() == 1).await;
    world.stop().await;
    world.sim.advance(Duration::from_hours(8));
    world.start();
    world.finish("late", STEP).await;
    let only = &world.training_jobs("late").await[0];
    let ran_ms = only.ended_at.unwrap().since_ms(only.started_at.unwrap());
    assert!((10_000..11_000).contains(&ran_ms), "{ran_ms} ms");
}

/// Fails each of the first writes of a job once, before and after its commit: the schedule is the same every time.
async fn a_write_that_fails_loses_and_repeats_nothing(engine: Engine) {
    let world = World::new(engine, loss_is_x).await;
    for nth in 1..=14 {
        for moment in [Moment::BeforeCommit, Moment::AfterCommit] {
            let name = format!("fault-{nth}-{}", if moment == Moment::BeforeCommit { "before" } else { "after" });
            let started = world.sim.starts().len();
            world.create(&request(&name, 4, 2)).await;
            world.app.db.fail_write(nth, moment);
            let job = world.finish(&name, STEP).await;
            assert_eq!((job.status, job.counters.completed), (TuningStatus::Completed, 4), "{name}");
            assert_eq!(world.sim.starts().len() - started, 4, "{name}");
            assert_eq!(world.training_jobs(&name).await.len(), 4, "{name}");
            world.spend_failures(nth).await;
        }
    }
}

on_both_databases! {
    spends_its_budget_exactly_and_finds_the_best,
    every_suggestion_replays_from_its_recorded_history,
    a_job_without_its_objective_completes_and_the_search_goes_on,
    gives_up_after_five_failures_and_no_success,
    stop_starts_nothing_more_and_ends_what_runs,
    a_stopped_training_job_frees_its_slot_for_the_next,
    a_lost_attempt_is_retried_within_the_retry_strategy,
    the_runtime_budget_of_the_tuning_job_ends_it,
    grid_tries_every_combination_once,
    a_restarted_scheduler_goes_on_where_it_was,
    the_same_seed_gives_the_same_run,
    a_failed_job_has_no_objective_value,
    attempts_share_the_stopping_condition,
    an_end_keeps_its_own_time_however_late_it_is_heard_of,
    a_write_that_fails_loses_and_repeats_nothing,
}
