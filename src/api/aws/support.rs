//! What becomes of every field of every operation: it acts, it is stored only, or it is refused by name.
//!
//! Invariant: `openapi/coverage.json` speaks of each field of the model exactly once (a field beneath a refused one is
//! refused with it), and what it says is what is refused here and written in `docs/api-coverage.md`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::api::aws::model::camel;
use crate::api::aws::quote;
use crate::domain::document::Document;

/// The data.
pub const COVERAGE: &str = include_str!("../../../openapi/coverage.json");

static SUPPORT: LazyLock<Result<Support, String>> =
    LazyLock::new(|| Support::read(COVERAGE).map_err(|e| e.to_string()));

/// What becomes of each field, by operation, in the model's order.
#[derive(Debug)]
pub struct Support {
    operations: Vec<(String, Vec<Field>)>,
    index: HashMap<String, usize>,
}

/// A field of an operation's input.
#[derive(Debug)]
pub struct Field {
    /// Such as `A.B[].C`.
    pub path: String,
    /// What becomes of it.
    pub entry: Entry,
    steps: Vec<Step>,
}

/// One entry of the data.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it does.
    pub acts: Option<String>,
    /// Why it does nothing: it is kept and shown by Describe.
    pub stored: Option<String>,
    /// What to do instead; the member is refused wherever it is not empty.
    pub refused: Option<String>,
    /// Values that are refused although the field acts.
    pub refuses: Option<RefusedValues>,
}

/// Values that are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedValues {
    /// These.
    pub values: Vec<Value>,
    /// What to do instead.
    pub instead: String,
}

#[derive(Debug)]
enum Step {
    Member(String),
    Items,
}

/// Refuses what the operation does not support yet; the text is for the client.
pub fn check(operation: &str, document: &Document<'_>) -> Result<(), String> {
    match Support::builtin() {
        Ok(support) => support.check(operation, document),
        // Unreadable data refuses everything rather than letting a field be ignored; a test holds it readable.
        Err(why) => Err(format!("what this server supports cannot be read: {why}")),
    }
}

impl Support {
    /// The built-in data.
    pub fn builtin() -> Result<&'static Self, &'static String> {
        SUPPORT.as_ref()
    }

    fn read(text: &str) -> serde_json::Result<Self> {
        let document: serde_json::Map<String, Value> = serde_json::from_str(text)?;
        let mut support = Self { operations: Vec::new(), index: HashMap::new() };
        for (operation, fields) in document {
            let fields: serde_json::Map<String, Value> = serde_json::from_value(fields)?;
            let fields = fields.into_iter().map(|(path, entry)| Field::new(path, entry)).collect::<Result<_, _>>()?;
            support.index.insert(operation.clone(), support.operations.len());
            support.operations.push((operation, fields));
        }
        Ok(support)
    }

    /// The fields of an operation.
    #[must_use]
    pub fn fields(&self, operation: &str) -> &[Field] {
        self.index.get(operation).map_or(&[], |at| &self.operations[*at].1)
    }

    fn check(&self, operation: &str, document: &Document<'_>) -> Result<(), String> {
        let mut unsupported = Vec::new();
        for Field { entry, steps, .. } in self.fields(operation).iter().filter(|field| field.entry.may_refuse()) {
            if let Some(instead) = &entry.refused {
                find(steps, document, &mut Vec::new(), &mut |items, value| {
                    if !is_empty(value) {
                        unsupported.push(format!("'{}' is not supported yet. {instead}.", place(steps, items)));
                    }
                });
            }
            if let Some(refused) = &entry.refuses {
                find(steps, document, &mut Vec::new(), &mut |items, value| {
                    if refused.refuses(value) {
                        let (place, value, instead) = (place(steps, items), quote::value(value), &refused.instead);
                        unsupported.push(format!("Value '{value}' at '{place}' is not supported yet. {instead}."));
                    }
                });
            }
        }
        if unsupported.is_empty() { Ok(()) } else { Err(unsupported.join(" ")) }
    }

