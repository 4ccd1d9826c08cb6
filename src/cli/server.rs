//! One server, from settings to open socket and back: used by `serve` and by the demo.
//!
//! Invariant: a server is ready only when its database, its executor and its scheduler are; it ends in the order
//! readiness, requests, scheduler, so that nothing is answered that is not kept. Training outlives it.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::{self, ApiSettings, Readiness};
use crate::app::{App, Creation, Quotas};
use crate::cli::executors::{images, open_executor, process_settings};
use crate::clock::{Calls, Clock};
use crate::config::{FileSystem, Settings};
use crate::domain::s3::Location;
use crate::executor::Executor;
use crate::executor::images::{Container, Program, is_reference, resolve_command};
use crate::metrics::Scraper;
use crate::objects::Objects;
use crate::scheduler::{Scheduler, SchedulerParts, UPLOAD_PATIENCE};
use crate::store::{Db, StoreError, WriteClass, servers};
use crate::telemetry;

/// Largest request body.
const MAX_BODY_BYTES: usize = 1 << 20;

/// How long a draining server takes requests at least: a probe that is under way finds it, and finds it red.
const SHORTEST_GRACE: Duration = Duration::from_millis(250);

/// How long a data directory may stay locked behind a server that has gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A server that takes requests.
pub(super) struct Server {
    address: SocketAddr,
    db: Db,
    executor: Arc<dyn Executor>,
    readiness: Readiness,
    draining: CancellationToken,
    requests: JoinHandle<std::io::Result<()>>,
    scheduler: Scheduler,
    drain_grace: Duration,
    drain_timeout: Duration,
    warnings: Vec<String>,
    /// Held to the end.
    _data_dir_lock: File,
}

