//! The service model as data: `openapi/openapi.json`, read into the shapes that a request is checked against.
//!
//! Invariant: the document is the only place where a member's constraints stand. Checking them is for `validate`.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// The document, as served.
pub const DOCUMENT: &str = include_str!("../../../openapi/openapi.json");

static MODEL: LazyLock<Result<Model, ModelError>> = LazyLock::new(|| Model::read(DOCUMENT));

/// A document that is no service model. The built-in one is held readable by a test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service model's {at} {why}")]
pub struct ModelError {
    at: String,
    why: String,
}

/// Operations and the shapes of their input.
#[derive(Debug)]
pub struct Model {
    shapes: Vec<Shape>,
    operations: HashMap<String, ShapeId>,
}

/// Index of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeId(usize);

/// What a value has to be.
#[derive(Debug)]
pub enum Shape {
    /// An object with these members and no others, in the model's order.
    Structure(Vec<Member>),
    /// A list.
    List {
        /// Each of its items.
        item: ShapeId,
        /// How many.
        size: Bounds,
    },
    /// An object with members of any name.
    Map {
        /// Each name, a text.
        key: ShapeId,
        /// Each value.
        value: ShapeId,
        /// How many.
        size: Bounds,
    },
    /// A text.
    Text {
        /// In characters.
        length: Bounds,
        /// What all of it must match.
        pattern: Option<Pattern>,
        /// What it may be; anything where empty.
        values: Vec<String>,
    },
    /// A whole number.
    Integer {
        /// 64 bits instead of 32.
        wide: bool,
        /// Its value.
        range: Bounds,
    },
    /// A number.
    Number,
    /// A time: seconds since the epoch.
    Timestamp,
    /// True or false.
    Boolean,
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// As in the document.
    pub name: String,
    /// As in messages: the first letter in lower case.
    pub camel: String,
    /// What its value has to be.
    pub shape: ShapeId,
    /// Whether it must be there.
    pub required: bool,
}

/// Inclusive bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// At least.
    pub min: Option<i64>,
    /// At most.
    pub max: Option<i64>,
}

/// A pattern.
#[derive(Debug)]
pub struct Pattern {
    /// As the service publishes it; messages quote it.
    pub published: String,
    /// The same, for the whole text.
    pub regex: Regex,
}

impl Model {
    /// The built-in model.
    pub fn builtin() -> Result<&'static Self, &'static ModelError> {
        MODEL.as_ref()
    }

    /// Reads a document.
    pub fn read(document: &str) -> Result<Self, ModelError> {
        let document: Value = serde_json::from_str(document)
            .map_err(|e| ModelError { at: "document".into(), why: format!("is not JSON: {e}") })?;
        let mut reader =
            Reader { schemas: &document["components"]["schemas"], shapes: Vec::new(), ids: HashMap::new() };
        let mut operations = HashMap::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            let Some(operation) = path.strip_prefix("/#SageMaker.") else { continue };
            let input = &item["post"]["requestBody"]["content"]["application/x-amz-json-1.1"]["schema"];
            operations.insert(operation.to_owned(), reader.reference(input, path)?);
        }
        Ok(Self { shapes: reader.shapes, operations })
    }

    /// The input of an operation; none where the model has none of that name.
    #[must_use]
    pub fn input(&self, operation: &str) -> Option<ShapeId> {
        self.operations.get(operation).copied()
    }

    /// The names of all operations, in no order.
    pub fn operations(&self) -> impl Iterator<Item = &str> {
        self.operations.keys().map(String::as_str)
    }

    /// A shape of this model.
    #[must_use]
    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0]
    }
}

struct Reader<'d> {
    schemas: &'d Value,
    shapes: Vec<Shape>,
    ids: HashMap<&'d str, ShapeId>,
}

impl<'d> Reader<'d> {
    /// The shape that a `$ref` names, read once. `at` says where the reference stands.
    fn reference(&mut self, reference: &'d Value, at: &str) -> Result<ShapeId, ModelError> {
        let name = reference["$ref"]
            .as_str()
            .and_then(|text| text.strip_prefix("#/components/schemas/"))
            .ok_or_else(|| ModelError { at: at.to_owned(), why: "has no reference to a schema".into() })?;
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        // The place is taken first, so that a shape may contain itself.
        let id = ShapeId(self.shapes.len());
        self.shapes.push(Shape::Boolean);
        self.ids.insert(name, id);
        let shape = self.shape(&self.schemas[name], name)?;
        self.shapes[id.0] = shape;
        Ok(id)
    }

