//! Rows of `definitions`: written once, shared by the training jobs of one tuning job.

use uuid::Uuid;

use crate::store::rows::Definition;
use crate::store::{StoreError, Tx};

/// Inserts a definition.
pub async fn insert(tx: &mut Tx<'_>, definition: &Definition) -> Result<(), StoreError> {
    let _ = (tx, definition);
    todo!()
}

/// The definition of an id.
pub async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<Definition>, StoreError> {
    let _ = (tx, id);
    todo!()
}