impl Server {
    /// Opens everything and starts to serve. The configuration file is hidden from training programs, which run in its
    /// folder.
    pub(super) async fn start(settings: &Settings, config_file: Option<&Path>) -> anyhow::Result<Self> {
        check(settings, config_file, nix::unistd::Uid::effective().as_raw())?;
        make_data_dir(&settings.data_dir)?;
        let data_dir_lock = lock_data_dir(&settings.data_dir, LOCK_PATIENCE).await?;
        // The socket next: a port that is taken is the likeliest mistake, and costs nothing to find out.
        let listener =
            TcpListener::bind(settings.listen).await.with_context(|| format!("can't listen on {}", settings.listen))?;
        let address = listener.local_addr().context("the socket has no address")?;
        let db = open_database(settings).await?;
        bind_database(&settings.data_dir, &shared_secret(&db, "database_id").await?)?;
        let images = Arc::new(images(settings)?);
        let mapped = settings.s3.iter().map(|mapping| (mapping.uri.clone(), mapping.path.clone())).collect();
        let objects = Objects::new(settings.data_dir.join("s3"), mapped)?;
        let artifacts = settings.artifacts;
        let objects = objects.with_artifact_limits(artifacts.max_gib << 30, artifacts.max_files);
        let objects = objects.with_file_systems(&settings.file_systems)?;
        let objects = Arc::new(objects.with_buckets(settings.buckets.clone(), &settings.region, settings.channels)?);
        let (executor, warnings) = open_executor(settings, config_file, &images).await?;
        // What was gathered for attempts is in use for as long as there are any.
        let held = executor.list().await?;
        if let Err(error) = objects.release_all_but(&held) {
            tracing::warn!(error = crate::telemetry::chain(&error), "copies of channels were not released");
        }
        if held.is_empty()
            && let Err(error) = objects.forget_gathered().await
        {
            tracing::warn!(error = crate::telemetry::chain(&error), "gathered channels were not cleared away");
        }
        let (clock, calls) = (Clock::System, Calls::default());
        let app = App {
            db: db.clone(),
            clock: clock.clone(),
            objects: Arc::clone(&objects),
            executor: Arc::clone(&executor),
            images,
            calls: calls.clone(),
            creation: Creation::default(),
            quotas: quotas(settings),
            container_pipes: !settings.docker.helper_image.is_empty(),
        };
        let token_key = token_key(&db).await?;
        let api_settings = ApiSettings {
            account: settings.account.clone(),
            default_region: settings.region.clone(),
            max_body_bytes: MAX_BODY_BYTES,
            token_key,
        };
        let readiness = Readiness::default();
        let router = api::router(app, api_settings, readiness.clone());
        let scheduler = Scheduler::start(SchedulerParts {
            server_id: server_id(&settings.data_dir)?,
            db: db.clone(),
            clock,
            objects,
            executor: Arc::clone(&executor),
            calls,
            max_running: settings.max_running,
            upload_patience: UPLOAD_PATIENCE,
        });
        let draining = CancellationToken::new();
        let requests = tokio::spawn(api::serve(listener, router, draining.clone().cancelled_owned()));
        readiness.set(true);
        let drain_timeout = Duration::from_secs(settings.drain_timeout_seconds);
        let drain_grace = Duration::from_secs(settings.drain_grace_seconds).max(SHORTEST_GRACE);
        Ok(Self {
            address,
            db,
            executor,
            readiness,
            draining,
            requests,
            scheduler,
            drain_grace,
            drain_timeout,
            warnings,
            _data_dir_lock: data_dir_lock,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the user should know about how it runs.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The executor, to clean up after a demo.
    pub(super) fn executor(&self) -> Arc<dyn Executor> {
        Arc::clone(&self.executor)
    }

    /// Turns readiness red, goes on for a short grace, so that whoever sends requests can see it and stop, finishes the
    /// requests in flight, and ends the scheduler's loops.
    pub(super) async fn drain(self) -> anyhow::Result<()> {
        self.readiness.set(false);
        tokio::time::sleep(self.drain_grace).await;
        self.draining.cancel();
        let mut requests = self.requests;
        match tokio::time::timeout(self.drain_timeout, &mut requests).await {
            Ok(Ok(served)) => served.context("serving failed")?,
            Ok(Err(panic)) => return Err(panic).context("serving panicked"),
            Err(_) => {
                tracing::warn!("requests were still open after {:?} and are cut off", self.drain_timeout);
                requests.abort();
            }
        }
        self.scheduler.stop().await;
        tracing::debug!(commits = self.db.commits(), "drained");
        Ok(())
    }
}

/// What can be said against settings without opening anything, where the server's user is `uid`.
pub(super) fn check(settings: &Settings, config_file: Option<&Path>, uid: u32) -> anyhow::Result<()> {
    if !settings.listen.ip().is_loopback() {
        bail!(
            "listen is {}, which other machines can reach; this API starts programs and does not check signatures yet, \
             so it serves loopback addresses only: use 127.0.0.1:{port} or [::1]:{port}",
            settings.listen,
            port = settings.listen.port(),
        );
    }
    telemetry::check(&settings.log)?;
    let images = images(settings)?;
    let process = process_settings(settings, config_file, &images)?;
    process.check_user(uid)?;
    for image in images.iter() {
        match &image.program {
            Program::Command(words) => {
                resolve_command(&image.name, words, &process.working_dir, &process.search_path)?;
            }
            Program::Container(Container { reference, .. }) if !is_reference(reference) => {
                bail!("the docker_image of {} is {reference}, which is no image reference", image.name);
            }
            Program::Container(_) => {}
        }
        Scraper::new(&image.metric_definitions).with_context(|| format!("the image {} can't be used", image.name))?;
    }
    for mapping in &settings.s3 {
        Location::parse(&mapping.uri)?;
        if !mapping.path.is_dir() {
            bail!(
                "[[s3]] maps {} to {}, which is no folder: make it, or name another",
                mapping.uri,
                mapping.path.display()
            );
        }
    }
    for FileSystem { id, path, .. } in &settings.file_systems {
        if !path.is_dir() {
            bail!("[[file_systems]] maps {id} to {}, which is no folder: make it, or name another", path.display());
        }
    }
    Ok(())
}

/// Makes the data directory, for its owner alone.
pub(super) fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("can't make the data directory {}", path.display()))
}

/// Takes the data directory for this server alone, whichever its database is.
async fn lock_data_dir(data_dir: &Path, patience: Duration) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("can't open {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A server that was killed while it started a program may have left the lock with it for a moment.
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::WouldBlock) => bail!(
                "another server uses the data directory {}: end that one, or give this one another with --data-dir",
                data_dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("can't lock {}", path.display()));
            }
        }
    }
}

