//! Requests that break one rule each, and the word of the refusal that says what to change.

use serde_json::{Value, json};

use super::*;

fn valid() -> Value {
    json!({
        "HyperParameterTuningJobName": "tune",
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "3"}],
                "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}]
            }
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"epochs": "3"},
            "AlgorithmSpecification": {
                "TrainingImage": "local/x:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}]
            },
            "InputDataConfig": [
                {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/a/"}}}
            ],
            "OutputDataConfig": {"S3OutputPath": "s3://data/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "CheckpointConfig": {"S3Uri": "s3://data/ck", "LocalPath": "/opt/ml/checkpoints"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60}
        }
    })
}

/// The plan of the valid request with the value at a JSON pointer changed; `null` removes it.
fn planned(pointer: &str, value: Value) -> Result<Plan, RuleError> {
    let mut request = valid();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    let parent = request.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list[member.parse::<usize>().unwrap()] = value,
        parent => parent[member] = value,
    }
    plan(&serde_json::from_value(request).unwrap(), &[], 10_000)
}

fn refusal(pointer: &str, value: Value) -> String {
    planned(pointer, value).expect_err(pointer).to_string()
}

const CONFIG: &str = "/HyperParameterTuningJobConfig";
const LIMITS: &str = "/HyperParameterTuningJobConfig/ResourceLimits";
const RANGES: &str = "/HyperParameterTuningJobConfig/ParameterRanges";
const CHANNEL: &str = "/TrainingJobDefinition/InputDataConfig/0";

/// The resources of the valid request with another strategy and other settings of it.
fn resources(strategy: &str, config: &Value, early_stopping: &str, statics: &Value) -> Result<(u32, u32), String> {
    let mut request = valid();
    request["HyperParameterTuningJobConfig"]["Strategy"] = json!(strategy);
    request["HyperParameterTuningJobConfig"]["StrategyConfig"] = json!({ "HyperbandStrategyConfig": config });
    request["HyperParameterTuningJobConfig"]["TrainingJobEarlyStoppingType"] = json!(early_stopping);
    request["TrainingJobDefinition"]["StaticHyperParameters"] = statics.clone();
    let request: TuningRequest = serde_json::from_value(request).unwrap();
    plan(&request, &[], 10_000).map_err(|error| error.to_string())?;
    Ok(resource(&request).unwrap().map_or((0, 0), |range| (*range.start(), *range.end())))
}

#[test]
fn hyperband_knows_how_far_a_training_job_may_go() {
    let none = json!({});
    let both = json!({"MinResource": 2, "MaxResource": 30});
    assert_eq!(resources("Hyperband", &both, "Off", &json!({"epochs": "3"})), Ok((2, 30)));
    for key in ["epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs"] {
        assert_eq!(resources("Hyperband", &none, "Off", &json!({ key: "27" })), Ok((1, 27)));
    }
    let refused =
        |config: &Value, early: &str, statics: Value| resources("Hyperband", config, early, &statics).unwrap_err();
    let unknown = "MaxResource parameter is not provided and could not be inferred from provided static \
                   hyperparameters of TrainingJobDefinition.";
    assert_eq!(refused(&none, "Off", json!({})), unknown);
    assert_eq!(refused(&none, "Off", json!({"epochs": "many"})), unknown);
    assert!(refused(&json!({"MaxResource": 20_001}), "Off", json!({})).contains("[20000]"));
    assert!(refused(&json!({"MinResource": 4}), "Off", json!({"epochs": "3"})).contains("MinResource [4]"));
    assert!(refused(&both, "Auto", json!({})).contains("must be Off"));
    assert!(resources("Random", &both, "Off", &json!({})).unwrap_err().contains("belongs to the Hyperband strategy"));
    assert_eq!(resources("Random", &none, "Auto", &json!({})), Ok((0, 0)));
}

