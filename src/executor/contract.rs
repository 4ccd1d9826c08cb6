//! The container contract of the service, as data: configuration files and environment of a training program.
//!
//! Invariant: a pure function of the attempt and of where its folders are seen; nothing of the server's own environment
//! is in it. The `SM_*` variables are the ones that the public training toolkit sets inside its images; they are set here
//! so that a program can be written against them without the toolkit. Putting files in place and starting programs is
//! left to the executors.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Value, json};

use crate::domain::rules::OBJECTIVE_HYPERPARAMETER;
use crate::executor::{AttemptSpec, code_variables};

/// The folder that the contract is written about.
pub const ROOT: &str = "/opt/ml";

/// The name of one of a training job's hosts, counted from 0.
#[must_use]
pub fn host_name(host: usize) -> String {
    format!("algo-{}", host + 1)
}

/// Linux refuses a single string of 128 KiB or more to a program: such variables are left out, the files have it all.
const MAX_VARIABLE: usize = 120 * 1024;

/// What the contract tells of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Which of the training job's hosts it is, from 0.
    pub host: usize,
    /// CPUs.
    pub cpus: usize,
    /// GPUs.
    pub gpus: usize,
    /// The name of the network interface.
    pub network_interface: &'static str,
}

/// The files of `input/config`, by name.
#[must_use]
pub fn config_files(spec: &AttemptSpec, machine: &Machine) -> [(&'static str, String); 3] {
    [
        ("hyperparameters.json", json!(spec.hyperparameters).to_string()),
        ("resourceconfig.json", resource_config(spec, machine).to_string()),
        ("inputdataconfig.json", input_data_config(spec).to_string()),
    ]
}

/// The environment of the training program, where `root` is what it sees as `/opt/ml`.
///
/// # Errors
/// A text for the user where the job's own `Environment` holds a variable that no job may set.
pub fn environment(
    spec: &AttemptSpec,
    machine: &Machine,
    root: &str,
    code: Code,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = toolkit_variables(spec, machine, root);
    for (name, value) in &spec.environment {
        if let Some(why) = refused_variable(name, code) {
            return Err(format!("the environment variable {name} cannot be set by a job: {why}"));
        }
        if value.contains('\0') {
            return Err(format!("the environment variable {name} holds a NUL character"));
        }
        env.insert(name.clone(), value.clone());
    }
    env.insert("TRAINING_JOB_NAME".into(), spec.training_job_name.clone());
    env.insert("TRAINING_JOB_ARN".into(), spec.training_job_arn.clone());
    env.retain(|_, value| value.len() < MAX_VARIABLE);
    Ok(env)
}

/// Whose code a training program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The server's owner chose the command, and a request may not make it run something else.
    OfTheOwner,
    /// A container image: all its code runs in there, whatever the environment makes of it.
    OfTheImage,
}

/// Why a job may not set an environment variable of this name; none where it may.
#[must_use]
pub fn refused_variable(name: &str, code: Code) -> Option<&'static str> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Some("a name is not empty and holds neither `=` nor NUL");
    }
    if code == Code::OfTheOwner
        && let Some(why) = code_variables::reason(name)
    {
        return Some(why);
    }
    if matches!(name, "TRAINING_JOB_NAME" | "TRAINING_JOB_ARN") {
        return Some("the service sets it");
    }
    if name.starts_with("TUNESMITH_") {
        return Some("names that begin with TUNESMITH_ are the service's own");
    }
    None
}

fn toolkit_variables(spec: &AttemptSpec, machine: &Machine, root: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &dyn Display| {
        env.insert(name.to_owned(), value.to_string());
    };
    set("SM_MODEL_DIR", &format_args!("{root}/model"));
    set("SM_INPUT_DIR", &format_args!("{root}/input"));
    set("SM_INPUT_CONFIG_DIR", &format_args!("{root}/input/config"));
    set("SM_OUTPUT_DIR", &format_args!("{root}/output"));
    set("SM_OUTPUT_DATA_DIR", &format_args!("{root}/output/data"));
    set("SM_HOSTS", &json!(hosts(spec)));
    set("SM_CURRENT_HOST", &host_name(machine.host));
    set("SM_NETWORK_INTERFACE_NAME", &machine.network_interface);
    set("SM_NUM_CPUS", &machine.cpus);
    set("SM_NUM_GPUS", &machine.gpus);
    set("SM_LOG_LEVEL", &20);
    set("SM_RESOURCE_CONFIG", &resource_config(spec, machine));
    set("SM_INPUT_DATA_CONFIG", &input_data_config(spec));
    if let Some(instance_type) = &spec.instance_type {
        set("SM_CURRENT_INSTANCE_TYPE", instance_type);
    }
    set("SM_CHANNELS", &json!(spec.channels.iter().map(|c| c.name.as_str()).collect::<Vec<_>>()));
    for channel in &spec.channels {
        let name = format!("SM_CHANNEL_{}", channel.name.to_uppercase());
        set(&name, &format_args!("{root}/input/data/{}", channel.name));
    }
    let decoded = user_hyperparameters(spec);
    set("SM_HPS", &json!(decoded));
    let arguments = decoded.iter().flat_map(|(name, value)| [option(name), argument(value)]);
    set("SM_USER_ARGS", &json!(arguments.collect::<Vec<_>>()));
    for (name, value) in &decoded {
        let value = variable(value);
        if !name.contains(['=', '\0']) && !value.contains('\0') {
            set(&format!("SM_HP_{}", name.to_uppercase()), &value);
        }
    }
    env
}

