//! Bytes of a request body to a JSON document.
//!
//! Invariant: what comes out is UTF-8, nests at most [`MAX_DEPTH`] deep, names every member once and holds no U+0000
//! (which Postgres cannot store). What the members mean is for `validate`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::api::aws::quote;
use crate::domain::document::{Document, Members};

/// How deep objects and lists may nest; the outermost object is the first level.
pub const MAX_DEPTH: usize = 32;

/// Up to so many members each name is compared with every other, which costs less than a set of them.
const FEW: usize = 24;

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
pub fn decode(body: &[u8]) -> Result<(Document<'_>, &str), DecodeError> {
    let text = std::str::from_utf8(body).map_err(|e| DecodeError::NotUtf8 { at: e.valid_up_to() })?;
    let text = if text.is_empty() { "{}" } else { text };
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Reading { depth: 0, fault: &fault }
        .deserialize(&mut deserializer)
        .and_then(|document| deserializer.end().map(|()| (document, text)))
        .map_err(|e| fault.take().unwrap_or_else(|| DecodeError::NotJson { why: e.to_string() }))
}

/// Reads one value. serde's errors carry text alone, so what was wrong travels beside them.
#[derive(Clone, Copy)]
struct Reading<'f> {
    depth: usize,
    fault: &'f RefCell<Option<DecodeError>>,
}

impl Reading<'_> {
    fn fail<E: serde::de::Error>(self, fault: DecodeError) -> E {
        let text = E::custom(&fault);
        self.fault.replace(Some(fault));
        text
    }

    fn text<E: serde::de::Error>(self, text: Cow<'_, str>) -> Result<Cow<'_, str>, E> {
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

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Document<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Document<'de>, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document<'de>, E> {
        Ok(Document::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document<'de>, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document<'de>, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Document<'de>, E> {
        Number::from_f64(value).map(Document::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Document<'de>, E> {
        self.text(Cow::Borrowed(value)).map(Document::Text)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Document<'de>, E> {
        self.text(Cow::Owned(value.to_owned())).map(Document::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Document::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Document<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut object = Members::new();
        while let Some(name) = members.next_key_seed(Name)? {
            let name = self.text(name)?;
            object.push((name, members.next_value_seed(inner)?));
        }
        match given_twice(&object) {
            None => Ok(Document::Object(object)),
            Some(name) => Err(self.fail(DecodeError::Duplicate { name: quote::clip(name) })),
        }
    }
}

/// A name that two members have.
fn given_twice<'m>(members: &'m Members<'_>) -> Option<&'m str> {
    let names = members.iter().map(|(name, _)| name.as_ref());
    if members.len() <= FEW {
        return names
            .clone()
            .enumerate()
            .find(|(at, name)| names.clone().take(*at).any(|other| other == *name))
            .map(|(_, name)| name);
    }
    let mut seen = HashSet::with_capacity(members.len());
    names.clone().find(|name| !seen.insert(*name))
}

/// Reads a member's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
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
        assert_eq!(decode(b""), Ok((Document::Object(Members::new()), "{}")));
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
            prop_assert_eq!(decode(body.as_bytes()), Ok((Document::from(&document), body.as_str())));
        }
    }
}