    fn shape(&mut self, schema: &'d Value, name: &str) -> Result<Shape, ModelError> {
        Ok(match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("object"), _) if schema["properties"].is_object() => Shape::Structure(self.members(schema, name)?),
            (Some("object"), _) => Shape::Map {
                key: self.reference(&schema["propertyNames"], name)?,
                value: self.reference(&schema["additionalProperties"], name)?,
                size: bounds(schema, "minProperties", "maxProperties"),
            },
            (Some("array"), _) => Shape::List {
                item: self.reference(&schema["items"], name)?,
                size: bounds(schema, "minItems", "maxItems"),
            },
            (Some("string"), _) => Shape::Text {
                length: bounds(schema, "minLength", "maxLength"),
                pattern: pattern(schema, name)?,
                values: schema["enum"].as_array().into_iter().flatten().filter_map(text).collect(),
            },
            (Some("integer"), format) => {
                Shape::Integer { wide: format == Some("int64"), range: bounds(schema, "minimum", "maximum") }
            }
            (Some("number"), Some("unix-time")) => Shape::Timestamp,
            (Some("number"), _) => Shape::Number,
            (Some("boolean"), _) => Shape::Boolean,
            (other, _) => {
                return Err(ModelError { at: name.to_owned(), why: format!("has the unknown type {other:?}") });
            }
        })
    }

    fn members(&mut self, schema: &'d Value, name: &str) -> Result<Vec<Member>, ModelError> {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .map(|(member, reference)| {
                Ok(Member {
                    name: member.clone(),
                    camel: camel(member),
                    shape: self.reference(reference, name)?,
                    required: required.contains(&member.as_str()),
                })
            })
            .collect()
    }
}

/// A member's name as messages write it.
pub(crate) fn camel(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn bounds(schema: &Value, min: &str, max: &str) -> Bounds {
    Bounds { min: schema[min].as_i64(), max: schema[max].as_i64() }
}

fn pattern(schema: &Value, name: &str) -> Result<Option<Pattern>, ModelError> {
    let Some(anchored) = schema["pattern"].as_str() else { return Ok(None) };
    let bare = anchored.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(anchored);
    let regex = Regex::new(anchored)
        .map_err(|e| ModelError { at: name.to_owned(), why: format!("has a pattern that cannot be read: {e}") })?;
    let published = text(&schema["x-published-pattern"]).unwrap_or_else(|| bare.to_owned());
    Ok(Some(Pattern { published, regex }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(shape: &str, text: &str) -> bool {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        pattern(&document["components"]["schemas"][shape], shape).unwrap().unwrap().regex.is_match(text)
    }

    #[test]
    fn the_document_is_a_model_of_the_operations_served() {
        let model = Model::builtin().unwrap();
        let mut names: Vec<&str> = model.operations().collect();
        names.sort_unstable();
        let mut served = crate::api::aws::sagemaker::OPERATIONS.to_vec();
        served.sort_unstable();
        assert_eq!(names, served);
    }

    #[test]
    fn patterns_are_for_the_whole_text_and_ascii() {
        assert!(matches("TrainingJobName", "a-1"));
        assert!(!matches("TrainingJobName", "a-1\n"));
        assert!(!matches("TrainingJobName", "-a"));
        let role = |account: &str| format!("arn:aws:iam::{account}:role/x");
        assert!(matches("RoleArn", &role("123456789012")));
        assert!(!matches("RoleArn", &role("١٢٣٤٥٦٧٨٩٠١٢")));
    }

    #[test]
    fn the_patterns_rewritten_for_this_engine_mean_the_same() {
        for (name, valid) in [("a", true), ("a-b", true), ("a-", false), ("-a", false), (&"a".repeat(63), true)] {
            assert_eq!(matches("ArnOrName", name), valid, "{name}");
            assert_eq!(matches("ArnOrName", &format!("arn:aws:sagemaker:r:123456789012:algorithm/{name}")), valid);
        }
        assert!(!matches("ArnOrName", &"a".repeat(64)));
        assert!(matches(
            "TrainingRepositoryCredentialsProviderArn",
            "arn:aws:lambda:us-east-1:123456789012:function:f"
        ));
    }
}
