//! Channels as volumes: filled once, mounted read-only by every container that reads them.
//!
//! Invariant: a volume is used only where a mark in the data directory says that it was filled to its end; its name says
//! with what: the source's path, each file's name, size and time, and which share of them. Only one at a time fills it, and
//! none is removed that is being filled or about to be mounted.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::archive::{self, TransferError};
use super::daemon::{self, Error, infrastructure};
use super::share::Share;
use crate::domain::names::AttemptId;
use crate::executor::folder::{blocking, found};
use crate::executor::{ChannelSpec, ExecutorError};

/// Where a volume is mounted while it is filled.
const FILLED_AT: &str = "/tunesmith-channel";

/// On a volume: whose it is.
const OWNER_LABEL: &str = "tunesmith.data-directory";

/// On the container that a volume is filled through: which.
const FILLER_LABEL: &str = "tunesmith.fills";

/// The volumes of one data directory.
#[derive(Debug)]
pub(super) struct Volumes {
    /// The marks: a small file each, written at each use.
    marks: PathBuf,
    /// What the names of all of them begin with.
    prefix: String,
    /// How long the daemon may take nothing of an upload.
    patience: Duration,
    locks: Mutex<HashMap<String, Arc<Lock>>>,
}

/// Who is at a volume.
#[derive(Debug, Default)]
struct Lock {
    /// Shared by those who use or fill it; whoever removes it has it alone, and never waits for that: an attempt that has
    /// one volume and waits for another would wait behind it.
    used: Arc<RwLock<()>>,
    /// Held by whoever fills it.
    filled: tokio::sync::Mutex<()>,
}

/// A volume that stays as it is for as long as this is held.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) name: String,
    _held: OwnedRwLockReadGuard<()>,
}

impl Volumes {
    pub(super) fn open(marks: PathBuf, prefix: String, patience: Duration) -> io::Result<Self> {
        std::fs::create_dir_all(&marks)?;
        Ok(Self { marks, prefix, patience, locks: Mutex::default() })
    }

    /// A volume with a channel's data, or a share of it; `image` is one that the daemon has, whichever: nothing of it
    /// runs.
    pub(super) async fn filled(
        &self,
        docker: &bollard::Docker,
        patient: &bollard::Docker,
        image: &str,
        channel: &ChannelSpec,
        share: Option<Share>,
    ) -> Result<Filled, ExecutorError> {
        let source = channel.source.clone();
        let doing = format!("looking through the channel {}", channel.name);
        let print = blocking(doing, move || fingerprint(&source)).await?;
        // No name begins with another: Podman takes the beginning of one for it.
        let share_name = share.map_or_else(String::new, |Share { host, hosts }| format!("{}of{hosts}-", host + 1));
        let name = format!("{}-channel-{share_name}{print}", self.prefix);
        let lock = self.lock(&name);
        let held = Arc::clone(&lock.used).read_owned().await;
        if !self.is_filled(docker, &name).await? {
            let _turn = lock.filled.lock().await;
            if !self.is_filled(docker, &name).await? {
                self.fill(docker, patient, image, &name, (channel, share)).await?;
            }
        }
        Ok(Filled { name, _held: held })
    }

    /// Removes volumes that nobody used for long, and what is left of fillings that did not come to their end. Those that a
    /// container mounts stay.
    pub(super) async fn remove_unused(&self, docker: &bollard::Docker, unused: Duration) -> Result<(), ExecutorError> {
        let marks = self.marks.clone();
        let marked = blocking("looking through the channels' volumes".into(), move || {
            let mut marked = HashMap::new();
            for entry in std::fs::read_dir(marks)? {
                let entry = entry?;
                let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
                marked.extend(entry.file_name().into_string().ok().map(|name| (name, age)));
            }
            Ok(marked)
        })
        .await?;
        // One that does not go keeps no other.
        let mut outcome = Ok(());
        let mut left = self.unmarked(docker, &marked).await?;
        left.extend(self.with_fillers(docker).await?);
        for name in left {
            let Ok(_alone) = Arc::clone(&self.lock(&name).used).try_write_owned() else { continue };
            // One that was filled meanwhile is as new as can be; what filled it may have been made once more, by a request
            // that was given up.
            let removed = if self.marks.join(&name).exists() {
                self.remove_fillers(docker, &name).await
            } else {
                self.remove_with_fillers(docker, &name).await
            };
            outcome = removed.and(outcome);
        }
        for (name, _) in marked.into_iter().filter(|(_, age)| *age >= unused) {
            let Ok(_alone) = Arc::clone(&self.lock(&name).used).try_write_owned() else { continue };
            outcome = self.remove_with_fillers(docker, &name).await.and(outcome);
        }
        outcome
    }

    async fn remove_with_fillers(&self, docker: &bollard::Docker, name: &str) -> Result<(), ExecutorError> {
        self.remove_fillers(docker, name).await?;
        self.remove(docker, name).await
    }

