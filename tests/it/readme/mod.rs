//! Keeps the README true: its snippets run as they stand.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use crate::support::server::{BINARY, ServerProcess, client, command};

/// The code blocks of the README: language and text.
fn snippets() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut found = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((language.to_owned(), text.join("\n")));
        }
    }
    found
}

/// The one snippet of a language that contains a text.
fn snippet(language: &str, part: &str) -> String {
    let found: Vec<String> =
        snippets().into_iter().filter(|(l, text)| l == language && text.contains(part)).map(|(_, text)| text).collect();
    assert_eq!(found.len(), 1, "the README has {} {language} snippets with `{part}`", found.len());
    found.into_iter().next().unwrap()
}

#[test]
fn the_demo_runs_and_leaves_nothing() {
    assert!(snippet("bash", "-- demo").starts_with("cargo run --release -- demo "));
    let folder = tempfile::tempdir().unwrap();
    // The binary under test is not optimised, so it trains shorter; all else is the README's demo.
    let output = command().args(["demo", "--epochs", "2"]).env("TMPDIR", folder.path()).output().unwrap();
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}\n{errors}");
    assert_eq!(shown.lines().filter(|line| line.contains("/20  digits-0")).count(), 20, "{shown}");
    for part in ["The best models:", "aws sagemaker describe-training-job --training-job-name digits-0"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo left files");
}

#[test]
fn a_script_of_ones_own_is_tuned() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("train.py", snippet("python", "hyperparameters.json"));
    let config = snippet("toml", "[[images]]").replace("\"python3\"", &format!("{:?}", client("python")));
    // What the README says to set as root, and harmless otherwise.
    write("tunesmith.toml", format!("{config}\n[process]\nallow_root = true\n"));
    let server = ServerProcess::start(&folder.path().join("tunesmith.toml"), &folder.path().join("data"), None);
    let port = server.url.rsplit_once(':').unwrap().1;
    let at_server = |text: String| text.replace("127.0.0.1:8686", &format!("127.0.0.1:{port}"));

    write("tune.py", at_server(snippet("python", "create_hyper_parameter_tuning_job")));
    run(Command::new(client("python")).arg(folder.path().join("tune.py")));

    let shell = at_server(snippet("bash", "AWS_ENDPOINT_URL_SAGEMAKER"));
    let (exports, look) = shell.split_at(shell.find("aws sagemaker describe").unwrap());
    let (look, logs) = look.split_at(look.find("tunesmith logs").unwrap());
    let path = std::env::var_os("PATH").unwrap();
    let binaries = format!("{}:{}", client("aws").parent().unwrap().display(), path.to_string_lossy());
    let shell = |script: &str, variables: &HashMap<&str, &str>| {
        let tunesmith = format!("tunesmith() {{ {BINARY:?} \"$@\"; }}\n");
        let mut bash = Command::new("bash");
        bash.args(["-euc", &format!("{tunesmith}{script}")]).env("PATH", &binaries).env("AWS_PAGER", "");
        run(bash.envs(variables))
    };
    let credentials = [
        ("AWS_ACCESS_KEY_ID", "any"),
        ("AWS_SECRET_ACCESS_KEY", "any"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SAGEMAKER", server.url.as_str()),
    ];
    let mut variables = HashMap::from(credentials);
    let describe = "aws sagemaker describe-hyper-parameter-tuning-job --hyper-parameter-tuning-job-name first \
                    --query HyperParameterTuningJobStatus --output text";
    // Each look takes the CLI most of a second: that is the pause between them.
    let ended = (0..120).map(|_| shell(describe, &variables)).find(|status| status.trim() != "InProgress");
    assert_eq!(ended.as_deref().map(str::trim), Some("Completed"));

    let shown = shell(&format!("{exports}{look}"), &HashMap::new());
    assert!(shown.contains("\"Completed\": 8"), "{shown}");
    let best = shown.split("\"TrainingJobName\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    variables.insert("TRAINING_JOB", &best);
    assert!(shell(logs, &variables).contains("loss="));
}

fn run(command: &mut Command) -> String {
    // Signed with anything, configured by nothing.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any");
    let output = command.output().unwrap();
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{shown}\n{errors}");
    shown.into_owned()
}

#[test]
fn every_file_that_the_readme_links_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let links: Vec<&str> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!links.is_empty());
    for link in links.iter().filter(|link| !link.starts_with("http")) {
        assert!(root.join(link).exists(), "the README links {link}, which is not there");
    }
}
