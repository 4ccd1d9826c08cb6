//! The messages, as golden texts: clients and their users read them.

use serde_json::{Value, json};

use super::{InvalidInput, validate};
use crate::api::aws::model::Model;

fn outcome(operation: &str, document: &Value) -> Result<(), InvalidInput> {
    let model = Model::builtin().unwrap();
    validate(model, model.input(operation).unwrap(), &document.into())
}

fn message(operation: &str, document: &Value) -> String {
    match outcome(operation, document) {
        Ok(()) => "valid".into(),
        Err(error @ InvalidInput::WrongType { .. }) => format!("WrongType: {error}"),
        Err(error) => error.to_string(),
    }
}

fn create() -> Value {
    json!({
        "HyperParameterTuningJobName": "t-1",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"CategoricalParameterRanges": [{"Name": "a", "Values": ["x", "y"]}]}
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": "local/x", "TrainingInputMode": "File"},
            "RoleArn": "arn:aws:iam::000000000000:role/r",
            "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            "StaticHyperParameters": {"epochs": "3"}
        }
    })
}

/// The message for a request with one place changed; null takes the member away.
fn changed(pointer: &str, value: Value) -> String {
    let mut document = create();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[name] = value;
    message("CreateHyperParameterTuningJob", &document)
}

#[test]
fn a_valid_request_passes() {
    assert_eq!(outcome("CreateHyperParameterTuningJob", &create()), Ok(()));
    assert_eq!(outcome("ListTrainingJobs", &json!({})), Ok(()));
    assert_eq!(outcome("ListTrainingJobs", &json!({"NextToken": null, "CreationTimeAfter": 1.5})), Ok(()));
}

#[test]
fn a_name_that_fits_neither_pattern_nor_length_breaks_both() {
    let name = "a_name_that_is_much_too_long_for_it";
    insta::assert_snapshot!(
        message("DescribeHyperParameterTuningJob", &json!({"HyperParameterTuningJobName": name})),
        @"2 validation errors detected: Value 'a_name_that_is_much_too_long_for_it' at 'hyperParameterTuningJobName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}; Value 'a_name_that_is_much_too_long_for_it' at 'hyperParameterTuningJobName' failed to satisfy constraint: Member must have length less than or equal to 32"
    );
    insta::assert_snapshot!(
        message("DescribeTrainingJob", &json!({"TrainingJobName": ""})),
        @"2 validation errors detected: Value '' at 'trainingJobName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}; Value '' at 'trainingJobName' failed to satisfy constraint: Member must have length greater than or equal to 1"
    );
}

#[test]
fn what_is_required_must_be_there() {
    insta::assert_snapshot!(
        message("CreateHyperParameterTuningJob", &json!({})),
        @"2 validation errors detected: Value null at 'hyperParameterTuningJobName' failed to satisfy constraint: Member must not be null; Value null at 'hyperParameterTuningJobConfig' failed to satisfy constraint: Member must not be null"
    );
    insta::assert_snapshot!(
        changed("/HyperParameterTuningJobConfig/ResourceLimits/MaxParallelTrainingJobs", Value::Null),
        @"1 validation error detected: Value null at 'hyperParameterTuningJobConfig.resourceLimits.maxParallelTrainingJobs' failed to satisfy constraint: Member must not be null"
    );
    insta::assert_snapshot!(
        changed("/Tags", json!([{"Key": "a", "Value": "b"}, null, {"Key": "c"}])),
        @"2 validation errors detected: Value null at 'tags.2.member' failed to satisfy constraint: Member must not be null; Value null at 'tags.3.member.value' failed to satisfy constraint: Member must not be null"
    );
}

#[test]
fn enums_numbers_and_lists_say_their_bounds() {
    insta::assert_snapshot!(
        changed("/HyperParameterTuningJobConfig/Strategy", json!("random")),
        @"1 validation error detected: Value 'random' at 'hyperParameterTuningJobConfig.strategy' failed to satisfy constraint: Member must satisfy enum value set: [Bayesian, Random, Hyperband, Grid, TPE, SMAC, Anneal]"
    );
    insta::assert_snapshot!(
        changed("/HyperParameterTuningJobConfig/ResourceLimits/MaxRuntimeInSeconds", json!(119)),
        @"1 validation error detected: Value '119' at 'hyperParameterTuningJobConfig.resourceLimits.maxRuntimeInSeconds' failed to satisfy constraint: Member must have value greater than or equal to 120"
    );
    insta::assert_snapshot!(
        message("ListHyperParameterTuningJobs", &json!({"MaxResults": 101})),
        @"1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 100"
    );
    insta::assert_snapshot!(
        changed("/TrainingJobDefinition/InputDataConfig", json!([])),
        @"1 validation error detected: Value '[]' at 'trainingJobDefinition.inputDataConfig' failed to satisfy constraint: Member must have length greater than or equal to 1"
    );
    insta::assert_snapshot!(
        changed("/HyperParameterTuningJobConfig/ParameterRanges/IntegerParameterRanges", json!([{"Name": "n", "MinValue": "1", "MaxValue": "2", "ScalingType": "log"}])),
        @"1 validation error detected: Value 'log' at 'hyperParameterTuningJobConfig.parameterRanges.integerParameterRanges.1.member.scalingType' failed to satisfy constraint: Member must satisfy enum value set: [Auto, Linear, Logarithmic, ReverseLogarithmic]"
    );
}

