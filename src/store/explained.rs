//! How `SQLite` would run a statement, for tests of which index serves it.

use super::query::{Value, assembled};
use super::{Db, StoreError};

/// The steps of its plan.
pub(super) async fn steps(db: &Db, text: &str, args: Vec<Value>) -> Vec<String> {
    let text = format!("EXPLAIN QUERY PLAN {text}");
    db.read::<_, StoreError, _>(move |tx| {
        let (text, args) = (text.clone(), args.clone());
        Box::pin(async move {
            let rows = assembled("explaining", text, args).all(tx).await?;
            rows.iter()
                .map(|row| {
                    let mut reader = row.reader("plan", "id, parent, notused, detail");
                    let _ids = (reader.int()?, reader.int()?, reader.int()?);
                    reader.text()
                })
                .collect()
        })
    })
    .await
    .unwrap()
}

/// A new database, gone with the folder.
pub(super) async fn database() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::connect(&format!("sqlite://{}/t.db", folder.path().display())).await.unwrap();
    db.migrate().await.unwrap();
    (folder, db)
}
