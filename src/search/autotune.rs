//! Autotune: ranges of hyperparameters from their names and one example value of each, and the settings of the job.
//!
//! The service's words (`Autotune`, `AutoParameter`): where a hyperparameter is eligible, a range is selected for it; and
//! values are found for the strategy, the limits, early stopping, retries and convergence. How it selects it does not say,
//! so the rules here are our own. Its Python SDK sends every hyperparameter of an estimator that the user does not keep
//! static, `sagemaker_program` and the like among them, and as JSON texts. So one that is about the run or the data
//! rather than the model is not eligible, nor is one of which nothing says what else it may be: it stays at its example.
//!
//! Invariant: pure; every range is one that `Space::parse` accepts, and has the example in it. Whether two hints, or a hint
//! and a range, have one name is for the rules of the request.
//!
//! | example h                         | range                                           | scaling              |
//! |-----------------------------------|-------------------------------------------------|----------------------|
//! | true, yes and their like          | both, spelled alike                             |                      |
//! | a word of a known set (`CHOICES`) | the set                                         |                      |
//! | 0 or 1 of a flag (`FLAGS`)        | 0 and 1                                         |                      |
//! | a drop (`DROPS`) in [0, 1)        | 0 to halfway from h to 1                        | Linear               |
//! | a share (`SHARES`) in (0, 1]      | h/2 or 1/2, the smaller, to 1                   | Linear               |
//! | a rate (`RATES`) in (0, 1]        | h/100 to 100 h, 1 at most                       | Logarithmic          |
//! | a decay (`DECAYS`) in (0, 0.8)    | h/100 to 100 h, 1 at most                       | Logarithmic          |
//! | a number of a kind (`REALS`)      | as a real, below, whole or not                  |                      |
//! | a batch                           | h/8 to 2 h: it has to fit into memory           | Logarithmic          |
//! | a count (`COUNTS`) of 1           | 1 to 4                                          | Linear               |
//! | a whole number from 2 to 16       | h/2 to 2 h                                      | Linear               |
//! | a larger whole number             | h/8 to 4 h                                      | Logarithmic          |
//! | a real below 0                    | 2 h to 0                                        | Linear               |
//! | a real of 0                       | 0 to 1                                          | Linear               |
//! | a real in (0, 0.1]                | h/100 to 100 h, 1 at most                       | Logarithmic          |
//! | a real in (0.1, 0.8)              | h/5 to 1 - (1 - h)/5                            | Linear               |
//! | a real in [0.8, 1)                | 1 - 10 (1 - h), 1/2 at least, to 1 - (1 - h)/10 | `ReverseLogarithmic` |
//! | a real from 1 on                  | h/10 to 10 h                                    | Logarithmic          |
//!
//! The first that fits. A whole number that is 0, 1 or negative often stands for something else (off, on, no limit), and is
//! not eligible.
//!
//! Orders of magnitude on a logarithmic scale: Bengio, Practical Recommendations for Gradient-Based Training of Deep
//! Architectures (2012), section 3.3.

use crate::domain::space::{Parameter, Range, Space};
use crate::domain::status::{EarlyStopping, Scaling, Strategy};

/// Names with one of these words are about the run or the data: what they are changes nothing of the model, or breaks the
/// job, or is what a trial may use (Hyperband's resource).
const NOT_OF_THE_MODEL: &str = "\
    amp bf16 checkpoint checkpoints class classes cpu cpus cuda dataset debug device devices distributed \
    epoch epochs eval evaluation fp16 gpu gpus image interval job jobs labels len length level logging metric metrics \
    nthread numepochs parallel patience port precision push random resume sagemaker save seed seq sequence \
    stopping task tasks thread threads timeout token tokens verbose verbosity version vocab workers world";
/// Whole names that are so, though their words are not.
const NOT_OF_THE_MODEL_EITHER: [&str; 6] =
    ["feature_dim", "input_dim", "max_steps", "n_features", "num_features", "num_training_samples"];