/// Ties the data directory to its database: with another, what runs here would be unknown there and be removed.
fn bind_database(data_dir: &Path, database: &str) -> anyhow::Result<()> {
    let known = std::fs::read_to_string(data_dir.join("database-id")).unwrap_or_default();
    if known.trim() == database {
        return Ok(());
    }
    let holds =
        |attempts: &str| std::fs::read_dir(data_dir.join(attempts)).is_ok_and(|mut entries| entries.next().is_some());
    let has_attempts = holds("attempts") || holds("docker/attempts");
    if has_attempts && !known.trim().is_empty() {
        bail!(
            "the data directory {} holds training jobs of another database than database_url names now: use the \
             database that it was used with before, or give this server another data directory with --data-dir",
            data_dir.display()
        );
    }
    keep(data_dir, "database-id", database)
}

async fn open_database(settings: &Settings) -> anyhow::Result<Db> {
    let url = &settings.database_url;
    let db = Db::connect(url.expose()).await.with_context(|| format!("can't open the database {url}"))?;
    db.lock_exclusive()?;
    db.migrate().await.with_context(|| format!("can't migrate the database {url}"))?;
    Ok(db)
}

fn quotas(settings: &Settings) -> Quotas {
    let quotas = settings.quotas;
    Quotas {
        training_jobs_per_tuning_job: quotas.training_jobs_per_tuning_job,
        parallel_training_jobs: quotas.parallel_training_jobs,
        concurrent_tuning_jobs: quotas.concurrent_tuning_jobs,
        hosts_per_training_job: quotas.hosts_per_training_job,
    }
}

/// The key that seals list tokens: in the database, so that every server of it opens every token.
async fn token_key(db: &Db) -> anyhow::Result<[u8; 32]> {
    let stored = shared_secret(db, "token-key").await?;
    Ok(<sha2::Sha256 as sha2::Digest>::digest(stored.as_bytes()).into())
}

/// A random text that all servers of a database share under a name.
async fn shared_secret(db: &Db, name: &'static str) -> anyhow::Result<String> {
    let candidate = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    db.write(WriteClass::Scheduling, move |tx| {
        let candidate = candidate.clone();
        Box::pin(async move { servers::secret(tx, name, &candidate).await })
    })
    .await
    .map_err(|error: StoreError| error)
    .with_context(|| format!("can't read {name} from the database"))
}

