//! Describe: everything that Create accepted comes back, with the defaults and additions that clients read.

use serde_json::{Value, json};
use tunesmith::api::aws::support::Support;
use tunesmith::domain::status::{ObjectiveStatus, TrainingStatus, TuningStatus};

use super::fixtures::{completed, end, insert, make_best, minimal, seconds, stored, training};
use super::generate::Generator;
use crate::support::app::{FILE_SYSTEM, START, TestApp};
use crate::support::database::Engine;

on_both_databases!(
    every_accepted_member_comes_back,
    whatever_the_model_allows_comes_back,
    defaults_and_additions_are_there_for_a_minimal_request,
    null_members_are_absent_ones,
    times_counters_and_the_best_job_are_shown,
    a_deleted_best_job_gives_way_to_the_next_best,
    a_training_job_shows_what_clients_read,
    a_running_training_job_names_where_its_model_will_be,
);

/// Every member that is accepted, with a value that is not its default.
fn maximal(name: &str) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Hyperband",
            "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 30}},
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "auc"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 7, "MaxParallelTrainingJobs": 3, "MaxRuntimeInSeconds": 3600},
            "ParameterRanges": {
                "IntegerParameterRanges": [
                    {"Name": "depth", "MinValue": "1", "MaxValue": "9", "ScalingType": "Logarithmic"}
                ],
                "ContinuousParameterRanges": [
                    {"Name": "rate", "MinValue": "1e-4", "MaxValue": "0.50", "ScalingType": "ReverseLogarithmic"}
                ],
                "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "\"b\"", "ü"]}]
            },
            "TrainingJobEarlyStoppingType": "Off",
            "RandomSeed": 4711
        },
        "TrainingJobDefinition": {
            "DefinitionName": "main",
            "StaticHyperParameters": {"epochs": "3", "sagemaker_program": "\"train.py\""},
            "AlgorithmSpecification": {
                "TrainingImage": "local/plain:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": "auc", "Regex": "auc=([0-9.]+)"},
                    {"Name": "validation:loss", "Regex": "loss: (.*?);"}
                ]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service-role/tuner",
            "InputDataConfig": [{
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {
                    "S3DataType": "S3Prefix", "S3Uri": "s3://data-bucket/a/b/", "S3DataDistributionType": "FullyReplicated"
                }},
                "ContentType": "text/csv",
                "CompressionType": "None",
                "RecordWrapperType": "None",
                "InputMode": "File",
                "ShuffleConfig": {"Seed": 7}
            }, {
                "ChannelName": "labelled",
                "DataSource": {"S3DataSource": {
                    "S3DataType": "AugmentedManifestFile", "S3Uri": "s3://data-bucket/lines",
                    "S3DataDistributionType": "ShardedByS3Key", "AttributeNames": ["source-ref", "label"]
                }},
                "CompressionType": "Gzip",
                "RecordWrapperType": "RecordIO",
                "InputMode": "Pipe",
                "ShuffleConfig": {"Seed": -7}
            }, {
                "ChannelName": "shared",
                "DataSource": {"FileSystemDataSource": {
                    "FileSystemId": FILE_SYSTEM, "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": "/a/b"
                }}
            }],
            "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]},
            "OutputDataConfig": {
                "S3OutputPath": "s3://out-bucket/models", "CompressionType": "NONE", "KmsKeyId": "alias/key"
            },
            "ResourceConfig": {
                "InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 5, "VolumeKmsKeyId": "k",
                "KeepAlivePeriodInSeconds": 60
            },
            "HyperParameterTuningResourceConfig": {
                "InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 5, "VolumeKmsKeyId": "k",
                "AllocationStrategy": "Prioritized"
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 1234, "MaxWaitTimeInSeconds": 2345},
            "EnableNetworkIsolation": false,
            "EnableInterContainerTrafficEncryption": true,
            "EnableManagedSpotTraining": true,
            "CheckpointConfig": {"S3Uri": "s3://out-bucket/ck", "LocalPath": "/opt/ml/ck"},
            "RetryStrategy": {"MaximumRetryAttempts": 2},
            "Environment": {"LOG_LEVEL": "debug", "EMPTY": ""}
        },
        "Tags": [{"Key": "team", "Value": "x"}]
    })
}

