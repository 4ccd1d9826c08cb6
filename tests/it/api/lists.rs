//! Lists: filters, sort, order, and tokens that go on with their own list alone.

use serde_json::{Value, json};
use tunesmith::domain::status::TuningStatus;

use super::fixtures::{completed, end, insert, minimal, stored, training};
use crate::support::app::{START, TestApp};
use crate::support::database::Engine;

on_both_databases!(
    tuning_jobs_are_listed_by_name_status_and_time,
    pages_go_on_where_the_last_ended,
    a_token_serves_its_own_list_alone,
    training_jobs_of_a_tuning_job_are_listed_by_objective,
    all_training_jobs_are_listed_by_creation_time,
);

const LIST: &str = "ListHyperParameterTuningJobs";

fn names(page: &Value, list: &str, member: &str) -> Vec<String> {
    page[list].as_array().unwrap().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
}

fn tuning_names(page: &Value) -> Vec<String> {
    names(page, "HyperParameterTuningJobSummaries", "HyperParameterTuningJobName")
}

fn training_names(page: &Value) -> Vec<String> {
    names(page, "TrainingJobSummaries", "TrainingJobName")
}

/// Tuning jobs created a second apart in this order.
async fn with_jobs(engine: Engine, names: &[&str]) -> TestApp {
    let app = TestApp::new(engine).await;
    for name in names {
        app.ok("CreateHyperParameterTuningJob", &minimal(name)).await;
        app.app.clock.advance(std::time::Duration::from_secs(1));
    }
    app
}

async fn tuning_jobs_are_listed_by_name_status_and_time(engine: Engine) {
    let app = with_jobs(engine, &["beta", "Alpha", "gamma"]).await;
    end(&app, "gamma", TuningStatus::Completed).await;
    let listed = async |query: Value| tuning_names(&app.ok(LIST, &query).await);
    assert_eq!(listed(json!({})).await, ["Alpha", "beta", "gamma"]);
    assert_eq!(listed(json!({"SortOrder": "Descending"})).await, ["gamma", "beta", "Alpha"]);
    assert_eq!(listed(json!({"SortBy": "CreationTime"})).await, ["beta", "Alpha", "gamma"]);
    assert_eq!(listed(json!({"SortBy": "Status", "SortOrder": "Ascending"})).await[0], "gamma");
    assert_eq!(listed(json!({"StatusEquals": "Completed"})).await, ["gamma"]);
    assert_eq!(listed(json!({"NameContains": "ET"})).await, ["beta"]);
    let second = START.as_epoch_seconds() + 0.5;
    assert_eq!(listed(json!({"CreationTimeAfter": second})).await, ["Alpha", "gamma"]);
    assert_eq!(listed(json!({"CreationTimeBefore": second})).await, ["beta"]);
    assert_eq!(listed(json!({"LastModifiedTimeAfter": second, "NameContains": "a"})).await, ["Alpha", "gamma"]);
    let summary = &app.ok(LIST, &json!({"NameContains": "beta"})).await["HyperParameterTuningJobSummaries"][0];
    assert_eq!(summary["Strategy"], "Random");
    assert_eq!(summary["ResourceLimits"], json!({"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2}));
    assert_eq!(summary["CreationTime"], json!(START.as_epoch_seconds()));
}

async fn pages_go_on_where_the_last_ended(engine: Engine) {
    let all: Vec<String> = (0..23).map(|i| format!("job-{i:02}")).collect();
    let app = with_jobs(engine, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut query = json!({"SortBy": "CreationTime", "SortOrder": "Descending"});
    let mut seen = Vec::new();
    loop {
        let page = app.ok(LIST, &query).await;
        seen.extend(tuning_names(&page));
        let Some(token) = page.get("NextToken") else { break };
        query["NextToken"] = token.clone();
        query["MaxResults"] = json!(9);
    }
    seen.reverse();
    assert_eq!(seen, all);
}

async fn a_token_serves_its_own_list_alone(engine: Engine) {
    let app = with_jobs(engine, &["a", "b", "c"]).await;
    let page = app.ok(LIST, &json!({"MaxResults": 1})).await;
    let token = page["NextToken"].as_str().unwrap();
    for query in [
        json!({"NextToken": token, "StatusEquals": "InProgress"}),
        json!({"NextToken": token, "SortOrder": "Descending"}),
        json!({"NextToken": format!("{token}x")}),
    ] {
        let (code, text) = app.refused(LIST, &query).await;
        assert_eq!(code, "ValidationException");
        assert!(text.contains("NextToken"), "{text}");
    }
    let (code, _) = app.refused("ListTrainingJobs", &json!({"NextToken": token})).await;
    assert_eq!(code, "ValidationException");
}

async fn training_jobs_of_a_tuning_job_are_listed_by_objective(engine: Engine) {
    let app = with_jobs(engine, &["tune"]).await;
    let tuning = stored(&app, "tune").await;
    let jobs = [
        completed(training(&tuning, 1), 0.5),
        completed(training(&tuning, 2), 0.25),
        training(&tuning, 3),
        completed(training(&tuning, 4), 0.75),
    ];
    insert(&app, &jobs).await;
    let listed = async |mut query: Value| {
        query["HyperParameterTuningJobName"] = json!("tune");
        app.ok("ListTrainingJobsForHyperParameterTuningJob", &query).await
    };
    let name = |ordinal: usize| jobs[ordinal - 1].name.clone();
    assert_eq!(training_names(&listed(json!({})).await), [name(1), name(2), name(3), name(4)]);
    let by_objective = listed(json!({"SortBy": "FinalObjectiveMetricValue"})).await;
    assert_eq!(training_names(&by_objective), [name(2), name(1), name(4)], "without a value: not listed");
    let best = listed(json!({"SortBy": "FinalObjectiveMetricValue", "SortOrder": "Descending", "MaxResults": 2})).await;
    assert_eq!(training_names(&best), [name(4), name(1)]);
    let running = listed(json!({"StatusEquals": "InProgress"})).await;
    assert_eq!(training_names(&running), [name(3)]);
    let summary = &by_objective["TrainingJobSummaries"][0];
    assert_eq!(summary["TunedHyperParameters"], json!({"rate": "0.02"}));
    let value = json!({"Type": "Minimize", "MetricName": "loss", "Value": 0.25});
    assert_eq!(summary["FinalHyperParameterTuningJobObjectiveMetric"], value);
    assert_eq!(summary["ObjectiveStatus"], "Succeeded");
}

async fn all_training_jobs_are_listed_by_creation_time(engine: Engine) {
    let app = with_jobs(engine, &["one", "two"]).await;
    let (one, two) = (stored(&app, "one").await, stored(&app, "two").await);
    let jobs = [training(&one, 3), training(&two, 1), completed(training(&one, 1), 0.5)];
    insert(&app, &jobs).await;
    let listed = async |query: Value| training_names(&app.ok("ListTrainingJobs", &query).await);
    let [late, middle, early] = [&jobs[0].name, &jobs[1].name, &jobs[2].name];
    assert_eq!(listed(json!({})).await, [early, middle, late].map(String::clone));
    assert_eq!(listed(json!({"SortBy": "Name"})).await, [early, late, middle].map(String::clone));
    assert_eq!(listed(json!({"StatusEquals": "Completed"})).await, *std::slice::from_ref(early));
    assert_eq!(listed(json!({"NameContains": "TWO-"})).await, *std::slice::from_ref(middle));
}