#[test]
fn a_valid_request_is_planned_as_it_stands() {
    let plan = planned("/HyperParameterTuningJobName", json!("tune")).unwrap();
    assert_eq!((plan.max_jobs, plan.space.parameters.len(), plan.metric_definitions.len()), (6, 2, 1));
}

#[test]
fn what_the_object_store_could_not_keep_is_refused_at_once() {
    let path = "/TrainingJobDefinition/OutputDataConfig/S3OutputPath";
    let longest = format!("s3://data/{}", "x".repeat(255));
    assert!(planned(path, json!(longest)).is_ok());
    assert!(refusal(path, json!(format!("{longest}x"))).contains("longer than 255 bytes"));
    assert!(planned(path, json!("s3://Old_Bucket/out")).is_ok());
}

#[test]
fn a_definition_that_describe_showed_can_be_sent_again() {
    let path = "/TrainingJobDefinition/StaticHyperParameters";
    // With two tuned ones these are a hundred, the most that there may be.
    let mut statics: serde_json::Map<String, Value> = (0..97).map(|i| (format!("s{i}"), json!("1"))).collect();
    statics.insert(OBJECTIVE_HYPERPARAMETER.into(), json!("loss"));
    assert!(planned(path, Value::Object(statics.clone())).is_ok());
    statics.insert("s97".into(), json!("1"));
    assert!(refusal(path, Value::Object(statics)).contains("[101] hyperparameters"));
}

#[test]
fn every_broken_rule_is_named_with_what_to_change() {
    let channel = valid().pointer("/TrainingJobDefinition/InputDataConfig/0").unwrap().clone();
    let many: Vec<Value> =
        (0..31).map(|i| json!({"Name": format!("p{i}"), "MinValue": "0", "MaxValue": "9"})).collect();
    let statics: serde_json::Map<String, Value> = (0..98).map(|i| (format!("s{i}"), json!("1"))).collect();
    let definition = "/TrainingJobDefinition";
    let cases = [
        ("/TrainingJobDefinition".into(), Value::Null, "TrainingJobDefinition is required"),
        (format!("{CONFIG}/HyperParameterTuningJobObjective"), Value::Null, "A metric is required for this"),
        (
            format!("{CONFIG}/HyperParameterTuningJobObjective/MetricName"),
            json!("auc"),
            "the defined metrics are [loss]",
        ),
        (RANGES.into(), Value::Null, "at least one integer, continuous or categorical"),
        (RANGES.into(), json!({"ContinuousParameterRanges": many}), "[31] ranges in all"),
        (format!("{RANGES}/CategoricalParameterRanges/0/Name"), json!("epochs"), "both in ParameterRanges and in"),
        (format!("{RANGES}/CategoricalParameterRanges/0/Name"), json!("_tuning_objective_metric"), "is reserved"),
        (format!("{definition}/StaticHyperParameters"), json!({"_tuning_objective_metric": "x"}), "is reserved"),
        (format!("{definition}/StaticHyperParameters"), Value::Object(statics), "[101] hyperparameters"),
        (format!("{RANGES}/IntegerParameterRanges/0/MaxValue"), json!("0"), "must be less than its MaxValue"),
        (format!("{CONFIG}/Strategy"), json!("Grid"), "depth is not categorical"),
        (format!("{LIMITS}/MaxNumberOfTrainingJobs"), Value::Null, "MaxNumberOfTrainingJobs or MaxRuntimeInSeconds"),
        (format!("{CHANNEL}/ChannelName"), json!(".."), "can't be the name of a folder"),
        (format!("{definition}/InputDataConfig"), json!([channel, channel]), "used more than once"),
        (format!("{CHANNEL}/DataSource"), json!({}), "either an S3DataSource or a File"),
        (format!("{CHANNEL}/DataSource/S3DataSource/S3Uri"), json!("https://evil/x"), "begin with s3://"),
        (format!("{definition}/OutputDataConfig/S3OutputPath"), json!("s3://data/../x"), "empty part, `.` or `..`"),
        (format!("{definition}/OutputDataConfig/S3OutputPath"), json!("s3://../x"), "the bucket must be"),
        (format!("{definition}/CheckpointConfig/LocalPath"), json!("/etc"), "not beneath /opt/ml"),
        (format!("{definition}/CheckpointConfig/LocalPath"), json!("/opt/ml/../../etc"), "`.` or `..`"),
        (format!("{definition}/CheckpointConfig/LocalPath"), json!("/opt/ml/model"), "the service itself uses"),
        (format!("{definition}/ResourceConfig"), Value::Null, "Either ResourceConfig or"),
        (format!("{definition}/ResourceConfig/InstanceCount"), json!(0), "must be at least 1"),
        (format!("{definition}/ResourceConfig/InstanceType"), Value::Null, "InstanceType is required"),
        (
            format!("{definition}/HyperParameterTuningResourceConfig"),
            json!({"InstanceType": "ml.c5.large", "InstanceCount": 1}),
            "Provide only one",
        ),
        (format!("{definition}/StoppingCondition/MaxRuntimeInSeconds"), json!(2_419_201), "more than 28 days"),
        ("/Tags".into(), json!([{"Key": "a", "Value": ""}, {"Key": "a", "Value": "x"}]), "more than once"),
        ("/Tags".into(), json!([{"Key": "AWS:x", "Value": ""}]), "reserved prefix"),
    ];
    for (pointer, value, word) in cases {
        let text = refusal(&pointer, value);
        assert!(text.contains(word), "{pointer}: {text}");
    }
}

