//! SQLite: the file, two pools of readers, and the one writer task that everything is written through.
//!
//! Invariant: a write's effects and its answer depend on one commit. The writer runs the writes that wait in savepoints
//! of one transaction, so that many share a sync of the disk; one that fails is rolled back alone, and none is answered
//! before the commit. If that fails, every one of them is told.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite as SqliteDriver};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::store::db::{BoxFuture, PATIENCE, WriteClass};
use crate::store::error::StoreError;
use crate::store::failpoint::Failpoints;
use crate::store::tx::Tx;
use crate::store::writer::{Job, Queues, Write, Writer};

/// Connections that read at once for API calls.
const API_READERS: u32 = 4;

/// Connections that read at once for scheduling, however many API calls there are.
const SCHEDULING_READERS: u32 = 2;

/// How long to wait for a reader.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// How long a statement waits for another process that writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes that may wait, of each class. Scheduling and metrics then wait outside; API writes are refused.
const QUEUE: usize = 256;

/// The SQLite side of a `Db`.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    api_readers: SqlitePool,
    scheduling_readers: SqlitePool,
    scheduling: mpsc::Sender<Box<dyn Job>>,
    api: mpsc::Sender<Box<dyn Job>>,
    metrics: mpsc::Sender<Box<dyn Job>>,
    closing: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
    sole_server: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    lock: Mutex<Option<File>>,
}

impl Sqlite {
    pub(super) async fn connect(path: &str, failpoints: Arc<Failpoints>) -> Result<Self, StoreError> {
        let path = PathBuf::from(path);
        // SQLite would make it readable for everybody; its side files take its mode.
        open_private(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .statement_cache_capacity(512);
        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Pages that are written again and again go to the file once in 16 MiB of log, not in 4.
            .pragma("wal_autocheckpoint", "4096")
            .pragma("journal_size_limit", "67108864");
        let sole_server = Arc::new(AtomicBool::new(false));
        let closing = CancellationToken::new();
        let (scheduling, scheduling_end) = mpsc::channel(QUEUE);
        let (api, api_end) = mpsc::channel(QUEUE);
        let (metrics, metrics_end) = mpsc::channel(QUEUE);
        let queues =
            Queues { scheduling: scheduling_end, api: api_end, metrics: metrics_end, closing: closing.clone() };
        let commits = Arc::new(AtomicU64::new(0));
        let writer =
            Writer::connect(writing, queues, failpoints, Arc::clone(&sole_server), Arc::clone(&commits)).await?;
        let options = options.read_only(true);
        let api_readers = readers(API_READERS, options.clone()).await?;
        let scheduling_readers = readers(SCHEDULING_READERS, options).await?;
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        let lock = Mutex::new(None);
        Ok(Self {
            path,
            api_readers,
            scheduling_readers,
            scheduling,
            api,
            metrics,
            closing,
            writer,
            sole_server,
            commits,
            lock,
        })
    }

    pub(super) fn lock_exclusive(&self) -> Result<(), StoreError> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let file = open_private(Path::new(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: self.path.display().to_string() });
            }
            Err(TryLockError::Error(source)) => return Err(file_error(Path::new(&path), source)),
        }
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.sole_server.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Commits of the writer so far.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It only ends early by a panic, which is reported where it happens.
            let _ = writer.await;
        }
        self.api_readers.close().await;
        self.scheduling_readers.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) async fn write<T, E, F>(&self, patience: Duration, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnMut(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Write::new(work, patience, reply));
        let sent = match class {
            WriteClass::Scheduling => self.scheduling.send(job).await.map_err(|_| StoreError::Closed),
            WriteClass::Metrics => self.metrics.send(job).await.map_err(|_| StoreError::Closed),
            WriteClass::Api => self.api.try_send(job).map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            }),
        };
        sent?;
        // The writer drops a job unanswered only at its own end.
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn read<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        let mut conn = self.acquire(class).await?;
        let once = async {
            let mut transaction =
                conn.begin().await.map_err(|source| StoreError::Database { doing: "beginning a read", source })?;
            let sole_server = self.sole_server.load(Ordering::Relaxed);
            // Dropping the transaction ends it on the connection's way to the pool: nothing to wait for.
            work(&mut Tx::sqlite(&mut transaction, sole_server)).await
        };
        let outcome = tokio::time::timeout(PATIENCE, once).await;
        outcome.unwrap_or_else(|_| {
            conn.close_on_drop();
            Err(StoreError::TimedOut { seconds: PATIENCE.as_secs() }.into())
        })
    }

    pub(super) async fn glance<T, E, F>(&self, class: WriteClass, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Send,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send,
    {
        let mut conn = self.acquire(class).await?;
        let sole_server = self.sole_server.load(Ordering::Relaxed);
        let outcome = tokio::time::timeout(PATIENCE, work(&mut Tx::sqlite(&mut conn, sole_server))).await;
        outcome.unwrap_or_else(|_| {
            conn.close_on_drop();
            Err(StoreError::TimedOut { seconds: PATIENCE.as_secs() }.into())
        })
    }

    async fn acquire(&self, class: WriteClass) -> Result<PoolConnection<SqliteDriver>, StoreError> {
        let readers = if class == WriteClass::Api { &self.api_readers } else { &self.scheduling_readers };
        readers.acquire().await.map_err(|source| match source {
            sqlx::Error::PoolClosed => StoreError::Closed,
            sqlx::Error::PoolTimedOut => StoreError::Busy,
            source => StoreError::Database { doing: "opening its file", source },
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A pool of connections that cannot write.
async fn readers(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_WITHIN)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(|source| StoreError::Database { doing: "opening its file", source })
}

/// Opens a file that only this user can read, made where it is missing.
fn open_private(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { path: path.display().to_string(), source }
}