/// Words of what is tried by orders of magnitude and does not pass 1.
const RATES: [&str; 5] = ["lr", "rate", "eta", "tol", "tolerance"];
/// The same, though near 1 they are shares of what is kept.
const DECAYS: [&str; 2] = ["decay", "wd"];
const DROPS: [&str; 3] = ["dropout", "drop", "smoothing"];
const SHARES: [&str; 9] =
    ["subsample", "colsample", "fraction", "ratio", "bylevel", "bynode", "bytree", "keep", "bagging"];
/// Words of numbers that are real even where the example is a whole one.
const REALS: [&str; 9] = ["alpha", "gamma", "lambda", "l1", "l2", "reg", "c", "momentum", "penalty"];
const FLAGS: [&str; 5] = ["use", "is", "enable", "with", "do"];
const COUNTS: [&str; 14] = [
    "num", "n", "number", "count", "layers", "layer", "depth", "size", "units", "neurons", "max", "min", "blocks",
    "heads",
];
/// Names and what they may be, for an example that is one of them.
const CHOICES: [(&str, &[&str]); 7] = [
    ("optimizer", &["adam", "rmsprop", "sgd"]),
    ("activation", &["relu", "sigmoid", "tanh"]),
    ("booster", &["dart", "gblinear", "gbtree"]),
    ("criterion", &["entropy", "gini"]),
    ("kernel", &["linear", "poly", "rbf", "sigmoid"]),
    ("lr_scheduler_type", &["constant", "cosine", "linear"]),
    ("weights", &["distance", "uniform"]),
];
const PAIRS: [[&str; 2]; 6] =
    [["false", "true"], ["False", "True"], ["FALSE", "TRUE"], ["no", "yes"], ["No", "Yes"], ["off", "on"]];

/// Examples beyond these sizes are left alone, so that every bound is one that a range may have.
const LARGEST_REAL: f64 = 1e290;
const SMALLEST_REAL: f64 = 1e-290;
/// Nearer to 1 than that, 1 - x has no digits left.
const NEAR_ONE: f64 = 1.0 - 1e-9;
const LARGEST_INTEGER: i64 = 1 << 50;
/// Training jobs: for any space, and for each of its parameters.
const JOBS: u32 = 40;
const JOBS_A_PARAMETER: u32 = 10;
const RETRIES: u32 = 3;

/// `AutoParameter`: a hyperparameter to find a range for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The hyperparameter's name.
    pub name: String,
    /// `ValueHint`: an example of its values.
    pub value: String,
}

/// What becomes of the hints.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choice {
    /// What is tuned, in the order of the hints.
    pub tuned: Vec<Parameter>,
    /// What is not, and stays at its example.
    pub fixed: Vec<Hint>,
}

/// What is tuned of some hints, at most `most` of them: the first that are eligible.
#[must_use]
pub fn choose(hints: &[Hint], most: usize) -> Choice {
    let mut choice = Choice::default();
    for hint in hints {
        match range(&hint.name, &hint.value).filter(|_| choice.tuned.len() < most) {
            Some(range) => choice.tuned.push(Parameter { name: hint.name.clone(), range }),
            None => choice.fixed.push(hint.clone()),
        }
    }
    choice
}

/// The range of a hyperparameter of which one value is known; `None` where it is not eligible.
#[must_use]
pub fn range(name: &str, example: &str) -> Option<Range> {
    let (words, example) = (words(name), example.trim());
    let whole = words.join("_");
    if words.is_empty() || is_not_of_the_model(&words, &whole) {
        return None;
    }
    if let Some(values) = category(&whole, &words, example) {
        return Some(Range::Categorical { values });
    }
    let real: f64 = example.parse().ok().filter(|x: &f64| x.abs() <= LARGEST_REAL)?;
    let size = real.abs();
    if size > 0.0 && size < SMALLEST_REAL {
        return None;
    }
    if let Some(range) = named(&words, real) {
        return Some(range);
    }
    match example.parse() {
        Ok(integer) => integers(&words, integer),
        Err(_) => Some(reals(real)),
    }
}