/// The hyperparameters that the toolkit hands on, decoded. It keeps back those that the service and its SDK add for
/// themselves; `hyperparameters.json` has them all.
fn user_hyperparameters(spec: &AttemptSpec) -> BTreeMap<&str, Value> {
    let kept_back = |name: &str| {
        name.starts_with("sagemaker_") || matches!(name, OBJECTIVE_HYPERPARAMETER | "default_user_module_name")
    };
    let all = spec.hyperparameters.iter().filter(|(name, _)| !kept_back(name));
    all.map(|(name, value)| (name.as_str(), decoded(value))).collect()
}

/// The toolkit reads each hyperparameter as JSON where it is JSON, and as a text otherwise. A whole number of more digits
/// than a number holds here stays a text, so that it keeps them all.
fn decoded(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(Value::Number(number)) if number.is_f64() && !value.contains(['.', 'e', 'E']) => Value::from(value),
        Ok(decoded) => decoded,
        Err(_) => Value::from(value),
    }
}

/// A hyperparameter's name as an option of a command line.
fn option(name: &str) -> String {
    if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") }
}

/// A decoded value as a word of a command line: as a Python program prints it, save that lists stay JSON.
fn argument(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Object(members) => {
            let pairs: Vec<_> = members.iter().map(|(name, value)| format!("{name}={}", argument(value))).collect();
            pairs.join(",")
        }
        other => variable(other),
    }
}

