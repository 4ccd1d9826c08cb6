//! The code of a training image in script mode.
//!
//! On the service the image fetches the archive that the hyperparameter `sagemaker_submit_directory` names, with the
//! role's credentials. Here a training program has none: the server makes the archive a channel, which is staged, fixed
//! and shared as every other is.
//!
//! Invariant: the channel is added beside what was sent, and nothing that was sent is changed. Whether an image is in
//! script mode is for the configuration to say, and the archive is left for the program to unpack.

use crate::domain::document::Document;

/// The hyperparameter, a text or a text as JSON, which is how the SDK sends it.
const SUBMIT_DIRECTORY: &str = "sagemaker_submit_directory";

/// The channel. Newer SDKs add one of that name themselves, with the files.
const CHANNEL: &str = "code";

/// Adds the channel to a `TrainingJobDefinition` whose code is in S3, unless it has one of that name.
pub(super) fn add_code_channel(definition: &mut Document<'_>) {
    let Some(uri) = submitted(definition) else { return };
    if let Some(Document::List(channels)) = definition.default_to("InputDataConfig", || Document::List(Vec::new()))
        && channels.iter().all(|channel| channel.get("ChannelName").and_then(Document::as_str) != Some(CHANNEL))
    {
        let source = Document::object([("S3DataType", "S3Prefix".into()), ("S3Uri", uri.into())]);
        channels.push(Document::object([
            ("ChannelName", CHANNEL.into()),
            ("InputMode", "File".into()),
            ("DataSource", Document::object([("S3DataSource", source)])),
        ]));
    }
}

/// Where in S3 the code is.
fn submitted(definition: &Document<'_>) -> Option<String> {
    let text = definition.get("StaticHyperParameters")?.get(SUBMIT_DIRECTORY)?.as_str()?;
    let uri = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
    uri.starts_with("s3://").then_some(uri)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn channels(submitted: &str, channels: &Value) -> Value {
        let sent = json!({"StaticHyperParameters": {SUBMIT_DIRECTORY: submitted}, "InputDataConfig": channels});
        let mut definition = Document::from(&sent);
        add_code_channel(&mut definition);
        let definition = serde_json::to_value(&definition).unwrap();
        let channels = definition["InputDataConfig"].as_array().cloned().unwrap_or_default();
        let shown = |channel: &Value| json!([channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3Uri"]]);
        channels.iter().map(shown).collect()
    }

    #[test]
    fn code_in_s3_becomes_a_channel_however_it_is_written() {
        for submitted in ["s3://b/k.tar.gz", r#""s3://b/k.tar.gz""#] {
            assert_eq!(channels(submitted, &Value::Null), json!([["code", "s3://b/k.tar.gz"]]));
            let own = json!([{"ChannelName": "train"}]);
            assert_eq!(channels(submitted, &own), json!([["train", null], ["code", "s3://b/k.tar.gz"]]));
        }
    }

    #[test]
    fn code_elsewhere_and_a_channel_of_that_name_are_left_alone() {
        for submitted in ["/opt/ml/code", "file:///code", "\"", ""] {
            assert_eq!(channels(submitted, &Value::Null), json!([]));
        }
        assert_eq!(channels("s3://b/k.tar.gz", &json!([{"ChannelName": "code"}])), json!([["code", null]]));
    }
}