#[test]
fn a_discrete_space_smaller_than_the_budget_is_refused_in_the_services_words() {
    assert_eq!(
        refusal(&format!("{LIMITS}/MaxNumberOfTrainingJobs"), json!(7)),
        "You don't have enough combinations of hyperparameter ranges. The total number of hyperparameter combinations \
         for the provided ranges [6.0] must be equal or greater than the value of MaxNumberOfJobs, [7]. Provide \
         additional ranges."
    );
}

#[test]
fn a_grid_derives_its_budget_and_holds_a_given_one_to_it() {
    let mut request = valid();
    request["HyperParameterTuningJobConfig"]["Strategy"] = json!("Grid");
    request["HyperParameterTuningJobConfig"]["ParameterRanges"] = json!({"CategoricalParameterRanges": [
        {"Name": "a", "Values": ["1", "2", "3"]}, {"Name": "b", "Values": ["1", "2"]}]});
    let planned = |n: Value| {
        let mut request = request.clone();
        request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] = n;
        plan(&serde_json::from_value(request).unwrap(), &[], 10_000)
    };
    assert_eq!(planned(Value::Null).unwrap().max_jobs, 6);
    assert_eq!(planned(json!(6)).unwrap().max_jobs, 6);
    assert_eq!(planned(json!(5)), Err(RuleError::GridBudget { combinations: 6, given: 5 }));
}

#[test]
fn a_run_time_alone_bounds_a_search_by_what_the_space_has_and_the_quota_allows() {
    let mut request = valid();
    request["HyperParameterTuningJobConfig"]["ResourceLimits"] =
        json!({"MaxParallelTrainingJobs": 2, "MaxRuntimeInSeconds": 600});
    let jobs = |request: &Value, quota| plan(&serde_json::from_value(request.clone()).unwrap(), &[], quota).unwrap();
    assert_eq!(jobs(&request, 10_000).max_jobs, 6);
    assert_eq!(jobs(&request, 4).max_jobs, 4);
    request["HyperParameterTuningJobConfig"]["ParameterRanges"]["ContinuousParameterRanges"] =
        json!([{"Name": "x", "MinValue": "0", "MaxValue": "1"}]);
    assert_eq!(jobs(&request, 10_000).max_jobs, 10_000);
}

