//! The volume behind `/opt/ml`, where a container's root is read-only, seen by itself: how much stands in it.
//!
//! Invariant: a meter is a container that is never started, bears its attempt's labels, and has that volume alone, read-only.
//! Seen through the training container there would be the channels beneath it, too. Reading it is left to the attempt's
//! supervisor.

use bollard::models::{ContainerCreateBody, HostConfig};

use super::{launch, volumes};
use crate::executor::AttemptSpec;

/// Where a meter has the volume.
pub(super) const PATH: &str = "/tunesmith-ml";

/// The name of the meter of a container.
pub(super) fn name(container: &str) -> String {
    format!("{container}-meter")
}

/// The meter of a container; `image` is one that the daemon has, whichever: nothing of it runs.
pub(super) fn body(executor: &str, spec: &AttemptSpec, image: &str, container: &str) -> ContainerCreateBody {
    let labels = launch::labels(executor, spec);
    let mount = volumes::bare_mount(&volumes::own_name(container), PATH, labels.clone(), true);
    ContainerCreateBody {
        image: Some(image.to_owned()),
        // There has to be something.
        entrypoint: Some(vec!["none".to_owned()]),
        labels: Some(labels),
        network_disabled: Some(true),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}