    /// `docs/api-coverage.md`.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = String::from(
            "# What becomes of every request field\n\n\
             Made from `openapi/coverage.json`; a test holds the two together and every field of the service model in \
             them.\n\n\
             *acts*: it does what it says. *stored*: it is kept and shown by Describe, and does nothing, for the reason \
             given. *refused*: a request with it (and anything beneath it) gets a ValidationException that says \
             \"not supported yet\" and what to do instead; absent, null and empty are fine.\n",
        );
        for (operation, fields) in &self.operations {
            let _ = write!(page, "\n## {operation}\n\n| field | | |\n|---|---|---|\n");
            for Field { path, entry, .. } in fields {
                let (verdict, mut text) = entry.verdict();
                if let Some(refused) = &entry.refuses {
                    let _ = write!(text, " Refused: {}. {}.", refused.named(), refused.instead);
                }
                let _ = writeln!(page, "| `{path}` | {verdict} | {text} |");
            }
        }
        page
    }
}

impl Field {
    fn new(path: String, entry: Value) -> serde_json::Result<Self> {
        let mut steps = Vec::new();
        for name in path.split('.') {
            steps.push(Step::Member(name.trim_end_matches("[]").to_owned()));
            if name.ends_with("[]") {
                steps.push(Step::Items);
            }
        }
        Ok(Self { entry: serde_json::from_value(entry)?, path, steps })
    }
}

impl Entry {
    fn may_refuse(&self) -> bool {
        self.refused.is_some() || self.refuses.is_some()
    }

    /// One word, and a sentence about it.
    fn verdict(&self) -> (&'static str, String) {
        match (&self.acts, &self.stored, &self.refused) {
            (Some(text), ..) => ("acts", text.clone()),
            (_, Some(text), _) => ("stored", text.clone()),
            (.., text) => ("refused", text.as_ref().map(|text| format!("{text}.")).unwrap_or_default()),
        }
    }
}

impl RefusedValues {
    fn refuses(&self, value: &Document<'_>) -> bool {
        self.values.iter().any(|refused| Document::from(refused) == *value)
    }

    fn named(&self) -> String {
        self.values.iter().map(|value| quote::value(&value.into())).collect::<Vec<_>>().join(", ")
    }
}

fn is_empty(value: &Document<'_>) -> bool {
    match value {
        Document::Null => true,
        Document::List(items) => items.is_empty(),
        Document::Object(members) => members.iter().all(|(_, value)| value.is_null()),
        _ => false,
    }
}

/// Calls `found` with each value at the path, and the index of the item at each list on the way.
fn find(steps: &[Step], value: &Document<'_>, items: &mut Vec<usize>, found: &mut impl FnMut(&[usize], &Document<'_>)) {
    match steps {
        [] => found(items, value),
        [Step::Member(name), rest @ ..] => {
            if let Some(member) = value.get(name) {
                find(rest, member, items, found);
            }
        }
        [Step::Items, rest @ ..] => {
            for (i, item) in value.items().iter().enumerate() {
                items.push(i);
                find(rest, item, items, found);
                items.pop();
            }
        }
    }
}