#[test]
fn the_images_metrics_serve_a_request_without_its_own() {
    let registered = [MetricDefinition { name: "loss".into(), regex: "l=(.*)".into() }];
    let mut request = valid();
    request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"] = Value::Null;
    let request: TuningRequest = serde_json::from_value(request).unwrap();
    assert_eq!(plan(&request, &registered, 10).unwrap().metric_definitions, registered);
    assert!(matches!(plan(&request, &[], 10), Err(RuleError::NoObjectiveMetric(_))));
}

#[test]
fn a_channel_is_a_prefix_or_a_directory_of_a_file_system() {
    let source = "/TrainingJobDefinition/InputDataConfig/0/DataSource";
    let directory = |path: &str| {
        json!({"FileSystemDataSource": {"FileSystemId": "fs-01234567", "FileSystemType": "EFS",
            "FileSystemAccessMode": "ro", "DirectoryPath": path}})
    };
    for path in ["/", "/data", "/data/train/"] {
        assert!(planned(source, directory(path)).is_ok(), "{path}");
    }
    for path in ["", "data", "//", "/a//b", "/..", "/a/../../b", "/a\nb"] {
        assert!(refusal(source, directory(path)).contains("DirectoryPath"), "{path:?}");
    }
    let mut both = directory("/data");
    both["S3DataSource"] = json!({"S3DataType": "S3Prefix", "S3Uri": "s3://data/a/"});
    assert!(refusal(source, both).contains("either an S3DataSource or a FileSystemDataSource"));
    let fast = json!({"ChannelName": "train", "InputMode": "FastFile", "DataSource": directory("/data")});
    assert!(refusal("/TrainingJobDefinition/InputDataConfig/0", fast).contains("needs the input mode File"));
}

#[test]
fn what_belongs_to_pipe_is_taken_with_pipe_alone() {
    let with = |mode: Option<&str>, data_type: &str, attributes: Value, extra: (&str, &str)| {
        let mut channel = valid().pointer(CHANNEL).unwrap().clone();
        channel["DataSource"]["S3DataSource"] =
            json!({"S3DataType": data_type, "S3Uri": "s3://data/a", "AttributeNames": attributes});
        channel["InputMode"] = json!(mode);
        channel[extra.0] = json!(extra.1);
        planned(CHANNEL, channel).map(drop)
    };
    let none = ("ContentType", "text/csv");
    let (gzip, record_io) = (("CompressionType", "Gzip"), ("RecordWrapperType", "RecordIO"));
    for extra in [none, gzip, record_io] {
        for data_type in ["S3Prefix", "ManifestFile"] {
            assert_eq!(with(Some("Pipe"), data_type, Value::Null, extra), Ok(()));
            assert_eq!(with(Some("Pipe"), data_type, json!([]), extra), Ok(()));
        }
        assert_eq!(with(Some("Pipe"), "AugmentedManifestFile", json!(["image-ref", "label"]), extra), Ok(()));
    }
    for mode in [None, Some("File"), Some("FastFile")] {
        assert_eq!(with(mode, "S3Prefix", Value::Null, none), Ok(()));
        for extra in [gzip, record_io] {
            let told = with(mode, "S3Prefix", Value::Null, extra).unwrap_err().to_string();
            let named = told.contains(&format!("{} [{}] of channel train", extra.0, extra.1));
            assert!(named && told.contains("only in Pipe input mode"), "{told}");
        }
        let told = with(mode, "AugmentedManifestFile", json!(["a"]), none).unwrap_err().to_string();
        assert!(
            told.starts_with("AugmentedManifestFile can only be used if the Channel's input mode is Pipe."),
            "{told}"
        );
    }
    for attributes in [Value::Null, json!([])] {
        let told = with(Some("Pipe"), "AugmentedManifestFile", attributes, none).unwrap_err().to_string();
        assert!(told.contains("no AttributeNames"), "{told}");
    }
    let told = with(Some("Pipe"), "ManifestFile", json!(["a"]), none).unwrap_err().to_string();
    assert!(told.contains("AttributeNames of channel train belongs to"), "{told}");
}

