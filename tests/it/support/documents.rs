//! Documents generated from the service model.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;
use serde_json::{Map, Value};
use tunesmith::api::aws::model::{Bounds, Model, Pattern, Shape, ShapeId};

/// Most items of a generated list or map: enough to have more than one.
const MOST_ITEMS: i64 = 3;

/// Documents that a shape allows.
pub fn valid(model: &'static Model, id: ShapeId) -> BoxedStrategy<Value> {
    match model.shape(id) {
        Shape::Structure(members) => members
            .iter()
            .map(|member| {
                let value = valid(model, member.shape);
                let name = member.name.clone();
                let value = if member.required { value.prop_map(Some).boxed() } else { option::of(value).boxed() };
                value.prop_map(move |value| Some((name.clone(), value?)))
            })
            .collect::<Vec<_>>()
            .prop_map(|members| Value::Object(members.into_iter().flatten().collect::<Map<_, _>>()))
            .boxed(),
        Shape::List { item, size } => vec(valid(model, *item), sizes(*size)).prop_map(Value::Array).boxed(),
        Shape::Map { key, value, size } => {
            let key = valid(model, *key).prop_map(|key| key.as_str().unwrap_or_default().to_owned());
            btree_map(key, valid(model, *value), sizes(*size))
                .prop_map(|entries| Value::Object(entries.into_iter().collect()))
                .boxed()
        }
        Shape::Text { values, .. } if !values.is_empty() => select(values.clone()).prop_map(Value::String).boxed(),
        Shape::Text { length, pattern, .. } => text(*length, pattern.as_ref()).prop_map(Value::String).boxed(),
        Shape::Integer { wide, range } => {
            let most = if *wide { i64::MAX } else { i32::MAX.into() };
            let least = if *wide { i64::MIN } else { i32::MIN.into() };
            (range.min.unwrap_or(least)..=range.max.unwrap_or(most)).prop_map(Value::from).boxed()
        }
        Shape::Number => (-1e30..1e30).prop_map(|x: f64| Value::from(x)).boxed(),
        Shape::Timestamp => (0_u32..4_000_000_000).prop_map(|ms| Value::from(f64::from(ms) / 1000.0)).boxed(),
        Shape::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
    }
}

/// Any JSON at all.
pub fn arbitrary() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(".{0,8}", inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A document with the value at one place, chosen by `at` among all, exchanged for another.
pub fn exchange(document: &mut Value, at: usize, other: Value) {
    let mut places = vec![String::new()];
    collect(document, "", &mut places);
    let place = &places[at % places.len()];
    if let Some(value) = document.pointer_mut(place) {
        *value = other;
    }
}

fn collect(value: &Value, place: &str, places: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, child) in children {
        let place = format!("{place}/{name}");
        places.push(place.clone());
        collect(child, &place, places);
    }
}

fn sizes(size: Bounds) -> std::ops::RangeInclusive<usize> {
    let min = size.min.unwrap_or(0);
    let max = size.max.unwrap_or(MOST_ITEMS).min(min + MOST_ITEMS);
    let bound = |n: i64| usize::try_from(n).expect("a list's bound");
    bound(min)..=bound(max)
}

fn text(length: Bounds, pattern: Option<&Pattern>) -> BoxedStrategy<String> {
    // The generator takes patterns without anchors.
    let pattern = pattern.map_or(".*", |p| p.regex.as_str());
    let pattern = pattern.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(pattern);
    let min = usize::try_from(length.min.unwrap_or(0)).expect("a length");
    let max = length.max.map_or(usize::MAX, |max| usize::try_from(max).expect("a length"));
    string_regex(pattern)
        .expect("a pattern that texts can be made of")
        .prop_filter("a text within its bounds", move |text| {
            (min..=max).contains(&text.chars().count()) && !text.contains('\0')
        })
        .boxed()
}
