//! The Docker daemon of `DOCKER_HOST`, an image made of this machine's own static busybox, and the executor over them.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::OnceLock;

use bollard::query_parameters::{
    CreateImageOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions, RemoveVolumeOptions,
    UploadToContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker, body_full};
use futures_util::StreamExt;
use tempfile::TempDir;
use tunesmith::domain::names::AttemptId;
use tunesmith::executor::Executor;
use tunesmith::executor::docker::{DockerExecutor, DockerSettings, Pull};
use tunesmith::executor::images::{Image, Images, Program};

use super::executor_harness::ExecutorHarness;

/// Runs its `script` hyperparameter by a shell.
pub(crate) const SHELL: &str = "tunesmith-test/sh:1";

/// The daemon that tests use.
#[expect(clippy::disallowed_methods, reason = "it is the test's own surroundings")]
pub(crate) fn address() -> String {
    std::env::var("DOCKER_HOST")
        .expect("set DOCKER_HOST to a Docker daemon that tests may use; scripts/test starts one")
}

/// A client of a daemon that must answer.
pub(crate) async fn connect(address: &str) -> Docker {
    let docker = Docker::connect_with_unix(address, 120, API_DEFAULT_VERSION).expect("a unix socket is named");
    let answered = docker.negotiate_version().await;
    answered.map_err(|error| format!("no Docker daemon answers at {address}: {error}")).unwrap()
}

/// Makes the image where this process has not yet, and says what it is called.
pub(crate) async fn shell_image(docker: &Docker, address: &str) -> &'static str {
    static MADE: OnceLock<tokio::sync::Mutex<HashSet<String>>> = OnceLock::new();
    let mut made = MADE.get_or_init(tokio::sync::Mutex::default).lock().await;
    if made.insert(address.to_owned()) {
        import(docker, SHELL, r#"ENTRYPOINT ["/bin/sh", "-c", "eval \"$SM_HP_SCRIPT\"", "job"]"#).await;
    }
    SHELL
}

/// As [`make_helper_image`], on the daemon that tests use.
pub(crate) async fn helper_image(docker: &Docker) -> String {
    static MADE: tokio::sync::Mutex<Option<String>> = tokio::sync::Mutex::const_new(None);
    let mut made = MADE.lock().await;
    if made.is_none() {
        *made = Some(make_helper_image(docker).await);
    }
    made.clone().unwrap()
}

/// Makes an image of the binary under test, as `docker/pack` does, where it is not there yet; what it is called. Images of
/// earlier builds of this folder go.
pub(crate) async fn make_helper_image(docker: &Docker) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_tunesmith"));
    let meta = binary.metadata().unwrap();
    let number = |of: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        of(&mut hasher);
        hasher.finish()
    };
    let repository = format!("tunesmith-test/helper-{:x}", number(&|hasher| binary.hash(hasher)));
    let build = number(&|hasher| (meta.len(), meta.modified().unwrap()).hash(hasher));
    let name = format!("{repository}:{build:x}");
    if docker.inspect_image(&name).await.is_err() {
        let filters = Some(HashMap::from([("reference".to_owned(), vec![repository])]));
        let options = ListImagesOptions { filters, ..ListImagesOptions::default() };
        for tag in docker.list_images(Some(options)).await.unwrap().into_iter().flat_map(|image| image.repo_tags) {
            // One that a container has may stay.
            let _ = docker.remove_image(&tag, None::<RemoveImageOptions>, None).await;
        }
        let entry = "ENTRYPOINT [\"/usr/bin/tunesmith\"]";
        import_files(docker, &name, entry, linked(binary, "usr/bin/tunesmith")).await;
    }
    name
}

/// A program, stripped, with the libraries that it links.
fn linked(binary: &Path, at: &str) -> Vec<u8> {
    let stripped = tempfile::NamedTempFile::new().unwrap();
    let done = std::process::Command::new("strip").arg("-o").arg(stripped.path()).arg(binary).status();
    assert!(done.expect("strip is missing: it is of binutils").success());
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |at: &str, bytes: Vec<u8>| {
        archive
            .append_data(&mut header(tar::EntryType::Regular, 0o755, bytes.len() as u64), at, bytes.as_slice())
            .unwrap();
    };
    add(at, std::fs::read(stripped.path()).unwrap());
    let listed = std::process::Command::new("ldd").arg(binary).output().unwrap();
    for library in String::from_utf8(listed.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        add(&library[1..], std::fs::read(library).unwrap());
    }
    archive.into_inner().unwrap()
}

/// Makes an image of busybox with changes to its configuration, a line each.
pub(crate) async fn import(docker: &Docker, name: &str, changes: &str) {
    import_files(docker, name, changes, root()).await;
}