    /// The channels' volumes that the daemon has of this data directory, and that have no mark.
    async fn unmarked(
        &self,
        docker: &bollard::Docker,
        marked: &HashMap<String, Duration>,
    ) -> Result<HashSet<String>, ExecutorError> {
        let filters = Some(HashMap::from([("label".to_owned(), vec![self.label()])]));
        let found = docker.list_volumes(Some(ListVolumesOptions { filters })).await;
        let found = found.map_err(infrastructure("listing the channels' volumes"))?.volumes.unwrap_or_default();
        Ok(found.into_iter().map(|volume| volume.name).filter(|name| !marked.contains_key(name)).collect())
    }

    /// The volumes of this data directory that the daemon has a filler of.
    async fn with_fillers(&self, docker: &bollard::Docker) -> Result<HashSet<String>, ExecutorError> {
        let filters = Some(HashMap::from([("label".to_owned(), vec![self.label(), FILLER_LABEL.to_owned()])]));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        let found = docker.list_containers(Some(options)).await;
        let found = found.map_err(infrastructure("listing what fills the channels' volumes"))?;
        Ok(found.into_iter().filter_map(|filler| filler.labels?.remove(FILLER_LABEL)).collect())
    }

    /// What all that is made here bears, volumes and what fills them.
    fn label(&self) -> String {
        format!("{OWNER_LABEL}={}", self.prefix)
    }

    /// A channel's volume at a path of a container, read-only.
    pub(super) fn mount(&self, filled: &Filled, target: &str) -> Mount {
        self.mount_named(&filled.name, target, true)
    }

    /// Bears the label, too: whoever mounts a volume that has been removed meanwhile makes it anew.
    fn mount_named(&self, name: &str, target: &str, read_only: bool) -> Mount {
        bare_mount(name, target, HashMap::from([(OWNER_LABEL.to_owned(), self.prefix.clone())]), read_only)
    }

    fn lock(&self, name: &str) -> Arc<Lock> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds, or a long life would gather one for each content that ever was.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1 || Arc::strong_count(&lock.used) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    async fn is_filled(&self, docker: &bollard::Docker, name: &str) -> Result<bool, ExecutorError> {
        let mark = self.marks.join(name);
        // Written anew, so that its time tells of the last use.
        let touched = std::fs::File::options().write(true).open(mark).and_then(|mut mark| mark.write_all(b"\n"));
        if found(touched).map_err(crate::executor::folder::failed(format!("marking the volume {name}")))?.is_none() {
            return Ok(false);
        }
        // Somebody may have removed it.
        let there = daemon::there(docker.inspect_volume(name).await);
        Ok(there.map_err(infrastructure(format!("looking for the volume {name}")))?.is_some())
    }

