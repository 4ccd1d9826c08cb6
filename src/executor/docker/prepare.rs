//! Making an attempt's containers ready: all that a supervisor needs to start them.
//!
//! Invariant: every step may be done again by a server that finds it done in part, and what cannot be had for every host
//! is had for none: a plan is written once all containers are there and filled. Starting them is the supervisor's.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, Mount};
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tar::Builder;

use super::archive::{self, Pieces};
use super::daemon::{self, infrastructure};
use super::instances::{self, Limits};
use super::launch::{self, Contents, Names};
use super::meter::Meter;
use super::network;
use super::plan::Plan;
use super::share::Share;
use super::streams::{self, Streams};
use super::volumes::{self, Filled};
use super::{Clients, DockerExecutor, pull, remove_container, stamp};
use crate::domain::names::AttemptId;
use crate::executor::contract::{self, Machine};
use crate::executor::disk_bound::DiskBound;
use crate::executor::folder::{Folder, blocking};
use crate::executor::images::Container;
use crate::executor::{AttemptSpec, ChannelSpec, ExecutorError};

/// One host of an attempt, as it is to be.
struct Host {
    container: String,
    machine: Machine,
    contents: Contents,
    mounts: Vec<Mount>,
    streams: Streams,
}

impl DockerExecutor {
    /// Makes everything ready for a supervisor, and writes its plan.
    pub(super) async fn prepare(
        &self,
        spec: &AttemptSpec,
        image: &Container,
        folder: &Folder,
    ) -> Result<(), ExecutorError> {
        let clients = self.clients().await?;
        let share = clients.machine.shared_by(spec.hosts);
        let limits = instances::limits(spec.instance_type.as_deref(), share, self.settings.instance_limits);
        let limits = limits.map_err(|why| match spec.hosts {
            1 => ExecutorError::Client(why),
            hosts => ExecutorError::Client(format!("{why}, for each of {hosts} hosts")),
        })?;
        let internal = network::is_internal(&self.settings.network, spec.network_isolation);
        let internal = if spec.hosts == 1 { None } else { Some(internal?) };
        let log_driver = clients.log_driver.clone();
        let mut names = Names { executor: self.id.clone(), network: None, log_driver };
        let mut hosts = self.hosts(spec, image, &limits, clients.machine.cpus)?;
        // What can be refused is, before anything is fetched.
        launch::body(&self.settings, spec, image, &names, &limits, &hosts[0].machine, Vec::new())?;
        tokio::try_join!(
            self.end_earlier(&clients.docker, spec.id),
            pull::ensure(&clients.docker, &clients.patient, &self.settings, &image.reference),
            self.ensure_helper_image(&clients, spec),
        )?;

        if let Some(internal) = internal {
            let name = self.container_name(spec.id, None);
            names.network = Some(network::ensure(&clients.docker, &self.id, &name, spec.id, internal).await?);
        }
        let held = self.mount_channels(&clients, spec, image, &mut hosts).await?;
        let helpers = self.make_helpers(&clients, spec, &names, &mut hosts).await?;
        let mut made = Vec::new();
        for host in &mut hosts {
            let mounts = std::mem::take(&mut host.mounts);
            let body = launch::body(&self.settings, spec, image, &names, &limits, &host.machine, mounts)?;
            made.push(create(&clients.docker, &host.container, body).await?);
        }
        drop(held);
        let containers = hosts.iter().map(|host| host.container.clone()).collect();
        for (host, made) in hosts.into_iter().zip(made) {
            if made || !has_begun(&clients.docker, &host.container).await? {
                let (path, contents) = (host.contents.unpacked_at(), host.contents);
                self.fill(&clients, &host.container, path, move |archive| contents.write(archive)).await?;
            }
        }
        let memory = limits.bounds.map(|bounds| bounds.memory);
        let mut plan = self.plan(&clients, spec, containers, memory);
        plan.helpers = helpers;
        if image.read_only_root && plan.disk.is_some() {
            let meter = |container| Meter::new(&self.id, spec, &image.reference, container);
            plan.meters = plan.containers().map(meter).collect();
            for meter in &plan.meters {
                let made = create(&clients.docker, &meter.name, meter.body.clone()).await;
                made.map_err(not_the_jobs("making what shows how full /opt/ml is"))?;
            }
        }
        let folder = folder.clone();
        blocking(format!("writing the plan of attempt {}", spec.id), move || {
            match mkfifo(&folder.control(), Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            std::fs::write(folder.plan(), serde_json::to_vec(&plan)?)
        })
        .await
    }

    fn hosts(
        &self,
        spec: &AttemptSpec,
        image: &Container,
        limits: &Limits,
        machine_cpus: f64,
    ) -> Result<Vec<Host>, ExecutorError> {
        let host = |host| {
            let machine = launch::machine(limits, machine_cpus, spec, host);
            let contents = Contents::new(spec, &machine, image)?;
            let container = self.container_name(spec.id, (spec.hosts > 1).then_some(host));
            let own = image.read_only_root.then(|| {
                let labels = launch::labels(&self.id, spec);
                volumes::mount(&volumes::own_name(&container), contract::ROOT, labels)
            });
            let streams = Streams::default();
            Ok(Host { container, machine, contents, mounts: own.into_iter().collect(), streams })
        };
        (0..spec.hosts.max(1)).map(host).collect()
    }

    /// Sees that there is a volume for each channel, and for each share of those that are shared out. They stay for as
    /// long as what is returned is held, and then for as long as there are containers that mount them.
    async fn mount_channels(
        &self,
        clients: &Clients,
        spec: &AttemptSpec,
        image: &Container,
        hosts: &mut [Host],
    ) -> Result<Vec<Filled>, ExecutorError> {
        let mut held = Vec::new();
        for channel in &spec.channels {
            if channel.pipe.is_some() {
                held.extend(self.hand_to_streams(clients, spec, image, channel, hosts).await?);
                continue;
            }
            let target = format!("{}/input/data/{}", contract::ROOT, channel.name);
            let shares = if channel.sharded && spec.hosts > 1 { spec.hosts } else { 1 };
            for nth in 0..shares {
                let share = (shares > 1).then_some(Share { host: nth, hosts: shares });
                let volumes = &self.volumes;
                let (docker, patient) = (&clients.docker, &clients.patient);
                let filled = volumes.filled(docker, patient, &image.reference, channel, share).await?;
                let of = if shares > 1 { &mut hosts[nth..=nth] } else { &mut *hosts };
                for host in of {
                    host.mounts.push(self.volumes.mount(&filled, &target));
                    host.streams.folders.push(channel.name.clone());
                }
                held.push(filled);
            }
        }
        Ok(held)
    }

    /// Gives a channel to the hosts' helpers: all of its data, since hosts that share it do so anew in each epoch.
    async fn hand_to_streams(
        &self,
        clients: &Clients,
        spec: &AttemptSpec,
        image: &Container,
        channel: &ChannelSpec,
        hosts: &mut [Host],
    ) -> Result<Vec<Filled>, ExecutorError> {
        let (docker, patient) = (&clients.docker, &clients.patient);
        let mut held = Vec::new();
        for source in streams::sources(channel) {
            let part = ChannelSpec { source: source.clone(), ..channel.clone() };
            held.push(self.volumes.filled(docker, patient, &image.reference, &part, None).await?);
        }
        for (nth, host) in hosts.iter_mut().enumerate() {
            host.streams.add(&self.volumes, channel, &held, (nth, spec.hosts));
        }
        Ok(held)
    }

    /// Sees that there is a helper for each host of an attempt with channels to stream, and mounts its pipes; their names.
    async fn make_helpers(
        &self,
        clients: &Clients,
        spec: &AttemptSpec,
        names: &Names,
        hosts: &mut [Host],
    ) -> Result<Vec<String>, ExecutorError> {
        let Some(image) = self.settings.helper_image.as_ref().filter(|_| spec.has_pipes()) else {
            return Ok(Vec::new());
        };
        let mut helpers = Vec::new();
        for (nth, host) in hosts.iter_mut().enumerate() {
            let mut streams = std::mem::take(&mut host.streams);
            let folders = std::mem::take(&mut streams.folders);
            let helper = streams::container_name(&host.container);
            let body = streams.body(spec, names, image, (&host.container, nth))?;
            let made = create(&clients.docker, &helper, body).await;
            let made = made.map_err(not_the_jobs("making the helper that streams channels (docker.helper_image)"))?;
            // Nothing can be made there later to mount a channel on.
            if !folders.is_empty() && (made || !has_begun(&clients.docker, &helper).await?) {
                self.fill(clients, &helper, streams::PIPES, move |archive| {
                    folders.iter().try_for_each(|name| archive::append_folder(archive, name, 0o755))
                })
                .await?;
            }
            host.mounts.push(streams::pipes_of_host(spec, names, &host.container));
            helpers.push(helper);
        }
        Ok(helpers)
    }

    /// Sees that the daemon has the image of helpers, where one is needed. Which it is was the owner's to say.
    async fn ensure_helper_image(&self, clients: &Clients, spec: &AttemptSpec) -> Result<(), ExecutorError> {
        let Some(image) = self.settings.helper_image.as_ref().filter(|_| spec.has_pipes()) else { return Ok(()) };
        let there = pull::ensure(&clients.docker, &clients.patient, &self.settings, image).await;
        there.map_err(not_the_jobs("looking for the image of the helper that streams channels (docker.helper_image)"))
    }

    fn plan(&self, clients: &Clients, spec: &AttemptSpec, containers: Vec<String>, memory: Option<u64>) -> Plan {
        let settings = &self.settings;
        let version = clients.docker.client_version();
        let checkpoints = spec.checkpoints.as_ref();
        let mut containers = containers.into_iter();
        Plan {
            attempt: spec.id,
            address: settings.address.clone(),
            api: Some((version.major_version, version.minor_version)),
            container: containers.next().unwrap_or_default(),
            others: containers.collect(),
            helpers: Vec::new(),
            meters: Vec::new(),
            max_runtime_ms: spec.max_runtime_ms,
            stop_grace_ms: spec.stop_grace_ms,
            max_log_bytes: settings.max_log_bytes,
            segment_bytes: settings.segment_bytes,
            disk: DiskBound::of(spec.volume_bytes, settings.max_disk_bytes, "docker.max_disk_gib"),
            memory,
            checkpoints: checkpoints.map(|it| (it.target.to_string_lossy().into_owned(), it.source.clone())),
            save_every_ms: milliseconds(settings.save_checkpoints_every),
            max_output: settings.max_output,
            patience_ms: milliseconds(settings.patience),
        }
    }

    /// Puts what `write` writes into a container.
    async fn fill(
        &self,
        clients: &Clients,
        container: &str,
        path: &str,
        write: impl FnOnce(&mut Builder<Pieces>) -> io::Result<()> + Send + 'static,
    ) -> Result<(), ExecutorError> {
        let uploaded = archive::upload(&clients.patient, container, path, self.settings.patience, write).await;
        uploaded.map_err(|error| volumes::upload_failed(&format!("filling the container {container}"), error))
    }

    /// Sees that no other attempt of a training job runs, such as one that was given up while the daemon was away.
    async fn end_earlier(&self, docker: &bollard::Docker, id: AttemptId) -> Result<(), ExecutorError> {
        if id.number == 1 {
            return Ok(());
        }
        let doing = "looking for earlier attempts";
        let job = format!("tunesmith.training-job={}", id.training_job.simple());
        for (other, container) in self.containers(docker, &[job]).await.map_err(infrastructure(doing))? {
            if other != id {
                remove_container(docker, &container).await?;
            }
        }
        Ok(())
    }
}

/// What goes wrong with what the owner chose is no fault of the job.
fn not_the_jobs(doing: &'static str) -> impl FnOnce(ExecutorError) -> ExecutorError {
    move |error| match error {
        ExecutorError::Client(why) => {
            ExecutorError::Infrastructure { doing: doing.to_owned(), source: io::Error::other(why) }
        }
        infrastructure @ ExecutorError::Infrastructure { .. } => infrastructure,
    }
}

/// Sees that there is a container; whether it was made just now.
async fn create(docker: &bollard::Docker, name: &str, body: ContainerCreateBody) -> Result<bool, ExecutorError> {
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
    match docker.create_container(Some(options), body).await {
        // A server that died on the way made it, or the daemon is still at it.
        Err(error) if daemon::status(&error) == Some(409) => wait_for_container(docker, name).await.map(|()| false),
        Err(error) if daemon::status(&error) == Some(400) => {
            let message = daemon::message(&error);
            Err(ExecutorError::Client(format!("the container cannot be made: {message}")))
        }
        other => other.map(|_| true).map_err(infrastructure(format!("creating the container {name}"))),
    }
}

/// Whether a container was started: then it has the contract's files.
async fn has_begun(docker: &bollard::Docker, container: &str) -> Result<bool, ExecutorError> {
    let inspected = docker.inspect_container(container, None::<InspectContainerOptions>).await;
    let state = inspected.map_err(infrastructure(format!("looking at the container {container}")))?.state;
    Ok(state.unwrap_or_default().started_at.as_deref().and_then(stamp::Stamp::parse).is_some())
}

/// Waits until a container whose name is taken is there.
async fn wait_for_container(docker: &bollard::Docker, name: &str) -> Result<(), ExecutorError> {
    let doing = || format!("waiting for the container {name}");
    for _ in 0..300 {
        let inspected = docker.inspect_container(name, None::<InspectContainerOptions>).await;
        if daemon::there(inspected).map_err(infrastructure(doing()))?.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(ExecutorError::Infrastructure { doing: doing(), source: ErrorKind::TimedOut.into() })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
