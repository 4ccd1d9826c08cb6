//! Whether use cases can work at all.

use std::time::Duration;

use crate::app::{App, AppError};

/// How long a database may take over an empty transaction before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs an empty transaction.
pub async fn check(app: &App) -> Result<(), AppError> {
    let transaction = app.db.read(|_tx| Box::pin(async { Ok::<(), AppError>(()) }));
    tokio::time::timeout(PATIENCE, transaction).await.unwrap_or_else(|late| Err(AppError::Internal(Box::new(late))))
}