    async fn fill(
        &self,
        docker: &bollard::Docker,
        patient: &bollard::Docker,
        image: &str,
        name: &str,
        (channel, share): (&ChannelSpec, Option<Share>),
    ) -> Result<(), ExecutorError> {
        let failed = || infrastructure(format!("filling the volume of channel {}", channel.name));
        // What an earlier filling left half done.
        self.remove_with_fillers(docker, name).await?;
        let labels = HashMap::from([(OWNER_LABEL.to_owned(), self.prefix.clone())]);
        let volume =
            VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..VolumeCreateRequest::default() };
        docker.create_volume(volume).await.map_err(failed())?;
        // Of a name of its own: a request that a server left behind may still hold another.
        let filler = format!("{name}-{}", uuid::Uuid::new_v4().simple());
        let mount = self.mount_named(name, FILLED_AT, false);
        let labels = [(FILLER_LABEL.to_owned(), name.to_owned()), (OWNER_LABEL.to_owned(), self.prefix.clone())];
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // Never started, but there has to be something.
            entrypoint: Some(vec!["none".to_owned()]),
            labels: Some(labels.into()),
            network_disabled: Some(true),
            host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptions { name: Some(filler.clone()), ..CreateContainerOptions::default() };
        docker.create_container(Some(options), body).await.map_err(failed())?;
        let source = channel.source.clone();
        let uploaded = archive::upload(patient, &filler, FILLED_AT, self.patience, move |archive| match share {
            None => archive::append_tree(archive, Path::new(""), &source, false),
            Some(share) => share.append(archive, &source),
        })
        .await;
        self.remove_filler(docker, &filler).await?;
        uploaded.map_err(|error| upload_failed(&format!("filling the volume of channel {}", channel.name), error))?;
        let marked = std::fs::write(self.marks.join(name), "");
        marked.map_err(crate::executor::folder::failed(format!("marking the volume {name}")))
    }

    /// Removes what filled a volume, or was about to.
    async fn remove_fillers(&self, docker: &bollard::Docker, name: &str) -> Result<(), ExecutorError> {
        let filters = Some(HashMap::from([("label".to_owned(), vec![format!("{FILLER_LABEL}={name}")])]));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        let left = docker.list_containers(Some(options)).await;
        for filler in left.map_err(infrastructure(format!("looking for what filled the volume {name}")))? {
            self.remove_filler(docker, &filler.id.unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn remove_filler(&self, docker: &bollard::Docker, filler: &str) -> Result<(), ExecutorError> {
        // With the volumes that its image declares; the channel's has a name, and stays.
        let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        let removed = daemon::there(docker.remove_container(filler, Some(options)).await);
        removed.map(drop).map_err(infrastructure(format!("removing the container {filler}")))
    }

    /// Removes a volume and then its mark; one that is in use stays, with its mark.
    async fn remove(&self, docker: &bollard::Docker, name: &str) -> Result<(), ExecutorError> {
        match daemon::there(docker.remove_volume(name, None::<RemoveVolumeOptions>).await) {
            Err(error) if daemon::status(&error) == Some(409) => return Ok(()),
            other => other.map_err(infrastructure(format!("removing the volume {name}")))?,
        };
        let gone = found(std::fs::remove_file(self.marks.join(name)));
        gone.map(drop).map_err(crate::executor::folder::failed(format!("unmarking the volume {name}")))
    }
}

/// The volume behind a container's `/opt/ml`, where its root is read-only.
pub(super) fn own_name(container: &str) -> String {
    format!("{container}-ml")
}

/// The volume of a container's pipes.
pub(super) fn pipes_name(container: &str) -> String {
    format!("{container}-pipes")
}

/// Such volumes of an attempt, on one host or several; `name` is what the names of its containers begin with.
pub(super) async fn of_attempt(docker: &bollard::Docker, name: &str) -> Result<Vec<String>, Error> {
    let found = named(docker, name).await?;
    Ok(found.into_iter().filter(|volume| volume.strip_prefix(name).and_then(of_container) == Some("")).collect())
}

/// The attempts that have such volumes; `prefix` is what the names of an executor's containers begin with. Their labels
/// would not tell: Podman makes a container's volumes without.
pub(super) async fn attempts(docker: &bollard::Docker, prefix: &str) -> Result<Vec<AttemptId>, Error> {
    let found = named(docker, prefix).await?;
    let attempt = |volume: &String| of_container(volume.strip_prefix(prefix)?.strip_prefix('-')?)?.parse().ok();
    Ok(found.iter().filter_map(attempt).collect())
}

/// What is left of the name of a container's volume without its kind and its host.
fn of_container(volume: &str) -> Option<&str> {
    let container = volume.strip_suffix("-ml").or_else(|| volume.strip_suffix("-pipes"))?;
    Some(container.split_once("-algo-").map_or(container, |(attempt, _)| attempt))
}

/// The volumes with a text in their names.
async fn named(docker: &bollard::Docker, text: &str) -> Result<Vec<String>, Error> {
    let filters = Some(HashMap::from([("name".to_owned(), vec![text.to_owned()])]));
    let found = docker.list_volumes(Some(ListVolumesOptions { filters })).await?.volumes.unwrap_or_default();
    Ok(found.into_iter().map(|volume| volume.name).collect())
}

/// An upload that did not come to its end.
pub(super) fn upload_failed(doing: &str, error: TransferError) -> ExecutorError {
    match error {
        TransferError::Daemon(error) => infrastructure(doing)(error),
        other => ExecutorError::Infrastructure { doing: doing.to_owned(), source: io::Error::other(other) },
    }
}

/// A volume at a path of a container, made with labels where it is not there. One that is empty gets what the image has at
/// that path.
pub(super) fn mount(volume: &str, target: &str, labels: HashMap<String, String>) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(false),
        volume_options: Some(MountVolumeOptions { labels: Some(labels), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

/// The same, but nothing of the image's.
pub(super) fn bare_mount(volume: &str, target: &str, labels: HashMap<String, String>, read_only: bool) -> Mount {
    let mut mount = mount(volume, target, labels);
    mount.read_only = Some(read_only);
    mount.volume_options.get_or_insert_default().no_copy = Some(true);
    mount
}

/// Tells one content from another, without reading it.
fn fingerprint(source: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(source.as_os_str().as_bytes());
    // Links given as the source are followed, as staging means them.
    add(&mut hash, source, &source.metadata()?)?;
    let digest: [u8; 32] = hash.finalize().into();
    let (half, _) = digest.split_at(16);
    Ok(format!("{:032x}", half.iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte))))
}

fn add(hash: &mut Sha256, path: &Path, meta: &std::fs::Metadata) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    if !meta.is_dir() {
        for part in [meta.size(), meta.ino(), meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned()] {
            hash.update(part.to_le_bytes());
        }
        return Ok(());
    }
    let mut entries = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
    hash.update((entries.len() as u64).to_le_bytes());
    for entry in entries {
        add(hash, &entry.path(), &entry.path().symlink_metadata()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_channel_is_another() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/a"), "1").unwrap();
        let first = fingerprint(folder.path()).unwrap();
        assert_eq!(fingerprint(folder.path()).unwrap(), first);
        std::fs::write(folder.path().join("b"), "").unwrap();
        let second = fingerprint(folder.path()).unwrap();
        std::fs::write(folder.path().join("d/a"), "22").unwrap();
        let third = fingerprint(folder.path()).unwrap();
        assert!(first != second && second != third && first.len() == 32);
    }
}
