//! Tags: set at Create and later, on what exists in the caller's account and region.

use serde_json::{Value, json};

use super::fixtures::{insert, minimal, stored, training};
use crate::support::app::TestApp;
use crate::support::database::Engine;

on_both_databases!(tags_are_set_replaced_and_removed, tags_hang_on_what_exists, a_resource_has_at_most_fifty_tags);

const ARN: &str = "arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/tune";

fn tagged() -> Value {
    let mut request = minimal("tune");
    request["Tags"] = json!([{"Key": "team", "Value": "a"}, {"Key": "cost", "Value": ""}]);
    request
}

async fn tags_are_set_replaced_and_removed(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &tagged()).await;
    let listed = app.ok("ListTags", &json!({"ResourceArn": ARN})).await;
    assert_eq!(listed["Tags"], json!([{"Key": "cost", "Value": ""}, {"Key": "team", "Value": "a"}]));
    let new = json!([{"Key": "team", "Value": "b"}, {"Key": "stage", "Value": "x"}]);
    app.ok("AddTags", &json!({"ResourceArn": ARN, "Tags": new})).await;
    app.ok("DeleteTags", &json!({"ResourceArn": ARN, "TagKeys": ["cost", "none"]})).await;
    let listed = app.ok("ListTags", &json!({"ResourceArn": ARN})).await;
    assert_eq!(listed, json!({"Tags": [{"Key": "stage", "Value": "x"}, {"Key": "team", "Value": "b"}]}));
}

async fn tags_hang_on_what_exists(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let child = training(&stored(&app, "tune").await, 1);
    insert(&app, std::slice::from_ref(&child)).await;
    let arn = TestApp::scope().training_job_arn(&child.name);
    let tags = json!([{"Key": "k", "Value": "v"}]);
    assert_eq!(app.ok("AddTags", &json!({"ResourceArn": arn, "Tags": tags})).await, json!({ "Tags": tags }));
    for arn in [
        ARN.replace("tune", "none"),
        ARN.replace("us-east-1", "eu-west-1"),
        ARN.replace("000000000000", "111111111111"),
        ARN.replace("hyper-parameter-tuning-job", "endpoint"),
    ] {
        let (code, text) = app.refused("AddTags", &json!({"ResourceArn": arn, "Tags": tags})).await;
        assert_eq!((code.as_str(), text.as_str()), ("ValidationException", "Requested resource not found."), "{arn}");
    }
}

async fn a_resource_has_at_most_fifty_tags(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &tagged()).await;
    let many = |n: usize| (0..n).map(|i| json!({"Key": format!("k{i}"), "Value": ""})).collect::<Vec<_>>();
    let (code, text) = app.refused("AddTags", &json!({"ResourceArn": ARN, "Tags": many(49)})).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("[51] tags"), "{text}");
    let listed = app.ok("ListTags", &json!({"ResourceArn": ARN})).await;
    assert_eq!(listed["Tags"].as_array().unwrap().len(), 2, "nothing of a refused call stays");
    app.ok("AddTags", &json!({"ResourceArn": ARN, "Tags": many(48)})).await;
}