/// A path as messages write it.
fn place(steps: &[Step], items: &[usize]) -> String {
    let mut items = items.iter();
    let part = |step: &Step| match step {
        Step::Member(name) => camel(name),
        Step::Items => format!("{}.member", items.next().map_or(0, |i| i + 1)),
    };
    steps.iter().map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::api::aws::model::{Model, Shape, ShapeId};
    use crate::api::aws::{decode, sagemaker};

    /// The paths of all fields beneath a shape, in the model's order.
    fn fields(model: &Model, id: ShapeId, prefix: &str, out: &mut Vec<String>) {
        match model.shape(id) {
            Shape::Structure(members) => {
                let dot = if prefix.is_empty() { "" } else { "." };
                for member in members {
                    let path = format!("{prefix}{dot}{}", member.name);
                    out.push(path.clone());
                    fields(model, member.shape, &path, out);
                }
            }
            Shape::List { item, .. } => fields(model, *item, &format!("{prefix}[]"), out),
            _ => {}
        }
    }

    #[test]
    fn every_field_of_the_model_stands_here_exactly_once() {
        let (model, support) = (Model::builtin().unwrap(), Support::builtin().unwrap());
        // The decoder refuses a name given twice, which serde_json would pass over.
        decode::decode(COVERAGE.as_bytes()).unwrap();
        let told: Vec<&str> = support.operations.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(told, sagemaker::OPERATIONS);
        for operation in told {
            let mut of_model = Vec::new();
            fields(model, model.input(operation).unwrap(), "", &mut of_model);
            let refused: Vec<String> = support
                .fields(operation)
                .iter()
                .filter(|f| f.entry.refused.is_some())
                .flat_map(|f| [format!("{}.", f.path), format!("{}[]", f.path)])
                .collect();
            of_model.retain(|path| !refused.iter().any(|refused| path.starts_with(refused)));
            let here: Vec<&str> = support.fields(operation).iter().map(|f| f.path.as_str()).collect();
            assert_eq!(here, of_model, "{operation}: the fields of coverage.json, left, and of the model, right");
        }
    }

    #[test]
    fn every_entry_says_one_thing() {
        for (_, fields) in &Support::builtin().unwrap().operations {
            for Field { path, entry, .. } in fields {
                let said = [&entry.acts, &entry.stored, &entry.refused].into_iter().flatten();
                assert_eq!(said.clone().count(), 1, "{path}");
                assert!(said.clone().all(|text| !text.is_empty()), "{path}");
                // Messages and the page add the full stop after what to do instead.
                let instead = entry.refused.iter().chain(entry.refuses.as_ref().map(|r| &r.instead));
                assert!(instead.clone().all(|text| !text.ends_with('.')), "{path}");
                assert!(entry.acts.iter().chain(&entry.stored).all(|text| text.ends_with('.')), "{path}");
            }
        }
    }

    #[test]
    fn refused_values_are_values_of_the_model() {
        let model = Model::builtin().unwrap();
        let known: BTreeSet<String> = enums(model);
        for (_, fields) in &Support::builtin().unwrap().operations {
            for refused in fields.iter().filter_map(|f| f.entry.refuses.as_ref()) {
                for value in refused.values.iter().filter_map(Value::as_str) {
                    assert!(known.contains(value), "{value}");
                }
            }
        }
    }

    fn enums(model: &Model) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut open: Vec<ShapeId> = sagemaker::OPERATIONS.iter().filter_map(|name| model.input(name)).collect();
        while let Some(id) = open.pop() {
            match model.shape(id) {
                Shape::Structure(members) => open.extend(members.iter().map(|m| m.shape)),
                Shape::List { item, .. } => open.push(*item),
                Shape::Text { values, .. } => all.extend(values.iter().cloned()),
                _ => {}
            }
        }
        all
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let text = |document: Value| check("CreateHyperParameterTuningJob", &Document::from(&document)).unwrap_err();
        insta::assert_snapshot!(
            text(json!({"WarmStartConfig": {"WarmStartType": "TransferLearning"}, "Autotune": {"Mode": "Enabled"}})),
            @"'warmStartConfig' is not supported yet. Leave it out: the tuning job then begins with an empty history. 'autotune' is not supported yet. Leave it out and choose ranges and strategy."
        );
        insta::assert_snapshot!(
            text(json!({"TrainingJobDefinition": {"CheckpointConfig": {"S3Uri": "s3://b/c"}, "StoppingCondition": {"MaxPendingTimeInSeconds": 7200}}})),
            @"'trainingJobDefinition.stoppingCondition.maxPendingTimeInSeconds' is not supported yet. A training job waits for a slot as long as it takes. Leave it out."
        );
        insta::assert_snapshot!(
            text(json!({"TrainingJobDefinition": {"InputDataConfig": [{}, {"DataSource": {"S3DataSource": {"S3DataType": "Converse"}, "DatasetSource": {"DatasetArn": "a"}}}]}})),
            @"Value 'Converse' at 'trainingJobDefinition.inputDataConfig.2.member.dataSource.s3DataSource.s3DataType' is not supported yet. Use S3Prefix, ManifestFile or AugmentedManifestFile. 'trainingJobDefinition.inputDataConfig.2.member.dataSource.datasetSource' is not supported yet. Use S3DataSource."
        );
    }

    #[test]
    fn absent_null_and_empty_are_not_refused() {
        let document = json!({
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "StrategyConfig": {},
                "TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": null},
                "ParameterRanges": {"AutoParameters": []}
            },
            "TrainingJobDefinition": {"EnableManagedSpotTraining": false, "ResourceConfig": {"InstanceCount": 1}},
            "WarmStartConfig": null
        });
        assert_eq!(check("CreateHyperParameterTuningJob", &Document::from(&document)), Ok(()));
    }

    /// `UPDATE_DOCS=1 cargo test --lib coverage_page` writes the page anew.
    #[test]
    fn the_coverage_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api-coverage.md");
        let page = Support::builtin().unwrap().markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == page, "docs/api-coverage.md is out of date; UPDATE_DOCS=1 cargo test --lib coverage_page");
    }
}