/// Lower-case words of a name: `minChildWeight`, `min-child-weight` and `min_child_weight` are the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        let splits = !c.is_alphanumeric() || (c.is_uppercase() && after_lower);
        if splits {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase() || c.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_not_of_the_model(words: &[String], name: &str) -> bool {
    NOT_OF_THE_MODEL_EITHER.contains(&name) || NOT_OF_THE_MODEL.split(' ').any(|word| words.iter().any(|w| w == word))
}

fn has(words: &[String], any: &[&str]) -> bool {
    words.iter().any(|word| any.contains(&word.as_str()))
}

/// The texts that may stand in the place of one, quoted as it is.
fn category(name: &str, words: &[String], example: &str) -> Option<Vec<String>> {
    let bare = example.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let text = bare.unwrap_or(example);
    let known = || CHOICES.iter().filter(|(of, _)| *of == name).map(|(_, values)| *values);
    let pairs = || PAIRS.iter().map(<[&str; 2]>::as_slice);
    let flag: &[&str] = if has(words, &FLAGS) { &["0", "1"] } else { &[] };
    let values = known().chain(pairs()).chain([flag]).find(|values| values.contains(&text))?;
    let quote = if bare.is_some() { "\"" } else { "" };
    Some(values.iter().map(|value| format!("{quote}{value}{quote}")).collect())
}

/// The range of a number whose name tells what it is.
fn named(words: &[String], h: f64) -> Option<Range> {
    if has(words, &DROPS) && (0.0..1.0).contains(&h) {
        return Some(real(0.0, f64::midpoint(h, 1.0), Scaling::Linear));
    }
    if has(words, &SHARES) && h > 0.0 && h <= 1.0 {
        return Some(real((h / 2.0).min(0.5), 1.0, Scaling::Linear));
    }
    let decays = has(words, &DECAYS);
    if (decays && h > 0.0 && h < 0.8) || (!decays && has(words, &RATES) && h > 0.0 && h <= 1.0) {
        return Some(magnitudes(h));
    }
    has(words, &REALS).then(|| reals(h))
}

fn integers(words: &[String], h: i64) -> Option<Range> {
    let range = |min: i64, max: i64, scaling| Some(Range::Integer { min: min.max(1), max, scaling });
    match h {
        1 if has(words, &COUNTS) => range(1, 4, Scaling::Linear),
        // 0, 1 and what is negative often stand for something else: off, on, no limit.
        ..2 => None,
        _ if h > LARGEST_INTEGER => None,
        _ if has(words, &["batch"]) => range(h / 8, 2 * h, Scaling::Logarithmic),
        2..=16 => range(h / 2, 2 * h, Scaling::Linear),
        _ => range(h / 8, 4 * h, Scaling::Logarithmic),
    }
}

fn reals(h: f64) -> Range {
    if h < 0.0 {
        real(2.0 * h, 0.0, Scaling::Linear)
    } else if h == 0.0 {
        real(0.0, 1.0, Scaling::Linear)
    } else if h <= 0.1 {
        magnitudes(h)
    } else if h < 0.8 {
        real(h / 5.0, 1.0 - (1.0 - h) / 5.0, Scaling::Linear)
    } else if h < NEAR_ONE {
        let left = 1.0 - h;
        real(1.0 - (10.0 * left).min(0.5), 1.0 - left / 10.0, Scaling::ReverseLogarithmic)
    } else {
        real(h / 10.0, 10.0 * h, Scaling::Logarithmic)
    }
}

fn magnitudes(h: f64) -> Range {
    real(h / 100.0, (100.0 * h).min(1.0), Scaling::Logarithmic)
}

fn real(min: f64, max: f64, scaling: Scaling) -> Range {
    Range::Continuous { min: short(min), max: short(max), scaling }
}

/// A bound as a person would write it: of six digits, though as many nines as it has.
fn short(x: f64) -> f64 {
    let round = |x: f64| format!("{x:.5e}").parse().unwrap_or(x);
    let nines = |x: f64| format!("{:.15}", 1.0 - round(1.0 - x)).parse().unwrap_or(x);
    if x > 0.5 && x < 1.0 { nines(x) } else { round(x) }
}

/// What Autotune sets where the request leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `Strategy`.
    pub strategy: Strategy,
    /// `MaxNumberOfTrainingJobs`.
    pub max_jobs: u32,
    /// `TrainingJobEarlyStoppingType`.
    pub early_stopping: EarlyStopping,
    /// `CompleteOnConvergence`.
    pub on_convergence: bool,
    /// `MaximumRetryAttempts`.
    pub retries: u32,
}