async fn import_files(docker: &Docker, name: &str, changes: &str, files: Vec<u8>) {
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        // With its tag: Podman looks for that nowhere else.
        repo: Some(name.into()),
        changes: changes.lines().map(str::to_owned).collect(),
        ..CreateImageOptions::default()
    };
    let mut steps = docker.create_image(Some(options), Some(body_full(files.into())), None).boxed();
    while let Some(step) = steps.next().await {
        step.unwrap();
    }
}

/// The files of an image: busybox under each of its names.
fn root() -> Vec<u8> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].iter().map(Path::new).find(|path| path.is_file());
    let busybox = busybox.expect("busybox is missing: scripts/test installs busybox-static");
    let listed = std::process::Command::new(busybox).arg("--list").output().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for (folder, mode) in [("bin/", 0o755), ("tmp/", 0o1777), ("proc/", 0o755), ("sys/", 0o755), ("dev/", 0o755)] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        archive.append_data(&mut header, folder, std::io::empty()).unwrap();
    }
    let program = std::fs::read(busybox).unwrap();
    let mut whole = header(tar::EntryType::Regular, 0o755, program.len() as u64);
    archive.append_data(&mut whole, "bin/busybox", program.as_slice()).unwrap();
    for name in String::from_utf8(listed.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut link, format!("bin/{name}"), "busybox").unwrap();
    }
    archive.into_inner().unwrap()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// A Docker executor on a data directory of its own.
pub(crate) struct Harness {
    pub(crate) executor: DockerExecutor,
    pub(crate) settings: DockerSettings,
    pub(crate) docker: Docker,
    scratch: TempDir,
}

impl Harness {
    /// With the settings that tests share.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings changed.
    pub(crate) async fn with(change: impl FnOnce(&mut DockerSettings)) -> Self {
        Self::at(address(), change).await
    }

    /// On a daemon of the test's own, with settings changed.
    pub(crate) async fn at(address: String, change: impl FnOnce(&mut DockerSettings)) -> Self {
        let scratch = TempDir::new().unwrap();
        let docker = connect(&address).await;
        let image = Image::container("test/sh:1", shell_image(&docker, &address).await);
        let mut read_only = Image::container("test/read-only:1", SHELL);
        if let Program::Container(container) = &mut read_only.program {
            container.read_only_root = true;
        }
        let images = Images::new(vec![image, read_only]).unwrap().allow(&["tunesmith-test/**".into()]).unwrap();
        let binary = env!("CARGO_BIN_EXE_tunesmith").into();
        let mut settings = DockerSettings::new(scratch.path().join("data"), binary, images, address);
        settings.pull = Pull::Never;
        settings.max_processes = Some(64);
        change(&mut settings);
        Self { executor: DockerExecutor::open(settings.clone()).unwrap(), settings, docker, scratch }
    }

    /// An attempt's folder.
    pub(crate) fn folder(&self, id: AttemptId) -> std::path::PathBuf {
        self.settings.data_dir.canonicalize().unwrap().join("docker/attempts").join(id.to_string())
    }

    /// What the name of an attempt's container is.
    pub(crate) fn container_name(&self, id: AttemptId) -> String {
        let own = self.executor.id().replace("docker:", "").replace('-', "");
        format!("tunesmith-{}-{id}", &own[..12])
    }

    /// The container of one of an attempt's hosts, such as `algo-2`.
    pub(crate) async fn host(&self, id: AttemptId, name: &str) -> String {
        let (attempt, host) = (format!("tunesmith.attempt={id}"), format!("tunesmith.host={name}"));
        let found = labelled(&self.docker, vec![attempt, host]).await;
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    /// The container of an attempt on one host.
    pub(crate) async fn container(&self, id: AttemptId) -> String {
        self.host(id, "algo-1").await
    }

    /// The helper that streams to one of an attempt's hosts.
    pub(crate) async fn helper(&self, id: AttemptId, host: &str) -> String {
        let labels = vec![format!("tunesmith.attempt={id}"), format!("tunesmith.streams-for={host}")];
        let found = labelled(&self.docker, labels).await;
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }
}

/// A Docker executor that streams channels.
pub(crate) struct Streaming(pub(crate) Harness);

impl Streaming {
    pub(crate) async fn start() -> Self {
        let helper = helper_image(&connect(&address()).await).await;
        Self(Harness::with(|settings| settings.helper_image = Some(helper)).await)
    }
}

impl ExecutorHarness for Streaming {
    async fn fresh() -> Self {
        Self::start().await
    }

    fn executor(&self) -> &dyn Executor {
        self.0.executor()
    }

    async fn restart(&mut self) {
        self.0.restart().await;
    }

    fn scratch(&self) -> &Path {
        self.0.scratch()
    }