/// A decoded value as an environment variable: a text as it is, nothing for null, else JSON.
fn variable(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn resource_config(spec: &AttemptSpec, machine: &Machine) -> Value {
    let (current, hosts) = (host_name(machine.host), hosts(spec));
    let mut config =
        json!({ "current_host": current, "hosts": hosts, "network_interface_name": machine.network_interface });
    if let Some(instance_type) = &spec.instance_type {
        config["current_instance_type"] = json!(instance_type);
        config["current_group_name"] = json!("homogeneousCluster");
        config["instance_groups"] = json!([
            { "instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": hosts }
        ]);
    }
    config
}

/// The names of all hosts, in order.
fn hosts(spec: &AttemptSpec) -> Vec<String> {
    (0..spec.hosts).map(host_name).collect()
}

fn input_data_config(spec: &AttemptSpec) -> Value {
    spec.channels.iter().map(|channel| (channel.name.clone(), json!(channel.config))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::names::AttemptId;
    use crate::executor::ChannelSpec;

    const MACHINE: Machine = Machine { host: 0, cpus: 2, gpus: 0, network_interface: "lo" };

    fn spec() -> AttemptSpec {
        AttemptSpec {
            id: AttemptId { training_job: uuid::Uuid::nil(), number: 1 },
            training_job_name: "t-001-00000000".into(),
            training_job_arn: "arn:aws:sagemaker:us-east-1:000000000000:training-job/t-001-00000000".into(),
            image: "local/x:1".into(),
            hyperparameters: [("batch-size", "256"), ("opt", "adam")].map(|(k, v)| (k.into(), v.into())).into(),
            environment: BTreeMap::new(),
            channels: vec![ChannelSpec {
                name: "train".into(),
                source: "/data".into(),
                sharded: false,
                config: [("TrainingInputMode".to_owned(), "File".to_owned())].into(),
                pipe: None,
            }],
            checkpoints: None,
            volume_bytes: None,
            instance_type: Some("ml.m5.large".into()),
            hosts: 1,
            network_isolation: false,
            max_runtime_ms: 1000,
            stop_grace_ms: 1000,
        }
    }

    #[test]
    fn variables_have_what_the_toolkit_decodes_and_hands_on() {
        let mut spec = spec();
        spec.hyperparameters = [
            ("_tuning_objective_metric", "loss"),
            ("sagemaker_program", r#""train.py""#),
            ("default_user_module_name", "m"),
            ("opt", r#""adam""#),
            ("plain", "adam"),
            ("layers", "[1,2]"),
            ("nest", r#"{"a":1,"b":"x"}"#),
            ("none", "null"),
            ("rate", "0.5"),
            ("v", "true"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        let env = environment(&spec, &MACHINE, ROOT, Code::OfTheOwner).unwrap();
        let hps =
            r#"{"layers":[1,2],"nest":{"a":1,"b":"x"},"none":null,"opt":"adam","plain":"adam","rate":0.5,"v":true}"#;
        assert_eq!(env["SM_HPS"], hps);
        let arguments = r#"["--layers","[1,2]","--nest","a=1,b=x","--none","","--opt","adam","--plain","adam","--rate","0.5","-v","True"]"#;
        assert_eq!(env["SM_USER_ARGS"], arguments);
        let single: Vec<_> = env.iter().filter(|(name, _)| name.starts_with("SM_HP_")).collect();
        let expected = [
            ("SM_HP_LAYERS", "[1,2]"),
            ("SM_HP_NEST", r#"{"a":1,"b":"x"}"#),
            ("SM_HP_NONE", ""),
            ("SM_HP_OPT", "adam"),
            ("SM_HP_PLAIN", "adam"),
            ("SM_HP_RATE", "0.5"),
            ("SM_HP_V", "true"),
        ];
        assert_eq!(
            single,
            expected.map(|(n, v)| (n.to_owned(), v.to_owned())).iter().map(|(n, v)| (n, v)).collect::<Vec<_>>()
        );
        let [(_, file), ..] = config_files(&spec, &MACHINE);
        assert!(file.contains("_tuning_objective_metric") && file.contains(r#""opt":"\"adam\"""#), "{file}");
    }

    #[test]
    fn hyperparameters_are_texts_in_the_file_and_decoded_in_sm_hps() {
        let [(name, hyperparameters), (_, resources), (_, inputs)] = config_files(&spec(), &MACHINE);
        assert_eq!(name, "hyperparameters.json");
        assert_eq!(hyperparameters, r#"{"batch-size":"256","opt":"adam"}"#);
        assert!(resources.contains(r#""current_host":"algo-1""#), "{resources}");
        assert_eq!(inputs, r#"{"train":{"TrainingInputMode":"File"}}"#);

        let env = environment(&spec(), &MACHINE, ROOT, Code::OfTheOwner).unwrap();
        assert_eq!(env["SM_HPS"], r#"{"batch-size":256,"opt":"adam"}"#);
        assert_eq!(env["SM_HP_BATCH-SIZE"], "256");
        assert_eq!(env["SM_CHANNEL_TRAIN"], "/opt/ml/input/data/train");
        assert_eq!(env["TRAINING_JOB_NAME"], "t-001-00000000");
    }

    #[test]
    fn each_host_is_told_of_all_of_them_and_which_it_is() {
        let spec = AttemptSpec { hosts: 3, ..spec() };
        let second = Machine { host: 1, network_interface: "eth0", ..MACHINE };
        let [_, (_, resources), _] = config_files(&spec, &second);
        let resources: Value = serde_json::from_str(&resources).unwrap();
        let all = json!(["algo-1", "algo-2", "algo-3"]);
        let group = json!({"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": all});
        let expected = json!({
            "current_host": "algo-2", "hosts": all, "network_interface_name": "eth0", "instance_groups": [group],
            "current_instance_type": "ml.m5.large", "current_group_name": "homogeneousCluster",
        });
        assert_eq!(resources, expected);
        let env = environment(&spec, &second, ROOT, Code::OfTheImage).unwrap();
        assert_eq!((env["SM_CURRENT_HOST"].as_str(), env["SM_HOSTS"].as_str()), ("algo-2", all.to_string().as_str()));
    }

    #[test]
    fn the_jobs_environment_is_kept_but_cannot_load_code_or_rename_the_job() {
        let mut spec = spec();
        let kept =
            ["SM_MODEL_DIR", "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "PYTHONHASHSEED", "RAY_x", "HOMEPAGE"];
        spec.environment = kept.map(|name| (name.to_owned(), "/m".to_owned())).into();
        let env = environment(&spec, &MACHINE, ROOT, Code::OfTheOwner).unwrap();
        assert!(kept.iter().all(|name| env[*name] == "/m"), "{env:?}");
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "GLIBC_TUNABLES",
            "PATH",
            "HOME",
            "ENV",
            "BASH_ENV",
            "BASH_FUNC_x%%",
            "SHELLOPTS",
            "PS4",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHONHOME",
            "PERL5OPT",
            "RUBYOPT",
            "NODE_OPTIONS",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "CLASSPATH",
            "GIT_SSH_COMMAND",
            "R_PROFILE",
            "LUA_INIT",
            "OPENSSL_CONF",
            "TRAINING_JOB_NAME",
            "TUNESMITH_ATTEMPT",
            "",
            "A=B",
            "A\0",
        ] {
            spec.environment = [(name.to_owned(), "x".to_owned())].into();
            assert!(environment(&spec, &MACHINE, ROOT, Code::OfTheOwner).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_variable_too_long_for_a_program_is_left_out() {
        let mut spec = spec();
        spec.hyperparameters = (0..100).map(|i| (format!("h{i}"), "x".repeat(2500))).collect();
        let env = environment(&spec, &MACHINE, ROOT, Code::OfTheOwner).unwrap();
        assert!(!env.contains_key("SM_HPS") && env.contains_key("SM_HP_H99"));
    }
}
