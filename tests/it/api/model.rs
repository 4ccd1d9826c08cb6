//! The service model and its walker, over documents that nobody wrote by hand.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use tunesmith::api::aws::model::Model;
use tunesmith::api::aws::sagemaker::OPERATIONS;
use tunesmith::api::aws::{decode, support, validate};
use tunesmith::domain::document::Document;

use crate::support::documents::{arbitrary, exchange, valid};

fn model() -> &'static Model {
    Model::builtin().expect("the built-in model")
}

/// What a request goes through before an operation sees it.
fn check<'b>(operation: &str, body: &'b str) -> Result<Document<'b>, String> {
    let (document, _) = decode::decode(body.as_bytes()).map_err(|e| e.to_string())?;
    let input = model().input(operation).expect("an operation of the model");
    validate::validate(model(), input, &document).map_err(|e| e.to_string())?;
    support::check(operation, &document)?;
    Ok(document)
}

fn valid_request() -> impl Strategy<Value = (&'static str, Value)> {
    select(OPERATIONS).prop_flat_map(|operation| {
        let input = model().input(operation).expect("an operation of the model");
        valid(model(), input).prop_map(move |document| (operation, document))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn documents_of_the_model_are_valid((operation, document) in valid_request()) {
        let input = model().input(operation).expect("an operation of the model");
        prop_assert_eq!(validate::validate(model(), input, &Document::from(&document)), Ok(()));
        match check(operation, &document.to_string()) {
            Ok(decoded) => prop_assert_eq!(decoded, Document::from(&document)),
            // What the model allows is refused for one reason alone.
            Err(text) => prop_assert!(text.contains("not supported yet"), "{}", text),
        }
    }

    #[test]
    fn a_damaged_document_is_answered(
        (operation, mut document) in valid_request(), place in any::<Index>(), other in arbitrary(),
    ) {
        exchange(&mut document, place.index(1 << 20), other);
        if let Err(text) = check(operation, &document.to_string()) {
            prop_assert!(!text.is_empty() && text.len() < 64 << 10, "{} bytes", text.len());
        }
    }

    #[test]
    fn any_document_is_answered(operation in select(OPERATIONS), document in arbitrary()) {
        let _ = check(operation, &document.to_string());
    }
}
