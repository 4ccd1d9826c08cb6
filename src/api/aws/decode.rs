//! Bytes of a request body to a JSON document.
//!
//! Invariant: what comes out is UTF-8, nests at most [`MAX_DEPTH`] deep, names every member once and holds no U+0000
//! (which Postgres cannot store). What the members mean is for `validate`.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::api::aws::quote;

/// How deep objects and lists may nest; the outermost object is the first level.
pub const MAX_DEPTH: usize = 32;

/// Why a body is no document; the texts are for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not UTF-8.
    #[error("The request body is not UTF-8: the byte at offset {at} begins no character")]
    NotUtf8 {
        /// Offset of the first byte that cannot be read.
        at: usize,
    },
    /// Not JSON.
    #[error("The request body is not JSON: {why}")]
    NotJson {
        /// What and where.
        why: String,
    },
    /// Nested too deep.
    #[error("The request body nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An object with two members of one name.
    #[error("The request body has an object that gives the member '{name}' more than once")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// U+0000 in a text or a name.
    #[error("The request body has a text with the character U+0000 in it, which cannot be stored: '{text}'")]
    Nul {
        /// The text.
        text: String,
    },
}

/// The document of a body, and the body as text. An empty body stands for `{}`.
pub fn decode(body: &[u8]) -> Result<(Value, &str), DecodeError> {
    let text = std::str::from_utf8(body).map_err(|e| DecodeError::NotUtf8 { at: e.valid_up_to() })?;
    let text = if text.is_empty() { "{}" } else { text };
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Document { depth: 0, fault: &fault }
        .deserialize(&mut deserializer)
        .and_then(|document| deserializer.end().map(|()| (document, text)))
        .map_err(|e| fault.take().unwrap_or_else(|| DecodeError::NotJson { why: e.to_string() }))
}

/// Reads one value. serde's errors carry text alone, so what was wrong travels beside them.
#[derive(Clone, Copy)]
struct Document<'f> {
    depth: usize,
    fault: &'f RefCell<Option<DecodeError>>,
}

impl Document<'_> {
    fn fail<E: serde::de::Error>(self, fault: DecodeError) -> E {
        let text = E::custom(&fault);
        self.fault.replace(Some(fault));
        text
    }

    fn text<E: serde::de::Error>(self, text: String) -> Result<String, E> {
        if text.contains('\0') {
            return Err(self.fail(DecodeError::Nul { text: quote::clip(&text).replace('\0', "\\u0000") }));
        }
        Ok(text)
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail(DecodeError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let name = self.text(name)?;
            if object.contains_key(&name) {
                return Err(self.fail(DecodeError::Duplicate { name: quote::clip(&name) }));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fault(body: &[u8]) -> String {
        decode(body).unwrap_err().to_string()
    }

    #[test]
    fn bodies_that_are_no_documents_say_why() {
        insta::assert_snapshot!(fault(b"{\"a\": \"\xff\"}"), @"The request body is not UTF-8: the byte at offset 7 begins no character");
        insta::assert_snapshot!(fault(b"{\"a\": "), @"The request body is not JSON: EOF while parsing a value at line 1 column 6");
        insta::assert_snapshot!(fault(b"{} {}"), @"The request body is not JSON: trailing characters at line 1 column 4");
        insta::assert_snapshot!(fault(b"{\"a\": NaN}"), @"The request body is not JSON: expected value at line 1 column 7");
        insta::assert_snapshot!(fault(b"{\"a\": 1e400}"), @"The request body is not JSON: number out of range at line 1 column 11");
        insta::assert_snapshot!(fault(br#"{"a": "\ud800"}"#), @"The request body is not JSON: unexpected end of hex escape at line 1 column 14");
        insta::assert_snapshot!(fault(br#"{"a": [{"b": 1, "b": 2}]}"#), @"The request body has an object that gives the member 'b' more than once");
        insta::assert_snapshot!(fault(br#"{"a": "x\u0000y"}"#), @r"The request body has a text with the character U+0000 in it, which cannot be stored: 'x\u0000y'");
        insta::assert_snapshot!(fault(br#"{"x\u0000y": 1}"#), @r"The request body has a text with the character U+0000 in it, which cannot be stored: 'x\u0000y'");
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(decode(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(decode(nested(MAX_DEPTH + 1).as_bytes()), Err(DecodeError::TooDeep));
        // Deep enough to end a stack, were it followed.
        assert_eq!(decode(nested(100_000).as_bytes()), Err(DecodeError::TooDeep));
        assert_eq!(decode("[{\"a\":".repeat(100_000).as_bytes()), Err(DecodeError::TooDeep));
    }

    #[test]
    fn an_empty_body_is_an_empty_document() {
        assert_eq!(decode(b""), Ok((json!({}), "{}")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body);
        }

        #[test]
        fn what_serde_json_writes_reads_back(number in any::<f64>(), int in any::<i64>(), text in "[^\0]*") {
            let document = json!({"number": number, "int": int, "text": text, "list": [null, true]});
            let body = document.to_string();
            prop_assert_eq!(decode(body.as_bytes()), Ok((document, body.as_str())));
        }
    }
}