/// Checks that everything of `sent` is in `shown`, whatever stands beside it.
fn assert_contains(shown: &Value, sent: &Value, path: &str) {
    match (shown, sent) {
        (Value::Object(shown), Value::Object(sent)) => {
            for (name, value) in sent {
                assert_contains(shown.get(name).unwrap_or(&Value::Null), value, &format!("{path}/{name}"));
            }
        }
        (Value::Array(shown), Value::Array(sent)) => {
            assert_eq!(shown.len(), sent.len(), "{path}");
            for (i, (shown, sent)) in shown.iter().zip(sent).enumerate() {
                assert_contains(shown, sent, &format!("{path}/{i}"));
            }
        }
        _ => assert_eq!(shown, sent, "{path}"),
    }
}

async fn describe(app: &TestApp, name: &str) -> Value {
    app.ok("DescribeHyperParameterTuningJob", &json!({"HyperParameterTuningJobName": name})).await
}

async fn describe_training(app: &TestApp, name: &str) -> Value {
    app.ok("DescribeTrainingJob", &json!({"TrainingJobName": name})).await
}

/// Creates the job and checks that all of it comes back.
async fn round_trip(app: &TestApp, mut request: Value) -> Value {
    app.ok("CreateHyperParameterTuningJob", &request).await;
    let shown = describe(app, request["HyperParameterTuningJobName"].as_str().unwrap()).await;
    let tags = request.as_object_mut().unwrap().shift_remove("Tags").unwrap_or(json!([]));
    assert_contains(&shown, &request, "");
    let listed = app.ok("ListTags", &json!({"ResourceArn": shown["HyperParameterTuningJobArn"]})).await;
    assert_eq!(listed["Tags"], tags);
    shown
}

async fn every_accepted_member_comes_back(engine: Engine) {
    let app = TestApp::new(engine).await;
    round_trip(&app, maximal("tune")).await;
    let child = training(&stored(&app, "tune").await, 1);
    insert(&app, std::slice::from_ref(&child)).await;
    let mut definition = maximal("tune")["TrainingJobDefinition"].take();
    for only_of_tuning in ["DefinitionName", "StaticHyperParameters", "HyperParameterTuningResourceConfig"] {
        definition.as_object_mut().unwrap().shift_remove(only_of_tuning);
    }
    assert_contains(&describe_training(&app, &child.name).await, &definition, "");
}

async fn whatever_the_model_allows_comes_back(engine: Engine) {
    let app = TestApp::new(engine).await;
    let mut generator = Generator::new();
    for case in 0..60 {
        let name = format!("tune-{case}");
        let request = generator.request(&name);
        round_trip(&app, request).await;
        end(&app, &name, TuningStatus::Completed).await;
    }
}

/// Whether there is a value at a path; of a list, in any of its items.
fn has(value: &Value, path: &[&str]) -> bool {
    match path {
        [] => !value.is_null(),
        ["[]", rest @ ..] => value.as_array().is_some_and(|items| items.iter().any(|item| has(item, rest))),
        [name, rest @ ..] => value.get(name).is_some_and(|member| has(member, rest)),
    }
}

/// So that a field accepted later is not forgotten here.
#[test]
fn the_maximal_request_has_every_accepted_field() {
    let request = maximal("tune");
    let fields = Support::builtin().unwrap().fields("CreateHyperParameterTuningJob");
    for field in fields.iter().filter(|field| field.entry.refused.is_none()) {
        let path = field.path.replace("[]", ".[]");
        assert!(
            has(&request, &path.split('.').collect::<Vec<_>>()),
            "{} is accepted, but is not in the maximal request",
            field.path
        );
    }
}

