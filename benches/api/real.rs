//! The real router over the real store, without a scheduler: what the API alone does.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tunesmith::api::{self, ApiSettings, Readiness};
use tunesmith::app::{App, Creation, Quotas};
use tunesmith::clock::{Calls, Clock};
use tunesmith::executor::images::{Image, Images};
use tunesmith::executor::simulated::{Script, Simulated};
use tunesmith::objects::Objects;
use tunesmith::store::Db;

pub const ACCOUNT: &str = "000000000000";
pub const REGION: &str = "us-east-1";
pub const TOKEN_KEY: [u8; 32] = [7; 32];

/// Migrates a database and serves it on a free port.
pub async fn serve(url: &str, folder: &Path) -> SocketAddr {
    let db = Db::connect(url).await.unwrap();
    db.migrate().await.unwrap();
    let clock = Clock::System;
    let image = Image::command("local/bench:1", ["true"]);
    let app = App {
        db,
        clock: clock.clone(),
        objects: Arc::new(Objects::new(folder.join("objects"), vec![]).unwrap()),
        executor: Arc::new(Simulated::new("idle", clock, folder.join("runs"), |_| {
            Script::prints("nothing is launched")
        })),
        images: Arc::new(Images::new(vec![image]).unwrap()),
        calls: Calls::default(),
        creation: Creation::default(),
        quotas: Quotas { concurrent_tuning_jobs: 1_000, ..Quotas::default() },
        container_pipes: false,
    };
    let settings = ApiSettings {
        account: ACCOUNT.into(),
        default_region: REGION.into(),
        max_body_bytes: 1 << 20,
        token_key: TOKEN_KEY,
    };
    let readiness = Readiness::default();
    readiness.set(true);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = api::router(app, settings, readiness);
    tokio::spawn(async move { api::serve(listener, router, std::future::pending()).await.unwrap() });
    address
}

/// A request as users write them: about 3 kB.
pub fn document(name: &str) -> Value {
    let metric =
        |name: &str| json!({"Name": name, "Regex": format!(".*\\[[0-9]+\\].*#011{name}:([-+]?[0-9]*\\.?[0-9]+)")});
    let channel = |name: &str| {
        json!({
            "ChannelName": name, "ContentType": "text/csv", "CompressionType": "None",
            "DataSource": {"S3DataSource": {
                "S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated",
                "S3Uri": format!("s3://a-bucket-with-data/some-project/data-sets/2026-01/{name}")
            }}
        })
    };
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation-auc"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 100, "MaxParallelTrainingJobs": 10},
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "eta", "MinValue": "0.01", "MaxValue": "0.5", "ScalingType": "Logarithmic"},
                    {"Name": "alpha", "MinValue": "0.0", "MaxValue": "2.0"},
                    {"Name": "subsample", "MinValue": "0.5", "MaxValue": "1.0"}
                ],
                "IntegerParameterRanges": [
                    {"Name": "max_depth", "MinValue": "2", "MaxValue": "12"},
                    {"Name": "num_round", "MinValue": "50", "MaxValue": "500", "ScalingType": "Auto"}
                ],
                "CategoricalParameterRanges": [{"Name": "tree_method", "Values": ["exact", "approx", "hist"]}]
            }
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {
                "objective": "binary:logistic", "eval_metric": "auc", "early_stopping_rounds": "20", "verbosity": "1"
            },
            "AlgorithmSpecification": {
                "TrainingImage": "local/bench:1", "TrainingInputMode": "File",
                "MetricDefinitions": [metric("validation-auc"), metric("train-auc"), metric("validation-logloss")]
            },
            "RoleArn": "arn:aws:iam::000000000000:role/service-role/tuner",
            "InputDataConfig": [channel("train"), channel("validation")],
            "OutputDataConfig": {"S3OutputPath": "s3://a-bucket-with-data/some-project/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "Environment": {"OMP_NUM_THREADS": "4", "PROJECT": "some-project"}
        }
    })
}
