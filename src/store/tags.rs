//! Rows of `tags`, by resource ARN.
//!
//! Invariant: a resource has one value for a key, and its tags are deleted in the transaction that deletes it. Whether
//! there is such a resource, and how many tags it may have, is for `app` to see.

use crate::domain::request::Tag;
use crate::store::query::{Value, assembled, pieces, placeholders, sql};
use crate::store::{StoreError, Tx};

/// Sets tags; a key that is there gets the new value.
pub async fn set(tx: &mut Tx<'_>, arn: &str, tags: &[Tag]) -> Result<(), StoreError> {
    // One statement may not set a row twice: of a repeated key the last value stands.
    let last: Vec<&Tag> = tags
        .iter()
        .enumerate()
        .filter(|(at, tag)| !tags[at + 1..].iter().any(|later| later.key == tag.key))
        .map(|(_, tag)| tag)
        .collect();
    for piece in pieces(&last) {
        let text = format!(
            "INSERT INTO tags (arn, tag_key, tag_value) VALUES {} \
             ON CONFLICT (arn, tag_key) DO UPDATE SET tag_value = excluded.tag_value",
            placeholders(piece.len(), 3)
        );
        let args =
            piece.iter().flat_map(|tag| [Value::from(arn), Value::from(&tag.key), Value::from(&tag.value)]).collect();
        assembled("setting tags", text, args).execute(tx).await?;
    }
    Ok(())
}

/// Removes tags; keys that are not there are ignored.
pub async fn remove(tx: &mut Tx<'_>, arn: &str, keys: &[String]) -> Result<(), StoreError> {
    for key in keys {
        sql("removing a tag", "DELETE FROM tags WHERE arn = $1 AND tag_key = $2")
            .bind(arn)
            .bind(key)
            .execute(tx)
            .await?;
    }
    Ok(())
}

/// All tags of a resource, by key.
pub async fn list(tx: &mut Tx<'_>, arn: &str) -> Result<Vec<Tag>, StoreError> {
    let rows = sql("reading tags", "SELECT tag_key, tag_value FROM tags WHERE arn = $1 ORDER BY tag_key")
        .bind(arn)
        .all(tx)
        .await?;
    rows.iter()
        .map(|row| {
            let mut r = row.reader("tags", "tag_key, tag_value");
            Ok(Tag { key: r.text()?, value: r.text()? })
        })
        .collect()
}

/// Removes every tag of a resource that is gone.
pub(super) async fn delete_all(tx: &mut Tx<'_>, arn: &str) -> Result<(), StoreError> {
    sql("removing a resource's tags", "DELETE FROM tags WHERE arn = $1").bind(arn).execute(tx).await.map(|_| ())
}