/// This server's identity: the data directory's own, so that a restarted server takes its leases up again.
fn server_id(data_dir: &Path) -> anyhow::Result<Uuid> {
    let path = data_dir.join("server-id");
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(id) = text.trim().parse()
    {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    keep(data_dir, "server-id", &id.to_string())?;
    Ok(id)
}

/// Writes a small file of the data directory, by rename, so that no reader sees half of it.
fn keep(data_dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let (path, new) = (data_dir.join(name), data_dir.join(format!("{name}.new")));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags, Loaded};

    /// An ordinary user.
    const USER: u32 = 1000;

    #[test]
    fn who_programs_would_run_as_is_found_by_the_check() {
        let refused = |run_as: &str, allow_root, uid| {
            let mut settings = Settings::default();
            (settings.process.run_as, settings.process.allow_root) = (run_as.to_owned(), allow_root);
            check(&settings, None, uid).err().map(|error| error.to_string())
        };
        assert_eq!(refused("", false, USER), None);
        assert_eq!(refused("", true, 0), None);
        assert_eq!(refused("nobody", false, 0), None);
        for (run_as, uid, why) in [
            ("", 0, "`process.allow_root`"),
            ("root", 0, "`process.allow_root`"),
            ("root", USER, "only root can start programs as another user"),
        ] {
            let refused = refused(run_as, false, uid).unwrap_or_default();
            assert!(refused.contains(why), "run_as = {run_as:?} as user {uid}: {refused}");
        }
    }

    #[test]
    fn only_loopback_addresses_are_served() {
        for (listen, served) in
            [("127.0.0.1:0", true), ("127.8.9.1:80", true), ("[::1]:0", true), ("0.0.0.0:1", false), ("[::]:1", false)]
        {
            let settings = Settings { listen: listen.parse().unwrap(), ..Settings::default() };
            assert_eq!(check(&settings, None, USER).is_ok(), served, "{listen}");
        }
    }

    #[test]
    fn what_a_server_would_refuse_is_found_by_the_check() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let loaded = |text: &str| {
            let config = folder.path().join("tunesmith.toml");
            std::fs::write(&config, text).unwrap();
            let flags = Flags { config: Some(config), ..Flags::default() };
            Loaded::load(&flags, &Environment::default()).unwrap()
        };
        let image = |command: &str, regex: &str| {
            let metrics = format!("[{{ name = \"loss\", regex = '{regex}' }}]");
            format!("[[images]]\nname = \"i\"\ncommand = [\"{command}\"]\nmetric_definitions = {metrics}\n")
        };
        let mapped = |uri: &str, path: &str| format!("[[s3]]\nuri = \"{uri}\"\npath = \"{path}\"\n");
        for (text, why) in [
            (image("sh", "loss=(.*)"), None),
            (image("no-such-program", "loss=(.*)"), Some("no executable file no-such-program")),
            (image("./file", "loss=(.*)"), Some("no executable file")),
            (image("sh", "loss=("), Some("metric definition loss")),
            (mapped("s3://b", "."), None),
            (mapped("s3://b", "missing"), Some("which is no folder")),
            (mapped("s3://b", "file"), Some("which is no folder")),
            (mapped("s3://b/../c", "."), Some("is not a usable S3 URI")),
            (
                "[[file_systems]]\nid = \"fs-01234567\"\ntype = \"EFS\"\npath = \"file\"\n".to_owned(),
                Some("which is no folder"),
            ),
            ("[process]\nrun_as = \"no-such-user\"\n".to_owned(), Some("no such user")),
            ("[log]\nlevel = \"a=b=c\"\n".to_owned(), Some("log.level is a=b=c")),
        ] {
            let loaded = loaded(&text);
            let found = check(&loaded.settings, loaded.file.as_deref(), USER).map_err(|error| format!("{error:#}"));
            match why {
                None => assert_eq!(found, Ok(()), "{text}"),
                Some(why) => assert!(found.as_ref().is_err_and(|error| error.contains(why)), "{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_data_directory_keeps_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(server_id(folder.path()).unwrap(), server_id(folder.path()).unwrap());
    }

    #[tokio::test]
    async fn a_data_directory_has_one_server() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_data_dir(folder.path(), Duration::ZERO).await.unwrap();
        let refused = lock_data_dir(folder.path(), Duration::ZERO).await.unwrap_err().to_string();
        assert!(refused.contains(folder.path().to_str().unwrap()), "{refused}");
        drop(held);
        lock_data_dir(folder.path(), Duration::ZERO).await.unwrap();
    }

    #[test]
    fn a_data_directory_with_attempts_stays_with_its_database() {
        let folder = tempfile::tempdir().unwrap();
        bind_database(folder.path(), "one").unwrap();
        std::fs::create_dir(folder.path().join("attempts")).unwrap();
        bind_database(folder.path(), "two").unwrap();
        std::fs::create_dir(folder.path().join("attempts/1")).unwrap();
        bind_database(folder.path(), "two").unwrap();
        let refused = bind_database(folder.path(), "one").unwrap_err().to_string();
        assert!(refused.contains("another data directory"), "{refused}");
    }
}
