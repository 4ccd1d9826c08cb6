//! The demo's training program: a container's `train`, without the container.
//!
//! Invariant: it knows the service only through the container contract — hyperparameters and channels as files, metrics
//! as lines of output, the model as a file, a failure as a text — so that it shows what a program of one's own has to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::network::{Activation, Example, Network, Rng};
use crate::config::Environment;

/// Pixels of an image.
const PIXELS: usize = 64;
/// The brightest pixel.
const BRIGHTEST: f32 = 16.0;
/// Digits.
const CLASSES: usize = 10;

/// Runs the program: 0 on success, else 1 with the reason in `/opt/ml/output/failure`.
#[must_use]
pub fn run(environment: &Environment) -> u8 {
    let places = Places::of(environment);
    match train(&places) {
        Ok(()) => 0,
        Err(error) => {
            let reason = format!("{error:#}");
            eprintln!("{reason}");
            // Best effort: the exit code says failed all the same.
            let _ = std::fs::write(places.output.join("failure"), reason);
            1
        }
    }
}

/// Where the contract puts things: `SM_*` say it, `/opt/ml` is where they are otherwise.
struct Places {
    config: PathBuf,
    train: PathBuf,
    validation: PathBuf,
    model: PathBuf,
    output: PathBuf,
}

impl Places {
    fn of(environment: &Environment) -> Self {
        let place = |variable, default: &str| environment.get(variable).map_or_else(|| default.into(), PathBuf::from);
        Self {
            config: place("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"),
            train: place("SM_CHANNEL_TRAIN", "/opt/ml/input/data/train"),
            validation: place("SM_CHANNEL_VALIDATION", "/opt/ml/input/data/validation"),
            model: place("SM_MODEL_DIR", "/opt/ml/model"),
            output: place("SM_OUTPUT_DIR", "/opt/ml/output"),
        }
    }
}

struct Hyperparameters {
    epochs: usize,
    batch_size: usize,
    hidden_units: usize,
    learning_rate: f32,
    activation: Activation,
}

impl Hyperparameters {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("hyperparameters.json");
        let text = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let texts: BTreeMap<String, String> =
            serde_json::from_slice(&text).with_context(|| format!("{} is no map of texts", path.display()))?;
        let activation = texts.get("activation").map_or("tanh", String::as_str);
        let hyperparameters = Self {
            epochs: number(&texts, "epochs", 15)?,
            batch_size: number(&texts, "batch_size", 16)?,
            hidden_units: number(&texts, "hidden_units", 32)?,
            learning_rate: number(&texts, "learning_rate", 0.1)?,
            activation: Activation::named(activation)
                .with_context(|| format!("the activation {activation} is not relu, tanh or sigmoid"))?,
        };
        if hyperparameters.epochs == 0 || hyperparameters.batch_size == 0 || hyperparameters.hidden_units == 0 {
            bail!("epochs, batch_size and hidden_units have to be at least 1");
        }
        Ok(hyperparameters)
    }
}

fn number<T: std::str::FromStr>(texts: &BTreeMap<String, String>, name: &str, default: T) -> anyhow::Result<T> {
    let Some(text) = texts.get(name) else { return Ok(default) };
    text.parse().ok().with_context(|| format!("the hyperparameter {name} is {text}, which is no such number"))
}

/// Trains, telling the metrics of each epoch, and leaves the model.
fn train(places: &Places) -> anyhow::Result<()> {
    let hyperparameters = Hyperparameters::read(&places.config)?;
    let (training, validation) = (read_channel(&places.train)?, read_channel(&places.validation)?);
    println!("{} images to train on, {} to validate with", training.len(), validation.len());
    // The same hyperparameters give the same model: differences between jobs are the hyperparameters' own.
    let mut rng = Rng::seeded(1);
    let mut network = Network::new(PIXELS, hyperparameters.hidden_units, CLASSES, hyperparameters.activation, &mut rng);
    let mut order: Vec<usize> = (0..training.len()).collect();
    for epoch in 1..=hyperparameters.epochs {
        rng.shuffle(&mut order);
        let loss = network.train_epoch(&training, &order, hyperparameters.batch_size, hyperparameters.learning_rate);
        let accuracy = network.accuracy(&validation);
        println!("epoch={epoch} train:loss={loss:.4} validation:accuracy={accuracy:.4}");
    }
    let path = places.model.join("model.json");
    std::fs::write(&path, network.to_json().to_string()).with_context(|| format!("can't write {}", path.display()))
}

/// All rows of a channel's files: 64 pixels and the digit.
fn read_channel(folder: &Path) -> anyhow::Result<Vec<Example>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("can't read the channel {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.sort();
    let mut examples = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "csv")) {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        for (index, line) in text.lines().enumerate() {
            let example = read_row(line)
                .with_context(|| format!("{}, line {}: not 64 pixels and a digit", file.display(), index + 1))?;
            examples.push(example);
        }
    }
    if examples.is_empty() {
        bail!("the channel {} has no rows", folder.display());
    }
    Ok(examples)
}

fn read_row(line: &str) -> Option<Example> {
    let values: Vec<u8> = line.split(',').map(|text| text.trim().parse().ok()).collect::<Option<_>>()?;
    let (&digit, pixels) = values.split_last()?;
    (pixels.len() == PIXELS && usize::from(digit) < CLASSES).then(|| Example {
        features: pixels.iter().map(|pixel| f32::from(*pixel) / BRIGHTEST).collect(),
        class: usize::from(digit),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn folders(hyperparameters: &str) -> (tempfile::TempDir, Environment) {
        let root = tempfile::tempdir().unwrap();
        let mut variables = Vec::new();
        for (variable, name) in [
            ("SM_INPUT_CONFIG_DIR", "config"),
            ("SM_CHANNEL_TRAIN", "train"),
            ("SM_CHANNEL_VALIDATION", "validation"),
            ("SM_MODEL_DIR", "model"),
            ("SM_OUTPUT_DIR", "output"),
        ] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            variables.push((variable.to_owned(), OsString::from(root.path().join(name))));
        }
        let (train, validation) = super::super::data::split();
        std::fs::write(root.path().join("train/digits.csv"), train).unwrap();
        std::fs::write(root.path().join("validation/digits.csv"), validation).unwrap();
        std::fs::write(root.path().join("config/hyperparameters.json"), hyperparameters).unwrap();
        (root, variables.into_iter().collect())
    }

    #[test]
    fn it_leaves_a_model() {
        let (root, environment) = folders(r#"{"epochs": "1", "hidden_units": "4", "_tuning_objective_metric": "x"}"#);
        assert_eq!(run(&environment), 0);
        let model: serde_json::Value =
            serde_json::from_slice(&std::fs::read(root.path().join("model/model.json")).unwrap()).unwrap();
        assert_eq!(model["hidden_units"], 4);
    }

    #[test]
    fn it_says_why_it_failed() {
        let (root, environment) = folders(r#"{"learning_rate": "fast"}"#);
        assert_eq!(run(&environment), 1);
        let failure = std::fs::read_to_string(root.path().join("output/failure")).unwrap();
        assert_eq!(failure, "the hyperparameter learning_rate is fast, which is no such number");
    }
}
