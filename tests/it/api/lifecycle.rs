//! Create, stop, delete: what is refused, in which words, and what stays.

use serde_json::{Value, json};
use tunesmith::api::aws::support;
use tunesmith::app::Quotas;
use tunesmith::domain::document::Document;
use tunesmith::domain::space::{Parameter, Range, Space};
use tunesmith::domain::status::{Direction, Strategy, TuningStatus};
use tunesmith::search::{self, Study};
use tunesmith::store::tuning_jobs;

use super::fixtures::{completed, end, insert, minimal, stored, training};
use crate::support::app::{START, TestApp};
use crate::support::database::Engine;

on_both_databases!(
    create_answers_the_arn_and_keeps_the_request_as_it_came,
    a_name_is_taken_in_any_case,
    what_breaks_a_rule_is_refused_and_nothing_stored,
    quotas_are_refused_in_the_services_words,
    racing_creates_pass_neither_the_quota_nor_each_other,
    missing_jobs_are_named_as_the_service_names_them,
    a_tuning_job_stops_once,
    only_tuning_jobs_that_are_over_are_deleted,
    a_training_job_stops_once,
    only_training_jobs_that_are_over_are_deleted,
);

fn job(name: &str) -> Value {
    json!({ "HyperParameterTuningJobName": name })
}

fn training_job(name: &str) -> Value {
    json!({ "TrainingJobName": name })
}

async fn status(app: &TestApp, name: &str) -> Value {
    app.ok("DescribeHyperParameterTuningJob", &job(name)).await["HyperParameterTuningJobStatus"].take()
}

/// A strategy is either refused by name or served by the search: never accepted and then left standing.
#[test]
fn the_strategies_accepted_are_those_that_the_search_has() {
    let range = Range::Categorical { values: vec!["a".into(), "b".into()] };
    for strategy in Strategy::ALL {
        let study = Study {
            space: Space { parameters: vec![Parameter { name: "kind".into(), range: range.clone() }] },
            direction: Direction::Minimize,
            strategy: *strategy,
            seed: 1,
            definition: 0,
            budget: 2,
            trials: Vec::new(),
            parents: Vec::new(),
            warm_start: None,
            resource: None,
            early_stopping: false,
        };
        let mut request = minimal("tune");
        request["HyperParameterTuningJobConfig"]["Strategy"] = json!(strategy.as_str());
        let accepted = support::check("CreateHyperParameterTuningJob", &Document::from(&request)).is_ok();
        assert_eq!(accepted, search::suggest(&study, 1, 1).is_ok(), "{strategy}");
    }
}