#[test]
fn plain_items_of_lists_and_maps_are_told_together() {
    insta::assert_snapshot!(
        changed("/TrainingJobDefinition/VpcConfig", json!({"SecurityGroupIds": ["sg-1", "sg_2", "sg 3"], "Subnets": ["a"]})),
        @"1 validation error detected: Value '[sg_2, sg 3]' at 'trainingJobDefinition.vpcConfig.securityGroupIds' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 32, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: [-0-9a-zA-Z]+]"
    );
    insta::assert_snapshot!(
        changed("/TrainingJobDefinition/Environment", json!({"GOOD": "1", "2BAD": "x"})),
        @"1 validation error detected: Value '{2BAD=x}' at 'trainingJobDefinition.environment' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 512, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]*]"
    );
    insta::assert_snapshot!(
        changed("/TrainingJobDefinition/StaticHyperParameters", json!({"short": "1", "long": "x".repeat(2501)})).replace(&"x".repeat(250), "x…x"),
        @"1 validation error detected: Value '{long=x…x…' at 'trainingJobDefinition.staticHyperParameters' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 2500, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: .*]"
    );
}

#[test]
fn lengths_count_characters_not_bytes() {
    assert_eq!(changed("/TrainingJobDefinition/StaticHyperParameters/epochs", json!("é".repeat(2500))), "valid");
    assert_ne!(changed("/TrainingJobDefinition/StaticHyperParameters/epochs", json!("é".repeat(2501))), "valid");
}

#[test]
fn members_that_the_model_does_not_know_are_named() {
    insta::assert_snapshot!(
        changed("/TrainingJobDefinition/roleArn", json!("x")),
        @"1 validation error detected: 'trainingJobDefinition.roleArn' is not a member that the service model knows: 'roleArn'; did you mean 'RoleArn'?"
    );
    insta::assert_snapshot!(
        message("StopTrainingJob", &json!({"TrainingJobName": "a", "Force": true})),
        @"1 validation error detected: 'force' is not a member that the service model knows: 'Force'"
    );
}

#[test]
fn another_type_cannot_be_read_at_all() {
    insta::assert_snapshot!(
        changed("/HyperParameterTuningJobConfig/ResourceLimits/MaxParallelTrainingJobs", json!("2")),
        @"WrongType: STRING_VALUE at 'hyperParameterTuningJobConfig.resourceLimits.maxParallelTrainingJobs' can not be converted to an Integer"
    );
    insta::assert_snapshot!(
        changed("/TrainingJobDefinition/StaticHyperParameters/epochs", json!(3)),
        @"WrongType: NUMBER_VALUE at 'trainingJobDefinition.staticHyperParameters.epochs' can not be converted to a String"
    );
    insta::assert_snapshot!(message("ListTags", &json!([])), @"WrongType: START_ARRAY as the whole document can not be converted to a structure");
    for (pointer, value) in [
        ("/HyperParameterTuningJobName", json!({"a": 1})),
        ("/HyperParameterTuningJobConfig", json!("x")),
        ("/HyperParameterTuningJobConfig/RandomSeed", json!(1.5)),
        ("/HyperParameterTuningJobConfig/RandomSeed", json!(4_294_967_296_u64)),
        ("/TrainingJobDefinition/EnableNetworkIsolation", json!("true")),
        ("/TrainingJobDefinition/InputDataConfig", json!({})),
        ("/TrainingJobDefinition/Environment", json!([])),
        ("/Tags", json!(["a"])),
    ] {
        assert!(changed(pointer, value).starts_with("WrongType"), "{pointer}");
    }
}

#[test]
fn a_message_stays_short_whatever_was_sent() {
    let tags: Vec<Value> = (0..20_000).map(|i| json!({"Key": format!("\u{1}{i}"), "Value": "v".repeat(40)})).collect();
    let text = message("AddTags", &json!({"ResourceArn": "x".repeat(100_000), "Tags": tags}));
    assert!(text.starts_with("20003 validation errors detected: "), "{}", &text[..200]);
    assert!(text.ends_with("; and 19953 more"));
    assert!(text.len() < 32 << 10, "{}", text.len());
}