/// The settings of a job over a space, under the request's strategy where it has one.
///
/// A space of few points is tried as a whole; else the strategy is the one that does best with few training jobs
/// (docs/search-quality.md). What is not worth its time is ended: a training job by the median rule (Hyperband has its own),
/// the tuning job by convergence (Grid is over when its points are).
#[must_use]
pub fn settings(space: &Space, strategy: Option<Strategy>) -> Settings {
    let parameters = u32::try_from(space.parameters.len()).unwrap_or(u32::MAX);
    let jobs = JOBS.saturating_add(JOBS_A_PARAMETER.saturating_mul(parameters));
    let points = space.cardinality().and_then(|points| u32::try_from(points).ok());
    let is_grid = space.parameters.iter().all(|parameter| parameter.range.is_categorical());
    let few = is_grid && points.is_some_and(|points| points <= jobs);
    let strategy = strategy.unwrap_or(if few { Strategy::Grid } else { Strategy::Bayesian });
    let max_jobs = match (strategy, points) {
        (Strategy::Grid, Some(points)) => points,
        (_, Some(points)) => jobs.min(points),
        (_, None) => jobs,
    };
    let early_stopping = if strategy == Strategy::Hyperband { EarlyStopping::Off } else { EarlyStopping::Auto };
    Settings { strategy, max_jobs, early_stopping, on_convergence: strategy != Strategy::Grid, retries: RETRIES }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Choice, Hint, Settings, choose, range, settings};
    use crate::domain::request::ParameterRanges;
    use crate::domain::space::{Parameter, Range, Space};
    use crate::domain::status::{EarlyStopping, Scaling, Strategy as Search};
    use crate::search::scale;

    /// A range as the request would give it.
    fn as_requested(name: &str, range: &Range) -> Space {
        let json = match range {
            Range::Integer { min, max, scaling } => json!({"IntegerParameterRanges": [{"Name": name,
                "MinValue": min.to_string(), "MaxValue": max.to_string(), "ScalingType": scaling}]}),
            Range::Continuous { min, max, scaling } => json!({"ContinuousParameterRanges": [{"Name": name,
                "MinValue": format!("{min:?}"), "MaxValue": format!("{max:?}"), "ScalingType": scaling}]}),
            Range::Categorical { values } => json!({"CategoricalParameterRanges": [{"Name": name, "Values": values}]}),
        };
        let ranges: ParameterRanges = serde_json::from_value(json).unwrap();
        Space::parse(&ranges).unwrap()
    }

    fn reals(name: &str, example: &str) -> (f64, f64, Scaling) {
        match range(name, example) {
            Some(Range::Continuous { min, max, scaling }) => (min, max, scaling),
            other => panic!("{name}={example}: {other:?}"),
        }
    }

    fn integers(name: &str, example: &str) -> (i64, i64, Scaling) {
        match range(name, example) {
            Some(Range::Integer { min, max, scaling }) => (min, max, scaling),
            other => panic!("{name}={example}: {other:?}"),
        }
    }

    fn texts(name: &str, example: &str) -> Vec<String> {
        match range(name, example) {
            Some(Range::Categorical { values }) => values,
            other => panic!("{name}={example}: {other:?}"),
        }
    }

    #[test]
    fn small_values_are_tried_by_orders_of_magnitude() {
        for (name, example, min, max) in [
            ("learning_rate", "0.001", 1e-5, 0.1),
            ("learningRate", "0.1", 1e-3, 1.0),
            ("eta", "0.3", 3e-3, 1.0),
            ("eta", "1", 0.01, 1.0),
            ("weight-decay", "1e-4", 1e-6, 0.01),
            ("epsilon", "1e-08", 1e-10, 1e-6),
            ("something", "0.05", 5e-4, 1.0),
        ] {
            assert_eq!(reals(name, example), (min, max, Scaling::Logarithmic), "{name}={example}");
        }
    }

    #[test]
    fn values_near_one_are_tried_near_one() {
        assert_eq!(reals("momentum", "0.9"), (0.5, 0.99, Scaling::ReverseLogarithmic));
        assert_eq!(reals("beta_2", "0.999"), (0.99, 0.9999, Scaling::ReverseLogarithmic));
        assert_eq!(reals("ema_decay", "0.99"), (0.9, 0.999, Scaling::ReverseLogarithmic));
        assert_eq!(reals("lr_decay_rate", "0.95"), (0.5, 0.995, Scaling::ReverseLogarithmic));
    }

    #[test]
    fn shares_and_drops_keep_within_their_interval() {
        assert_eq!(reals("subsample", "0.8"), (0.4, 1.0, Scaling::Linear));
        assert_eq!(reals("colsample_bytree", "1"), (0.5, 1.0, Scaling::Linear));
        assert_eq!(reals("dropout", "0.1"), (0.0, 0.55, Scaling::Linear));
        assert_eq!(reals("hidden_dropout_prob", "0"), (0.0, 0.5, Scaling::Linear));
        assert_eq!(reals("something", "0.5"), (0.1, 0.9, Scaling::Linear));
    }

    #[test]
    fn other_reals_are_tried_around_the_example() {
        assert_eq!(reals("lambda", "1"), (0.1, 10.0, Scaling::Logarithmic));
        assert_eq!(reals("C", "100"), (10.0, 1000.0, Scaling::Logarithmic));
        assert_eq!(reals("alpha", "0"), (0.0, 1.0, Scaling::Linear));
        assert_eq!(reals("offset", "-2.5"), (-5.0, 0.0, Scaling::Linear));
    }

    #[test]
    fn whole_numbers_stay_whole() {
        assert_eq!(integers("max_depth", "6"), (3, 12, Scaling::Linear));
        assert_eq!(integers("num_layers", "1"), (1, 4, Scaling::Linear));
        assert_eq!(integers("num_round", "100"), (12, 400, Scaling::Logarithmic));
        assert_eq!(integers("hidden_units", " 128 "), (16, 512, Scaling::Logarithmic));
        assert_eq!(integers("mini_batch_size", "64"), (8, 128, Scaling::Logarithmic));
        assert_eq!(integers("batch_size", "2"), (1, 4, Scaling::Logarithmic));
    }

    #[test]
    fn flags_and_known_words_become_categories_spelled_as_the_example() {
        assert_eq!(texts("nesterov", "True"), ["False", "True"]);
        assert_eq!(texts("shuffle", "\"true\""), ["\"false\"", "\"true\""]);
        assert_eq!(texts("use_bias", "1"), ["0", "1"]);
        assert_eq!(texts("optimizer", "\"sgd\""), ["\"adam\"", "\"rmsprop\"", "\"sgd\""]);
        assert_eq!(texts("booster", "gbtree"), ["dart", "gblinear", "gbtree"]);
    }

    #[test]
    fn what_is_not_of_the_model_or_says_nothing_stays_as_it_is() {
        for (name, example) in [
            ("sagemaker_program", "\"train.py\""),
            ("sagemaker_container_log_level", "20"),
            ("epochs", "10"),
            ("num-epochs", "10"),
            ("seed", "7"),
            ("randomState", "42"),
            ("num_class", "3"),
            ("feature_dim", "784"),
            ("n_jobs", "4"),
            ("early_stopping_rounds", "10"),
            ("fp16", "true"),
            ("objective", "reg:squarederror"),
            ("optimizer", "lion"),
            ("layers", "[64, 64]"),
            ("max_depth", "-1"),
            ("anything", "0"),
            ("anything", "1"),
            ("anything", ""),
            ("anything", "nan"),
            ("anything", "inf"),
            ("anything", "1e300"),
            ("anything", "1e-300"),
            ("", "0.5"),
            ("__", "0.5"),
        ] {
            assert_eq!(range(name, example), None, "{name}={example}");
        }
    }

    #[test]
    fn what_is_chosen_and_what_stays_are_all_of_the_hints() {
        let hint = |name: &str, value: &str| Hint { name: name.to_owned(), value: value.to_owned() };
        let hints = [hint("lr", "0.1"), hint("seed", "1"), hint("max_depth", "6"), hint("subsample", "1.0")];
        let by_name = |choice: &Choice| -> [Vec<String>; 2] {
            let tuned = choice.tuned.iter().map(|parameter| parameter.name.clone());
            [tuned.collect(), choice.fixed.iter().map(|hint| hint.name.clone()).collect()]
        };
        assert_eq!(by_name(&choose(&hints, 30)), [vec!["lr", "max_depth", "subsample"], vec!["seed"]]);
        assert_eq!(by_name(&choose(&hints, 2)), [["lr", "max_depth"], ["seed", "subsample"]]);
        assert_eq!(choose(&hints, 0).fixed, hints);
        assert_eq!(choose(&[], 30), Choice::default());
    }

    fn space(ranges: &[Range]) -> Space {
        let named = |range: &Range| Parameter { name: String::new(), range: range.clone() };
        Space { parameters: ranges.iter().map(named).collect() }
    }

    #[test]
    fn the_settings_suit_the_space() {
        let three = Range::Categorical { values: ["a", "b", "c"].map(String::from).to_vec() };
        let (rate, depth) = (range("lr", "0.1").unwrap(), range("max_depth", "6").unwrap());
        let bayesian = Settings {
            strategy: Search::Bayesian,
            max_jobs: 60,
            early_stopping: EarlyStopping::Auto,
            on_convergence: true,
            retries: 3,
        };
        assert_eq!(settings(&space(&[rate.clone(), depth.clone()]), None), bayesian);
        assert_eq!(settings(&space(&[depth]), None), Settings { max_jobs: 10, ..bayesian }, "no more than points");
        let grid = Settings { strategy: Search::Grid, max_jobs: 9, on_convergence: false, ..bayesian };
        assert_eq!(settings(&space(&[three.clone(), three.clone()]), None), grid);
        let many = vec![three.clone(); 5];
        assert_eq!(settings(&space(&many), None), Settings { max_jobs: 90, ..bayesian });
        assert_eq!(settings(&space(&many), Some(Search::Grid)).max_jobs, 243, "Grid tries every point");
        let hyperband = settings(&space(&[rate]), Some(Search::Hyperband));
        assert_eq!((hyperband.early_stopping, hyperband.max_jobs), (EarlyStopping::Off, 50));
    }

    fn example() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<f64>().prop_map(|x| format!("{x:?}")),
            (-320.0..320.0_f64, any::<bool>()).prop_map(|(e, negative)| {
                let x = libm::exp10(e);
                format!("{:e}", if negative { -x } else { x })
            }),
            (0.0..=1.0_f64).prop_map(|x| x.to_string()),
            (1.0..18.0_f64).prop_map(|e| (1.0 - libm::exp10(-e)).to_string()),
            any::<i64>().prop_map(|i| i.to_string()),
            (-4..300_i64).prop_map(|i| i.to_string()),
            prop::sample::select(vec!["true", "\"No\"", "adam", "", "\"", "rbf", "é", "1e400", "+5", "-0.0", "0x1"])
                .prop_map(String::from),
        ]
    }

    fn name() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "lr",
            "decay",
            "dropout",
            "subsample",
            "ratio",
            "batch",
            "use",
            "num",
            "gamma",
            "optimizer",
            "kernel",
            "momentum",
            "X",
            "",
            "é",
            "Size",
        ]);
        prop::collection::vec(word, 0..3).prop_map(|words| words.join("_"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_range_is_legal_has_its_example_and_keeps_its_scaling(name in name(), example in example()) {
            let Some(range) = range(&name, &example) else { return Ok(()) };
            let space = as_requested("x", &range);
            prop_assert_eq!(&space.parameters[0].range, &range);
            prop_assert!(range.read(example.trim()).is_some(), "{}={}: {:?}", name, example, range);
            if let Range::Continuous { scaling, .. } | Range::Integer { scaling, .. } = range {
                prop_assert_eq!(scale::effective(&range), scaling);
            }
        }

        #[test]
        fn any_text_is_read(name in any::<String>(), example in any::<String>()) {
            let _ = range(&name, &example);
        }
    }
}
