//! A JSON document whose texts are slices of the body that it was read from, wherever the body has them unescaped.
//!
//! Invariant: an object's members keep their order, and no two have one name where the decoder made it. Reading it
//! costs little, as it is read once for each request and most of it is passed on; objects are looked through member by
//! member, which is the quickest for the few members that the service model knows.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::{Serialize, Serializer, forward_to_deserialize_any};
use serde_json::{Number, Value};

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs, reason = "the variants are JSON's own")]
pub enum Document<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Document<'a>>),
    Object(Members<'a>),
}

/// An object's members, in the order of the document.
pub type Members<'a> = Vec<(Cow<'a, str>, Document<'a>)>;

impl Document<'_> {
    /// An object with these members, none of which may have another's name.
    pub fn object(members: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
    }

    /// A member of an object; none of any other value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => member(members, name),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => members.iter_mut().find(|(other, _)| other == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Takes a member out of an object and leaves null in its place; null where there is none.
    #[must_use]
    pub fn take(&mut self, name: &str) -> Self {
        self.get_mut(name).map(std::mem::take).unwrap_or_default()
    }

    /// Sets a member of an object that has none of that name, or null there, and returns the member; none of any other
    /// value, which stays as it is.
    pub fn default_to(&mut self, name: &'static str, value: impl FnOnce() -> Self) -> Option<&mut Self> {
        let Self::Object(members) = self else { return None };
        let at = members.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
            members.push((Cow::Borrowed(name), Self::Null));
            members.len() - 1
        });
        let member = &mut members[at].1;
        if member.is_null() {
            *member = value();
        }
        Some(member)
    }

    /// The text of a text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of any other value.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The same, to be changed.
    pub fn items_mut(&mut self) -> &mut [Self] {
        match self {
            Self::List(items) => items,
            _ => &mut [],
        }
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// Removes null members, at any depth: to the service they are absent ones.
    pub fn remove_nulls(&mut self) {
        match self {
            Self::Object(members) => {
                members.retain(|(_, value)| !value.is_null());
                for (_, value) in members {
                    value.remove_nulls();
                }
            }
            Self::List(items) => items.iter_mut().for_each(Self::remove_nulls),
            _ => {}
        }
    }
}

/// The member of a name.
#[must_use]
pub fn member<'m, 'a>(members: &'m [(Cow<'a, str>, Document<'a>)], name: &str) -> Option<&'m Document<'a>> {
    members.iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

impl<'a> From<&'a Value> for Document<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.into())).collect())
            }
        }
    }
}

impl<'a> From<&'a str> for Document<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Document<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u32> for Document<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// The JSON text.
impl fmt::Display for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
        }
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for &'de Document<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Reads a document into a type, as from its JSON text.
impl<'de> Deserializer<'de> for &'de Document<'_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Document::Null => visitor.visit_unit(),
            Document::Bool(value) => visitor.visit_bool(*value),
            Document::Number(number) => number.deserialize_any(visitor),
            Document::Text(text) => visitor.visit_borrowed_str(text),
            Document::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Document::Object(members) => {
                visitor.visit_map(MapDeserializer::new(members.iter().map(|(name, value)| (name.as_ref(), value))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        // The service model has no enums but those of texts.
        self.as_str().unwrap_or_default().into_deserializer().deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Good,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Typed {
        text: String,
        number: Option<u32>,
        absent: Option<bool>,
        kind: Kind,
        list: Vec<f64>,
        map: BTreeMap<String, String>,
    }

    fn typed(value: &Value) -> Result<Typed, serde_json::Error> {
        Typed::deserialize(&Document::from(value))
    }

    #[test]
    fn it_reads_into_types_as_its_text_does() {
        let value = json!({"text": "é", "number": 3, "absent": null, "kind": "Good", "list": [1, 2.5], "map": {"a": "b"}, "more": [{}]});
        assert_eq!(typed(&value).unwrap(), serde_json::from_value(value).unwrap());
        for wrong in [json!({}), json!([]), json!({"text": 1}), json!({"kind": "Bad"}), json!({"kind": [1]})] {
            assert!(typed(&wrong).is_err());
        }
    }

    #[test]
    fn it_writes_the_text_that_it_is() {
        let value = json!({"b": [null, true, -1, 0.1, 1e300, "a\"\n"], "a": {}});
        assert_eq!(Document::from(&value).to_string(), value.to_string());
    }

    #[test]
    fn null_members_are_absent_ones() {
        let value = json!({"a": null, "b": {"c": null, "d": [{"e": null, "f": 1}]}});
        let mut document = Document::from(&value);
        document.remove_nulls();
        assert_eq!(document.to_string(), r#"{"b":{"d":[{"f":1}]}}"#);
    }

    #[test]
    fn a_default_changes_nothing_that_is_there() {
        let value = json!({"a": 1, "b": null});
        let mut document = Document::from(&value);
        for name in ["a", "b", "c"] {
            document.default_to(name, || "new".into());
        }
        assert_eq!(document.to_string(), r#"{"a":1,"b":"new","c":"new"}"#);
        assert_eq!(Document::Null.default_to("a", || "new".into()), None);
    }
}
