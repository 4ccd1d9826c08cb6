//! Holds answers to the service model: only members that it has, each of its type, and every required one.

use serde_json::Value;

/// Checks the answer of an operation that succeeded; an operation without output has an empty body.
pub fn assert_conforms(operation: &str, answer: &Value) {
    let document: Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).unwrap();
    let success = &document["paths"][format!("/#SageMaker.{operation}")]["post"]["responses"]["200"];
    let schema = &success["content"]["application/x-amz-json-1.1"]["schema"];
    if schema.is_null() {
        assert_eq!(answer, "", "{operation} has no output");
    } else {
        check(&document["components"]["schemas"], schema, answer, operation);
    }
}

fn check(schemas: &Value, reference: &Value, value: &Value, path: &str) {
    let name = reference["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
    let schema = &schemas[name];
    match schema["type"].as_str().unwrap() {
        "object" => {
            let members = value.as_object().unwrap_or_else(|| unreachable!("{path} is no object: {value}"));
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(required.as_str().unwrap()), "{path} lacks {required}");
            }
            for (member, value) in members {
                let declared = schema["properties"].get(member).unwrap_or(&schema["additionalProperties"]);
                assert!(declared.is_object(), "{path} has {member}, which the model has not");
                check(schemas, declared, value, &format!("{path}.{member}"));
            }
        }
        "array" => {
            let items = value.as_array().unwrap_or_else(|| unreachable!("{path} is no list: {value}"));
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| check(schemas, &schema["items"], item, &format!("{path}[{i}]")));
        }
        "string" => {
            assert!(value.is_string(), "{path} is no text: {value}");
            if let Some(values) = schema["enum"].as_array() {
                assert!(values.contains(value), "{path} is {value}, which the model has not");
            }
        }
        "boolean" => assert!(value.is_boolean(), "{path} is no boolean: {value}"),
        "integer" => assert!(value.is_i64(), "{path} is no whole number: {value}"),
        "number" => assert!(value.is_number(), "{path} is no number: {value}"),
        other => unreachable!("{path}: {other}"),
    }
}