async fn defaults_and_additions_are_there_for_a_minimal_request(engine: Engine) {
    let app = TestApp::new(engine).await;
    let shown = round_trip(&app, minimal("tune")).await;
    let config = &shown["HyperParameterTuningJobConfig"];
    assert_eq!(config["TrainingJobEarlyStoppingType"], "Off");
    let ranges = &config["ParameterRanges"];
    assert_eq!(ranges["IntegerParameterRanges"], json!([]));
    assert_eq!(ranges["CategoricalParameterRanges"], json!([]));
    assert_eq!(ranges["ContinuousParameterRanges"][0]["ScalingType"], "Auto");
    let definition = &shown["TrainingJobDefinition"];
    assert_eq!(definition["StaticHyperParameters"], json!({"_tuning_objective_metric": "loss"}));
    assert_eq!(definition["OutputDataConfig"]["KmsKeyId"], "");
    let metrics = json!([{"Name": "loss", "Regex": "loss=([0-9.]+)"}]);
    assert_eq!(definition["AlgorithmSpecification"]["MetricDefinitions"], metrics);
    let resources = json!({"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30});
    assert_eq!(definition["ResourceConfig"], resources);
    assert_eq!(definition["StoppingCondition"], json!({"MaxRuntimeInSeconds": 86_400}));
    assert_eq!(definition["EnableManagedSpotTraining"], false);
    assert!(definition.get("CheckpointConfig").is_none());
    assert!(shown.get("BestTrainingJob").is_none());
}

async fn null_members_are_absent_ones(engine: Engine) {
    let app = TestApp::new(engine).await;
    let mut request = minimal("tune");
    request["HyperParameterTuningJobConfig"]["RandomSeed"] = Value::Null;
    request["HyperParameterTuningJobConfig"]["ParameterRanges"]["IntegerParameterRanges"] = Value::Null;
    request["TrainingJobDefinition"]["CheckpointConfig"] = Value::Null;
    request["TrainingJobDefinition"]["StoppingCondition"]["MaxRuntimeInSeconds"] = Value::Null;
    app.ok("CreateHyperParameterTuningJob", &request).await;
    let mut shown = describe(&app, "tune").await;
    app.ok("CreateHyperParameterTuningJob", &minimal("other")).await;
    let mut other = describe(&app, "other").await;
    for member in ["HyperParameterTuningJobConfig", "TrainingJobDefinition"] {
        assert_eq!(shown[member].take(), other[member].take());
    }
}

async fn times_counters_and_the_best_job_are_shown(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    app.app.clock.advance(std::time::Duration::from_millis(7_900));
    assert_eq!(describe(&app, "tune").await["ConsumedResources"], json!({"RuntimeInSeconds": 7}));
    let best = completed(training(&stored(&app, "tune").await, 1), 0.125);
    insert(&app, std::slice::from_ref(&best)).await;
    make_best(&app, "tune", &best).await;
    end(&app, "tune", TuningStatus::Completed).await;
    let shown = describe(&app, "tune").await;
    assert_eq!(shown["HyperParameterTuningJobStatus"], "Completed");
    assert_eq!(shown["CreationTime"], json!(1_700_000_000.123));
    assert_eq!(shown["HyperParameterTuningEndTime"], seconds(START.plus_ms(90_500)));
    assert_eq!(shown["ConsumedResources"], json!({"RuntimeInSeconds": 90}));
    assert_eq!(shown["TuningJobCompletionDetails"], json!({"NumberOfTrainingJobsObjectiveNotImproving": 4}));
    let counters = json!({"Completed": 1, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0});
    assert_eq!(shown["TrainingJobStatusCounters"], counters);
    assert_eq!(shown["ObjectiveStatusCounters"], json!({"Succeeded": 1, "Pending": 0, "Failed": 0}));
    let shown = &shown["BestTrainingJob"];
    assert_eq!(shown["TrainingJobName"], best.name);
    assert_eq!(shown["TunedHyperParameters"], json!({"rate": "0.01"}));
    let value = json!({"Type": "Minimize", "MetricName": "loss", "Value": 0.125});
    assert_eq!(shown["FinalHyperParameterTuningJobObjectiveMetric"], value);
}

async fn a_deleted_best_job_gives_way_to_the_next_best(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let tuning = stored(&app, "tune").await;
    let jobs: Vec<_> =
        [(1, 0.75), (2, 0.25), (3, 0.5), (4, 0.5)].map(|(n, value)| completed(training(&tuning, n), value)).into();
    // One that was stopped early counts like the others.
    let mut jobs = jobs;
    (jobs[2].status, jobs[2].stopped_early) = (TrainingStatus::Stopped, true);
    let mut failed = completed(training(&tuning, 5), 0.125);
    failed.status = TrainingStatus::Failed;
    failed.objective_status = ObjectiveStatus::Failed;
    insert(&app, &jobs).await;
    insert(&app, std::slice::from_ref(&failed)).await;
    make_best(&app, "tune", &jobs[1]).await;
    end(&app, "tune", TuningStatus::Completed).await;
    // Deleting another changes nothing; of equals the first to end counts.
    for (delete, best) in [(&failed, 1), (&jobs[1], 2), (&jobs[2], 3), (&jobs[3], 0)] {
        app.ok("DeleteTrainingJob", &json!({"TrainingJobName": delete.name})).await;
        assert_eq!(describe(&app, "tune").await["BestTrainingJob"]["TrainingJobName"], jobs[best].name);
    }
    app.ok("DeleteTrainingJob", &json!({"TrainingJobName": jobs[0].name})).await;
    assert!(describe(&app, "tune").await.get("BestTrainingJob").is_none());
}

async fn a_training_job_shows_what_clients_read(engine: Engine) {
    let app = TestApp::new(engine).await;
    let mut request = minimal("tune");
    request["TrainingJobDefinition"]["StaticHyperParameters"] = json!({"epochs": "3"});
    app.ok("CreateHyperParameterTuningJob", &request).await;
    let job = completed(training(&stored(&app, "tune").await, 1), 0.5);
    insert(&app, std::slice::from_ref(&job)).await;
    let shown = describe_training(&app, &job.name).await;
    let arn = "arn:aws:sagemaker:us-east-1:000000000000";
    assert_eq!(shown["TrainingJobArn"], format!("{arn}:training-job/{}", job.name));
    assert_eq!(shown["TuningJobArn"], format!("{arn}:hyper-parameter-tuning-job/tune"));
    let hyperparameters = json!({"epochs": "3", "_tuning_objective_metric": "loss", "rate": "0.01"});
    assert_eq!(shown["HyperParameters"], hyperparameters);
    let algorithm = &shown["AlgorithmSpecification"];
    assert_eq!(algorithm["TrainingImage"], "local/metrics:1");
    assert_eq!(algorithm["EnableSageMakerMetricsTimeSeries"], false);
    assert_eq!(shown["OutputDataConfig"]["KmsKeyId"], "");
    assert_eq!(shown["ResourceConfig"]["InstanceType"], "ml.m5.large", "sent as the tuning API's own member");
    assert!(shown.get("HyperParameterTuningResourceConfig").is_none());
    let model = json!({"S3ModelArtifacts": job.model_artifacts});
    assert_eq!(shown["ModelArtifacts"], model);
    assert_eq!(shown["StoppingCondition"], json!({"MaxRuntimeInSeconds": 86_400}));
    assert_eq!((&shown["TrainingTimeInSeconds"], &shown["BillableTimeInSeconds"]), (&json!(3), &json!(3)));
    let metric = json!({"MetricName": "loss", "Value": 0.5, "Timestamp": seconds(job.modified_at)});
    assert_eq!(shown["FinalMetricDataList"], json!([metric]));
    assert_eq!(shown["SecondaryStatusTransitions"][0]["Status"], "Training");
}

async fn a_running_training_job_names_where_its_model_will_be(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let job = training(&stored(&app, "tune").await, 1);
    insert(&app, std::slice::from_ref(&job)).await;
    let shown = describe_training(&app, &job.name).await;
    let uri = format!("s3://bucket/out/{}/output/model.tar.gz", job.name);
    assert_eq!(shown["ModelArtifacts"]["S3ModelArtifacts"], uri);
    assert!(shown.get("TrainingEndTime").is_none() && shown.get("TrainingTimeInSeconds").is_none());
}
