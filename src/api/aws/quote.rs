//! Values of a request inside a message: bounded, whatever was sent.

use crate::domain::document::Document;

/// Longest quotation, in characters.
const LONGEST: usize = 256;

/// The text, cut where it is too long for a message.
#[must_use]
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// A value as the service's messages write it: `text`, `5`, `[a, b]`, `{key=value}`.
#[must_use]
pub fn value(value: &Document<'_>) -> String {
    let mut out = String::new();
    write(value, &mut out);
    clip(&out)
}

/// Appends the value, and stops soon after the quotation is long enough.
fn write(value: &Document<'_>, out: &mut String) {
    // A character has at most four bytes, so nothing that is shown is left out.
    let full = |out: &String| out.len() > 4 * LONGEST;
    match value {
        Document::Text(text) => out.push_str(&clip(text)),
        Document::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if full(out) {
                    break;
                }
                out.push_str(if i == 0 { "" } else { ", " });
                write(item, out);
            }
            out.push(']');
        }
        Document::Object(members) => {
            out.push('{');
            for (i, (name, member)) in members.iter().enumerate() {
                if full(out) {
                    break;
                }
                out.push_str(if i == 0 { "" } else { ", " });
                out.push_str(&clip(name));
                out.push('=');
                write(member, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(json: &Value) -> String {
        value(&Document::from(json))
    }

    #[test]
    fn values_read_as_in_the_services_messages() {
        assert_eq!(shown(&json!("x")), "x");
        assert_eq!(shown(&json!([1, "b", null])), "[1, b, null]");
        assert_eq!(shown(&json!({"Key": "a", "Value": [true]})), "{Key=a, Value=[true]}");
    }

    #[test]
    fn no_quotation_is_long() {
        let long = "é".repeat(5000);
        for long in [json!(long), json!(vec![long.clone(); 3000]), json!({ long.clone(): long })] {
            assert!(shown(&long).chars().count() <= LONGEST + 1);
        }
    }
}