    async fn tell(&self, id: AttemptId, name: &str) {
        self.0.tell(id, name).await;
    }
}

/// The ids of the containers that have a label.
pub(crate) async fn containers(docker: &Docker, label: &str) -> Vec<String> {
    labelled(docker, vec![label.to_owned()]).await
}

/// The ids of the containers that have all of some labels.
async fn labelled(docker: &Docker, labels: Vec<String>) -> Vec<String> {
    let filters = Some(HashMap::from([("label".to_owned(), labels)]));
    let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
    let found = docker.list_containers(Some(options)).await.unwrap();
    found.into_iter().filter_map(|container| container.id).collect()
}

/// Waits until a server has removed its containers, and removes the channels that it keeps for later.
pub(crate) async fn nothing_is_left(docker: &Docker, data_dir: &Path) {
    let id = std::fs::read_to_string(data_dir.join("executor-id")).unwrap();
    let label = format!("tunesmith.executor=docker:{}", id.trim());
    let gone = async {
        while !containers(docker, &label).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), gone).await.expect("no container is left");
    for volume in std::fs::read_dir(data_dir.join("docker/volumes")).unwrap() {
        let name = volume.unwrap().file_name().into_string().unwrap();
        docker.remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
    }
}

impl ExecutorHarness for Harness {
    async fn fresh() -> Self {
        Self::start().await
    }

    fn executor(&self) -> &dyn Executor {
        &self.executor
    }

    async fn restart(&mut self) {
        self.executor = DockerExecutor::open(self.settings.clone()).unwrap();
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    async fn tell(&self, id: AttemptId, name: &str) {
        self.tell_container(&self.container(id).await, name).await;
    }
}

impl Harness {
    /// Makes an empty file of a name in a container's `$SM_OUTPUT_DIR`.
    pub(crate) async fn tell_container(&self, container: &str, name: &str) {
        let mut archive = tar::Builder::new(Vec::new());
        let mut file = header(tar::EntryType::Regular, 0o644, 0);
        archive.append_data(&mut file, name, std::io::empty()).unwrap();
        let options = UploadToContainerOptions { path: "/opt/ml/output".into(), ..UploadToContainerOptions::default() };
        let bytes = body_full(archive.into_inner().unwrap().into());
        self.docker.upload_to_container(container, Some(options), bytes).await.unwrap();
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        // What a test left is removed before its folder goes; a runtime of its own, as this one may be ending.
        let settings = self.settings.clone();
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let executor = DockerExecutor::open(settings).unwrap();
                for id in executor.list().await.unwrap() {
                    executor.remove(id).await.unwrap();
                }
                executor.remove_channels().await.unwrap();
            });
        });
        let removed = removed.join();
        assert!(removed.is_ok() || std::thread::panicking(), "what the test left could not be removed");
    }
}

/// A Docker daemon of the test's own, without a network, which can be ended and started again.
pub(crate) struct Daemon {
    folder: TempDir,
    live_restore: bool,
    process: Option<std::process::Child>,
}

impl Daemon {
    pub(crate) async fn start(live_restore: bool) -> Self {
        let mut daemon = Self { folder: TempDir::new().unwrap(), live_restore, process: None };
        daemon.start_again().await;
        daemon
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    /// Starts it, and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        let at = |name: &str| self.folder.path().join(name);
        std::fs::write(at("daemon.json"), "{}").unwrap();
        let log = std::fs::File::options().create(true).append(true).open(at("log")).unwrap();
        // A network namespace of its own: daemons take each other's bridges away.
        let mut command = std::process::Command::new("unshare");
        command.args(["--net", "dockerd"]);
        command.args([
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "-H",
            &self.address(),
        ]);
        for (flag, name) in
            [("--data-root", "root"), ("--exec-root", "exec"), ("-p", "pid"), ("--config-file", "daemon.json")]
        {
            command.arg(flag).arg(at(name));
        }
        if self.live_restore {
            command.arg("--live-restore");
        }
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("unshare is missing: it is of util-linux"));
        let begun = std::time::Instant::now();
        loop {
            let docker = Docker::connect_with_unix(&self.address(), 5, API_DEFAULT_VERSION);
            if let Ok(docker) = docker
                && docker.ping().await.is_ok()
            {
                return;
            }
            let log = || std::fs::read_to_string(at("log")).unwrap_or_default();
            assert!(begun.elapsed() < std::time::Duration::from_mins(1), "dockerd does not answer: {}", log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Without containers nothing of it goes on: what is beneath it is left to end by itself.
        self.stop();
        if let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") {
            let within = self.folder.path().to_string_lossy().into_owned();
            for place in
                mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|p| p.starts_with(&within))
            {
                let _ = nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}
