//! Rows of `tags`, by resource ARN.

use crate::domain::request::Tag;
use crate::store::{StoreError, Tx};

/// Sets tags; a key that is there gets the new value.
pub async fn set(tx: &mut Tx<'_>, arn: &str, tags: &[Tag]) -> Result<(), StoreError> {
    let _ = (tx, arn, tags);
    todo!()
}

/// Removes tags; keys that are not there are ignored.
pub async fn remove(tx: &mut Tx<'_>, arn: &str, keys: &[String]) -> Result<(), StoreError> {
    let _ = (tx, arn, keys);
    todo!()
}

/// All tags of a resource, by key.
pub async fn list(tx: &mut Tx<'_>, arn: &str) -> Result<Vec<Tag>, StoreError> {
    let _ = (tx, arn);
    todo!()
}