#[test]
fn the_definitions_input_mode_counts_where_a_channel_has_none() {
    let mut request = valid();
    request["TrainingJobDefinition"]["AlgorithmSpecification"]["TrainingInputMode"] = json!("Pipe");
    request["TrainingJobDefinition"]["InputDataConfig"][0]["RecordWrapperType"] = json!("RecordIO");
    let planned = |request: &Value| plan(&serde_json::from_value(request.clone()).unwrap(), &[], 10).map(drop);
    assert_eq!(planned(&request), Ok(()));
    request["TrainingJobDefinition"]["InputDataConfig"][0]["InputMode"] = json!("File");
    assert!(matches!(planned(&request), Err(RuleError::PipeOnly { .. })));
    request["TrainingJobDefinition"]["InputDataConfig"][0] = json!({"ChannelName": "x", "DataSource": {
        "FileSystemDataSource": {"FileSystemId": "fs-01234567", "FileSystemType": "EFS", "DirectoryPath": "/"}}});
    assert_eq!(planned(&request), Err(RuleError::FileSystemInputMode("x".into())));
}

#[test]
fn no_folder_is_where_a_pipe_is_to_be() {
    let with = |names: &[(&str, &str)]| {
        let mut request = valid();
        let source = request.pointer(&format!("{CHANNEL}/DataSource")).unwrap().clone();
        let channels =
            names.iter().map(|(name, mode)| json!({"ChannelName": name, "InputMode": mode, "DataSource": source}));
        request["TrainingJobDefinition"]["InputDataConfig"] = channels.collect();
        plan(&serde_json::from_value(request).unwrap(), &[], 10).map(drop)
    };
    for fine in [
        [("train", "Pipe"), ("train_0", "Pipe")],
        [("train", "Pipe"), ("train_x", "File")],
        [("train", "Pipe"), ("train_", "File")],
        [("train", "File"), ("train_0", "FastFile")],
        [("train", "Pipe"), ("trainer_1", "File")],
    ] {
        assert_eq!(with(&fine), Ok(()), "{fine:?}");
    }
    let taken = RuleError::PipeName { name: "train_12".into(), pipe: "train".into() };
    assert_eq!(with(&[("train_12", "File"), ("train", "Pipe")]), Err(taken));
}

#[test]
fn spot_training_waits_at_least_as_long_as_it_may_run() {
    let with = |spot: Value, runtime: Value, wait: Value| {
        let mut request = valid();
        request["TrainingJobDefinition"]["EnableManagedSpotTraining"] = spot;
        request["TrainingJobDefinition"]["StoppingCondition"] =
            json!({"MaxRuntimeInSeconds": runtime, "MaxWaitTimeInSeconds": wait});
        plan(&serde_json::from_value(request).unwrap(), &[], 10).map(drop)
    };
    assert_eq!(with(json!(true), json!(60), json!(60)), Ok(()));
    assert_eq!(with(json!(false), json!(60), Value::Null), Ok(()));
    assert_eq!(with(json!(true), json!(60), json!(59)), Err(RuleError::MaxWait));
    assert_eq!(with(json!(true), json!(60), Value::Null), Err(RuleError::MaxWait));
    assert_eq!(with(json!(true), Value::Null, json!(86_399)), Err(RuleError::MaxWait), "a day is the default");
    for not_spot in [json!(false), Value::Null] {
        assert_eq!(with(not_spot, json!(60), json!(60)), Err(RuleError::WaitWithoutSpot));
    }
}

#[test]
fn both_resource_members_may_stand_where_they_agree() {
    let same = json!({"InstanceType": "ml.m5.large", "InstanceCount": 1});
    assert!(planned("/TrainingJobDefinition/HyperParameterTuningResourceConfig", same).is_ok());
}
