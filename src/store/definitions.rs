//! Rows of `definitions`: written once, shared by the training jobs of one tuning job.
//!
//! Invariant: a definition has the id of the tuning job that brought it, and lives as long as that or a training job of
//! it.

use uuid::Uuid;

use crate::store::query::{Reader, Value, assembled, sql};
use crate::store::rows::Definition;
use crate::store::{StoreError, Tx};

/// For tests: inserts a definition. A server inserts it with the tuning job that brings it.
pub async fn insert(tx: &mut Tx<'_>, definition: &Definition) -> Result<(), StoreError> {
    let text =
        concat!("INSERT INTO definitions (id, tuning_job_name, document, objective) ", "VALUES ($1, $2, $3, $4)");
    assembled("inserting a definition", text.to_owned(), values(definition).into()).execute(tx).await.map(|_| ())
}

/// How many columns a definition has.
pub(super) const COLUMNS: usize = 4;

/// A definition's columns, in the order in which `read` reads them.
pub(super) fn values(definition: &Definition) -> [Value; COLUMNS] {
    [
        definition.id.into(),
        definition.tuning_job_name.as_ref().into(),
        (&definition.document).into(),
        definition.objective.as_ref().into(),
    ]
}

/// The definition of an id.
pub async fn get(tx: &mut Tx<'_>, id: Uuid) -> Result<Option<Definition>, StoreError> {
    let row =
        sql("reading a definition", "SELECT id, tuning_job_name, document, objective FROM definitions WHERE id = $1")
            .bind(id)
            .optional(tx)
            .await?;
    let columns = "id, tuning_job_name, document, objective";
    row.map(|row| read(&mut row.reader("definitions", columns))).transpose()
}

/// The columns of the definition beside a job, where a statement joins [`joined`].
macro_rules! joined_columns {
    () => {
        "joined_id, tuning_job_name, document, objective"
    };
}
pub(super) use joined_columns;

/// Joins the definition whose id a column of each job has. None of its columns has the name of one of a job's.
macro_rules! joined {
    ($column:literal) => {
        concat!(
            " JOIN (SELECT id AS joined_id, tuning_job_name, document, objective FROM definitions) \
             AS joined ON joined_id = ",
            $column
        )
    };
}
pub(super) use joined;

/// Reads the columns from the reader's place on.
pub(super) fn read(r: &mut Reader<'_>) -> Result<Definition, StoreError> {
    Ok(Definition { id: r.parsed()?, tuning_job_name: r.opt_text()?, document: r.text()?, objective: r.opt_text()? })
}

/// Deletes a definition that nothing refers to any more.
pub(super) async fn delete_unused(tx: &mut Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    sql(
        "deleting a definition",
        "DELETE FROM definitions WHERE id = $1 \
         AND NOT EXISTS (SELECT 1 FROM training_jobs WHERE definition_id = $1) \
         AND NOT EXISTS (SELECT 1 FROM tuning_jobs WHERE id = $1)",
    )
    .bind(id)
    .execute(tx)
    .await
    .map(|_| ())
}
