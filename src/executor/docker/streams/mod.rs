//! Channels as named pipes of a container: a helper container beside each host makes and fills them.
//!
//! Invariant: the pipes are in a volume that the helper alone can write to; the training container has it read-only, so
//! that no program can break what it reads from. A helper bears its attempt's labels, and goes with the attempt. It runs
//! Tunesmith's own image with no network, no capability, and its pipes as the one place that it can write to. Starting it
//! and looking after it is left to the attempt's supervisor, what runs inside to `helper`.

mod helper;

use std::path::PathBuf;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount};

pub use self::helper::dispatch;
pub(super) use self::helper::is_ready;
use super::launch::{self, Names};
use super::settings::DockerSettings;
use super::volumes::{self, Filled, Volumes};
use crate::domain::pipe::Share;
use crate::executor::contract::{self, host_name};
use crate::executor::pipe::Stream;
use crate::executor::{AttemptSpec, ChannelSpec, ExecutorError};

/// Where the helper has the volume of the pipes.
pub(super) const PIPES: &str = "/tunesmith/pipes";

/// Where the helper has the channels' data and lists, each in a folder by its number.
const DATA: &str = "/tunesmith/data";

/// Memory of a helper, bytes: it holds the names of a channel's objects, and the kernel what is in the pipes.
const MEMORY: i64 = 1 << 30;

/// A thread for each channel, of which the service takes 20.
const MAX_PROCESSES: i64 = 64;

/// What is streamed to one of an attempt's hosts.
#[derive(Debug, Default)]
pub(super) struct Streams {
    channels: Vec<Stream>,
    mounts: Vec<Mount>,
    /// The host's channels that are folders: the volume has to have a place for each.
    pub(super) folders: Vec<String>,
}

impl Streams {
    /// Adds a channel: `filled` are the volumes with its [`sources`], in their order.
    pub(super) fn add(
        &mut self,
        volumes: &Volumes,
        channel: &ChannelSpec,
        filled: &[Filled],
        (host, hosts): (usize, usize),
    ) {
        let Some(mut spec) = channel.pipe.clone() else { return };
        let number = self.channels.len();
        let mut filled = (0..).zip(filled).map(|(part, filled)| {
            let place = format!("{DATA}/{number}/{part}");
            self.mounts.push(volumes.mount(filled, &place));
            PathBuf::from(place)
        });
        let Some(source) = filled.next() else { return };
        if let Some(list) = &mut spec.list {
            let name = list.file_name().map(ToOwned::to_owned).unwrap_or_default();
            *list = filled.next().unwrap_or_default().join(name);
        }
        spec.buckets.values_mut().zip(filled).for_each(|(bucket, place)| *bucket = place);
        // Hosts share each epoch out among them, after it was shuffled.
        let share = if channel.sharded { Share { host, hosts } } else { Share { host: 0, hosts: 1 } };
        self.channels.push(Stream { name: channel.name.clone(), source, spec, share });
    }

    /// The helper of a host's container.
    pub(super) fn body(
        self,
        spec: &AttemptSpec,
        names: &Names,
        image: &str,
        (container, host): (&str, usize),
    ) -> Result<ContainerCreateBody, ExecutorError> {
        let streams = serde_json::to_string(&self.channels).map_err(|error| {
            ExecutorError::Client(format!("a channel cannot be streamed into a container: {error}"))
        })?;
        let mut labels = launch::labels(&names.executor, spec);
        labels.insert("tunesmith.streams-for".to_owned(), host_name(host));
        let mut mounts = self.mounts;
        mounts.push(pipes(spec, names, container, PIPES, false));
        Ok(ContainerCreateBody {
            image: Some(image.to_owned()),
            // The image's entry point is the program.
            cmd: Some(vec![helper::COMMAND.to_owned(), streams]),
            // What the daemon makes volumes for. Without capabilities it is nobody else's.
            user: Some("0:0".to_owned()),
            // The image's own may be closed to it.
            working_dir: Some("/".to_owned()),
            labels: Some(labels),
            // The first process of a container minds no other.
            stop_signal: Some("SIGKILL".to_owned()),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                network_mode: Some("none".to_owned()),
                memory: Some(MEMORY),
                memory_swap: Some(MEMORY),
                pids_limit: Some(MAX_PROCESSES),
                readonly_rootfs: Some(true),
                log_config: Some(HostConfigLogConfig { typ: Some(names.log_driver.clone()), config: None }),
                ..launch::confined()
            }),
            ..ContainerCreateBody::default()
        })
    }
}

/// Where a channel's data is, then its list, if it has one, and the buckets of that.
pub(super) fn sources(channel: &ChannelSpec) -> impl Iterator<Item = &PathBuf> {
    let pipe = channel.pipe.iter();
    let further = pipe.flat_map(|pipe| pipe.list.iter().chain(pipe.buckets.values()));
    std::iter::once(&channel.source).chain(further)
}

/// The name of the helper of a host's container.
pub(super) fn container_name(container: &str) -> String {
    format!("{container}-streams")
}

/// The pipes of a host's container, as they stand in its `/opt/ml/input/data`.
pub(super) fn pipes_of_host(spec: &AttemptSpec, names: &Names, container: &str) -> Mount {
    pipes(spec, names, container, &format!("{}/input/data", contract::ROOT), true)
}

fn pipes(spec: &AttemptSpec, names: &Names, container: &str, target: &str, read_only: bool) -> Mount {
    let labels = launch::labels(&names.executor, spec);
    volumes::bare_mount(&volumes::pipes_name(container), target, labels, read_only)
}

/// Why a channel of an attempt cannot be streamed on a server without an image for the helper; none where it can.
pub(super) fn refusal(settings: &DockerSettings, spec: &AttemptSpec) -> Option<String> {
    let channel = spec.channels.iter().find(|channel| channel.pipe.is_some())?;
    settings.helper_image.is_none().then(|| {
        format!(
            "the channel {} cannot be streamed into a container: this server has no image for the helper that does it \
             (docker.helper_image)",
            channel.name
        )
    })
}