async fn create_answers_the_arn_and_keeps_the_request_as_it_came(engine: Engine) {
    let app = TestApp::new(engine).await;
    let raw = format!(" {}\n", serde_json::to_string_pretty(&minimal("Tune-1")).unwrap());
    let answer = app.call_raw("CreateHyperParameterTuningJob", raw.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let arn = "arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/tune-1";
    assert_eq!(answer.body, json!({ "HyperParameterTuningJobArn": arn }));
    assert!(answer.headers.contains_key("x-amzn-requestid"));
    let kept = stored(&app, "tune-1").await;
    let id = kept.id;
    let request = app.write(move |tx| Box::pin(async move { Ok(tuning_jobs::request(tx, id).await?) })).await;
    assert_eq!(request, Some(raw));
    assert_eq!((kept.max_jobs, kept.max_parallel, kept.created_at), (6, 2, START));
}

async fn a_name_is_taken_in_any_case(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let (code, text) = app.refused("CreateHyperParameterTuningJob", &minimal("TUNE")).await;
    assert_eq!(code, "ResourceInUse");
    assert_eq!(text, "A hyperparameter tuning job with the name, TUNE, already exists. Choose a different name.");
}

async fn what_breaks_a_rule_is_refused_and_nothing_stored(engine: Engine) {
    let app = TestApp::new(engine).await;
    let definition = "/TrainingJobDefinition/AlgorithmSpecification";
    let elsewhere = json!([{"ChannelName": "train", "DataSource": {"FileSystemDataSource": {
        "FileSystemId": "fs-76543210", "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": "/"
    }}}]);
    let cases = [
        (
            format!("{definition}/TrainingImage"),
            json!("evil/image"),
            "[local/plain:1, local/metrics:1, local/contained:1]",
        ),
        (format!("{definition}/TrainingImage"), json!("local/plain:1"), "A metric is required for this"),
        (format!("{definition}/MetricDefinitions"), json!([{"Name": "loss", "Regex": "(?=x)(y)"}]), "loss"),
        (
            "/TrainingJobDefinition/EnableManagedSpotTraining".into(),
            json!(true),
            "MaxWaitTimeInSeconds. It must be present",
        ),
        ("/TrainingJobDefinition/InputDataConfig".into(), elsewhere, "Its file systems are [fs-0123abcd (EFS)]"),
        ("/TrainingJobDefinition/Environment".into(), json!({"BASH_ENV": "/x"}), "[BASH_ENV] cannot be set"),
        ("/Tags".into(), json!([{"Key": "aws:x", "Value": "1"}]), "reserved prefix"),
    ];
    for (pointer, value, word) in cases {
        let mut request = minimal("tune");
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        request.pointer_mut(parent).unwrap()[member] = value;
        let (code, text) = app.refused("CreateHyperParameterTuningJob", &request).await;
        assert_eq!(code, "ValidationException", "{text}");
        assert!(text.contains(word), "{pointer}: {text}");
    }
    let all = app.ok("ListHyperParameterTuningJobs", &json!({})).await;
    assert_eq!(all, json!({ "HyperParameterTuningJobSummaries": [] }));
}

async fn quotas_are_refused_in_the_services_words(engine: Engine) {
    let quotas = Quotas {
        training_jobs_per_tuning_job: 50,
        parallel_training_jobs: 5,
        concurrent_tuning_jobs: 1,
        ..Quotas::default()
    };
    let app = TestApp::with_quotas(engine, quotas).await;
    let refused = async |member: &str, value: u32| {
        let mut request = minimal("tune");
        request["HyperParameterTuningJobConfig"]["ResourceLimits"][member] = json!(value);
        app.refused("CreateHyperParameterTuningJob", &request).await
    };
    for (member, value, what) in [
        ("MaxNumberOfTrainingJobs", 51, "is 50 Training Jobs, with current utilization of 0"),
        ("MaxParallelTrainingJobs", 6, "is 5 Training Jobs, with current utilization of 0"),
    ] {
        let (code, text) = refused(member, value).await;
        assert_eq!(code, "ResourceLimitExceeded");
        assert!(text.starts_with("The account-level service limit '") && text.contains(what), "{text}");
    }
    let on_hosts = |image: &str, hosts: u32| {
        let mut request = minimal("one");
        let definition = &mut request["TrainingJobDefinition"];
        definition["AlgorithmSpecification"]["TrainingImage"] = json!(image);
        definition["HyperParameterTuningResourceConfig"]["InstanceCount"] = json!(hosts);
        request
    };
    let (code, text) = app.refused("CreateHyperParameterTuningJob", &on_hosts("local/contained:1", 9)).await;
    assert_eq!(code, "ResourceLimitExceeded");
    assert!(text.contains("is 8 Instances") && text.contains("raise quotas.hosts_per_training_job"), "{text}");
    let (code, text) = app.refused("CreateHyperParameterTuningJob", &on_hosts("local/metrics:1", 2)).await;
    assert_eq!(code, "ValidationException");
    let member = "'trainingJobDefinition.hyperParameterTuningResourceConfig.instanceCount'";
    assert!(text.contains(member) && text.contains("only container images run on several hosts"), "{text}");
    let mut streamed = on_hosts("local/contained:1", 1);
    streamed["TrainingJobDefinition"]["InputDataConfig"] = json!([{"ChannelName": "rows", "InputMode": "Pipe",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/rows"}}}]);
    let (code, text) = app.refused("CreateHyperParameterTuningJob", &streamed).await;
    assert_eq!(code, "ValidationException");
    let named = text.contains("Pipe of channel rows is not supported for a container image");
    assert!(named && text.contains("docker.helper_image"), "{text}");
    app.ok("CreateHyperParameterTuningJob", &on_hosts("local/contained:1", 8)).await;
    let (code, text) = app.refused("CreateHyperParameterTuningJob", &minimal("two")).await;
    assert_eq!(code, "ResourceLimitExceeded");
    assert!(text.contains("is 1 Tuning Jobs, with current utilization of 1 Tuning Jobs and a request delta of 1"));
    end(&app, "one", TuningStatus::Completed).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("two")).await;
}

async fn racing_creates_pass_neither_the_quota_nor_each_other(engine: Engine) {
    let quotas = Quotas { concurrent_tuning_jobs: 3, ..Quotas::default() };
    let app = std::sync::Arc::new(TestApp::with_quotas(engine, quotas).await);
    let create = |name: String| {
        let app = std::sync::Arc::clone(&app);
        tokio::spawn(async move { app.call("CreateHyperParameterTuningJob", &minimal(&name)).await })
    };
    let same: Vec<_> = (0..6).map(|_| create("same".into())).collect();
    let others: Vec<_> = (0..8).map(|i| create(format!("job-{i}"))).collect();
    let (mut created, mut codes) = (Vec::new(), Vec::new());
    for (answer, list) in same.into_iter().map(|call| (call, 0)).chain(others.into_iter().map(|call| (call, 1))) {
        let answer = answer.await.unwrap();
        match answer.status {
            200 => created.push(list),
            _ => codes.push(answer.body["__type"].as_str().unwrap_or_default().to_owned()),
        }
    }
    assert_eq!(created.len(), 3, "as many as the quota allows: {codes:?}");
    assert!(created.iter().filter(|list| **list == 0).count() <= 1, "one name is one job");
    assert!(codes.iter().all(|code| code == "ResourceInUse" || code == "ResourceLimitExceeded"), "{codes:?}");
}

async fn missing_jobs_are_named_as_the_service_names_them(engine: Engine) {
    let app = TestApp::new(engine).await;
    for operation in [
        "DescribeHyperParameterTuningJob",
        "StopHyperParameterTuningJob",
        "DeleteHyperParameterTuningJob",
        "ListTrainingJobsForHyperParameterTuningJob",
    ] {
        let (code, text) = app.refused(operation, &job("nope")).await;
        assert_eq!(code, "ResourceNotFound", "{operation}");
        assert_eq!(text, "Amazon SageMaker can't find a tuning job called nope. Type another name.");
    }
    for operation in ["DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob"] {
        let refused = app.refused(operation, &training_job("nope")).await;
        assert_eq!(refused, ("ValidationException".into(), "Requested resource not found.".into()), "{operation}");
    }
}

async fn a_tuning_job_stops_once(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    assert_eq!(status(&app, "tune").await, "InProgress");
    let answer = app.ok("StopHyperParameterTuningJob", &job("TUNE")).await;
    assert_eq!(answer, "", "an operation without output answers with an empty body");
    assert_eq!(status(&app, "tune").await, "Stopping");
    let first = stored(&app, "tune").await.stop_requested_at;
    assert_eq!(first, Some(START));
    app.app.clock.advance(std::time::Duration::from_secs(5));
    app.ok("StopHyperParameterTuningJob", &job("tune")).await;
    assert_eq!(stored(&app, "tune").await.stop_requested_at, first, "asking twice is asking once");
    end(&app, "tune", TuningStatus::Stopped).await;
    let (code, text) = app.refused("StopHyperParameterTuningJob", &job("tune")).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("already"), "{text}");
}

async fn only_tuning_jobs_that_are_over_are_deleted(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let child = training(&stored(&app, "tune").await, 1);
    insert(&app, &[completed(child.clone(), 0.5)]).await;
    let (code, text) = app.refused("DeleteHyperParameterTuningJob", &job("tune")).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("not in a terminal state"), "{text}");
    end(&app, "tune", TuningStatus::Completed).await;
    app.ok("DeleteHyperParameterTuningJob", &job("tune")).await;
    let (code, _) = app.refused("DescribeHyperParameterTuningJob", &job("tune")).await;
    assert_eq!(code, "ResourceNotFound");
    let left = app.ok("DescribeTrainingJob", &training_job(&child.name)).await;
    assert_eq!(left["TuningJobArn"], "arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/tune");
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
}

async fn a_training_job_stops_once(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let child = training(&stored(&app, "tune").await, 1);
    insert(&app, &[child.clone(), completed(training(&stored(&app, "tune").await, 2), 0.5)]).await;
    for _ in 0..2 {
        app.ok("StopTrainingJob", &training_job(&child.name)).await;
    }
    let shown = app.ok("DescribeTrainingJob", &training_job(&child.name)).await;
    assert_eq!(shown["TrainingJobStatus"], "Stopping");
    assert_eq!(shown["SecondaryStatus"], "Stopping");
    let transitions = shown["SecondaryStatusTransitions"].as_array().unwrap();
    assert_eq!(transitions.len(), 2);
    assert_eq!(transitions[0]["EndTime"], transitions[1]["StartTime"]);
    let over = training_job(&training(&stored(&app, "tune").await, 2).name);
    let (code, text) = app.refused("StopTrainingJob", &over).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(text, "The request was rejected because the training job is in status Completed.");
}

async fn only_training_jobs_that_are_over_are_deleted(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let tuning = stored(&app, "tune").await;
    let (running, over) = (training(&tuning, 1), completed(training(&tuning, 2), 0.5));
    insert(&app, &[running.clone(), over.clone()]).await;
    let (code, text) = app.refused("DeleteTrainingJob", &training_job(&running.name)).await;
    assert_eq!(code, "ResourceInUse");
    assert!(text.contains("InProgress"), "{text}");
    let (code, text) = app.refused("DeleteTrainingJob", &training_job(&over.name)).await;
    assert_eq!(code, "ResourceInUse", "a running tuning job still learns from it");
    assert!(text.contains("tuning job tune"), "{text}");
    end(&app, "tune", TuningStatus::Completed).await;
    app.ok("DeleteTrainingJob", &training_job(&over.name)).await;
    let (_, text) = app.refused("DescribeTrainingJob", &training_job(&over.name)).await;
    assert_eq!(text, "Requested resource not found.");
}
