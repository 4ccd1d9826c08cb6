//! How much disk an attempt's containers take: their own layers, the volumes that their image declares, and the one behind
//! `/opt/ml` where there is one.
//!
//! Invariant: a look goes no further than the limit, since what is behind it decides nothing more.

use std::io;
use std::path::Path;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::InspectContainerOptions;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::{Attempt, Stopping};
use crate::domain::outcome::ExitCause;
use crate::executor::docker::archive::{self, Source, TransferError};
use crate::executor::docker::meter::{self, Meter};

impl Attempt<'_> {
    /// How much the running containers take, by host: the daemon reads it all, which takes a while.
    pub(super) fn disk_look(&self, docker: bollard::Docker) -> BoxFuture<'static, Vec<(usize, u64)>> {
        let running = self.hosts.iter().enumerate().filter(|(_, host)| host.over.is_none());
        let running = running.map(|(at, host)| (at, host.container.clone(), self.plan.meters.get(at).cloned()));
        let running: Vec<_> = running.collect();
        let (limit, patience) = (self.plan.disk.as_ref().map_or(0, |bound| bound.bytes), self.plan.patience());
        let look = async move {
            let looks = running.iter().map(async |(at, container, meter)| {
                let (mut taken, image) = taken(&docker, container, limit, patience).await?;
                if let Some(meter) = meter {
                    taken += metered(&docker, (meter, image), limit.saturating_sub(taken), patience).await;
                }
                Some((*at, taken))
            });
            join_all(looks).await.into_iter().flatten().collect()
        };
        look.boxed()
    }

    /// An attempt over its limit on one of its hosts gets no grace: the disk would fill meanwhile.
    pub(super) async fn judge_disk(&mut self, sizes: &[(usize, u64)]) -> io::Result<()> {
        let Some(bound) = self.plan.disk.clone().filter(|_| self.stopping.is_none()) else { return Ok(()) };
        if let Some((host, _)) = sizes.iter().find(|(_, size)| *size > bound.bytes) {
            let message = bound.message();
            let remark = format!("{}{message}: SIGKILL sent", self.who(*host));
            let cause = ExitCause::OverLimit { message };
            let stopping = Stopping { cause, begun_at: self.clock.now(), host: Some(*host) };
            self.begin_stopping(stopping, &remark, 0)?;
            self.signal("SIGKILL").await;
        }
        Ok(())
    }
}

/// What one container takes, and the image that it runs; none where the daemon does not tell.
async fn taken(
    docker: &bollard::Docker,
    container: &str,
    limit: u64,
    patience: Duration,
) -> Option<(u64, Option<String>)> {
    let sized = InspectContainerOptions { size: true };
    let inspected = docker.inspect_container(container, Some(sized)).await.ok()?;
    let mut taken = u64::try_from(inspected.size_rw?).ok()?;
    for path in writable_volumes(&inspected) {
        if taken > limit {
            break;
        }
        taken += read(docker, (container, path), limit - taken, patience).await;
    }
    Some((taken, inspected.image))
}

/// How much stands in a volume, up to a little more than `at_most`. The daemon does not tell how large one is: it is read,
/// holes of sparse files too.
async fn read(docker: &bollard::Docker, (container, path): (&str, &str), at_most: u64, patience: Duration) -> u64 {
    let source = Source { docker, container, path, patience };
    archive::size(source, at_most).await.unwrap_or(0)
}

/// As [`read`], of the volume that a meter shows.
async fn metered(
    docker: &bollard::Docker,
    (meter, image): (&Meter, Option<String>),
    at_most: u64,
    patience: Duration,
) -> u64 {
    let size = || archive::size(Source { docker, container: &meter.name, path: meter::PATH, patience }, at_most);
    match size().await {
        Err(TransferError::Missing) if meter.make_again(docker, image).await.is_ok() => size().await.unwrap_or(0),
        size => size.unwrap_or(0),
    }
}

/// Where a container has volumes that it may write to: its image declares them. One with another mount beneath it is left
/// out: what is read of it would be that mount's too, a channel's perhaps.
fn writable_volumes(container: &ContainerInspectResponse) -> impl Iterator<Item = &str> {
    let mounts = || container.mounts.iter().flatten();
    let writable = mounts().filter(|mount| mount.typ.as_deref() == Some("volume") && mount.rw == Some(true));
    writable.filter_map(|mount| mount.destination.as_deref()).filter(move |path| {
        let mut others = mounts().filter_map(|mount| mount.destination.as_deref()).filter(|other| other != path);
        !others.any(|other| Path::new(other).starts_with(path))
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::MountPoint;

    use super::*;

    #[test]
    fn a_volume_above_a_channel_is_left_out() {
        let mount = |destination: &str, rw| MountPoint {
            typ: Some("volume".to_owned()),
            destination: Some(destination.to_owned()),
            rw: Some(rw),
            ..MountPoint::default()
        };
        let mounts = vec![mount("/opt/ml", true), mount("/opt/ml/input/data/train", false), mount("/scratch", true)];
        let container = ContainerInspectResponse { mounts: Some(mounts), ..ContainerInspectResponse::default() };
        assert_eq!(writable_volumes(&container).collect::<Vec<_>>(), ["/scratch"]);
    }
}
