//! Channels as named pipes of a container: the helper that makes them, what becomes of it and of the attempt without it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Instant;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListVolumesOptions};
use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::executor::docker::DockerSettings;
use tunesmith::executor::{AttemptSpec, ChannelSpec, Executor, ExecutorError, Observed, PipeSpec};

use crate::executor::daemon;
use crate::executor::docker::{is_infrastructure, kill_supervisors, taken_up_again, told};
use crate::executor::pipes::streamed;
use crate::support::docker::{Daemon, Harness, SHELL, Streaming, connect, containers, import, make_helper_image};
use crate::support::executor_harness::{ExecutorHarness, PATIENCE, channel, line, lines, over, script};

/// A script whose channel `train` is `megabytes` of one object.
fn reader(scratch: &Path, text: &str, megabytes: usize) -> AttemptSpec {
    let mut spec = script(text);
    spec.channels.push(streamed(scratch, &[("a", &vec![b'x'; megabytes << 20])], PipeSpec::default()));
    spec
}

async fn inspect(h: &Harness, container: &str) -> ContainerInspectResponse {
    h.docker.inspect_container(container, None::<InspectContainerOptions>).await.unwrap()
}

async fn is_running(h: &Harness, container: &str) -> bool {
    inspect(h, container).await.state.unwrap().running == Some(true)
}

/// Removes an attempt, and sees that the daemon has nothing of it any more.
async fn leaves_nothing(h: &Harness, id: AttemptId) {
    h.executor.remove(id).await.unwrap();
    assert_eq!(h.executor.observe(id).await.unwrap(), Observed::Absent);
    assert_eq!(containers(&h.docker, &format!("tunesmith.attempt={id}")).await, Vec::<String>::new());
    let filters = Some(HashMap::from([("name".to_owned(), vec![h.container_name(id)])]));
    let left = h.docker.list_volumes(Some(ListVolumesOptions { filters })).await.unwrap().volumes;
    assert!(left.as_ref().is_none_or(Vec::is_empty), "{left:?}");
}

#[tokio::test]
async fn a_helper_may_do_nothing_but_make_pipes_and_its_container_nothing_to_them() {
    let Streaming(h) = Streaming::start().await;
    // As whichever user, with other channels beside it.
    import(
        &h.docker,
        "tunesmith-test/nobody:1",
        "ENTRYPOINT [\"/bin/sh\", \"-c\", \"eval \\\"$SM_HP_SCRIPT\\\"\", \"job\"]\nUSER 1234:1234",
    )
    .await;
    for image in ["test/sh:1", "tunesmith-test/nobody:1", "test/read-only:1"] {
        let mut spec = script(
            "cd /opt/ml/input/data; rm train_0 2>/dev/null && echo removed; touch new 2>/dev/null && echo made; \
             mv train_0 rows 2>/dev/null && echo moved; echo $(ls); \
             cat train_0 train_1 rows/data.csv; echo m > /opt/ml/model/m; echo ready; \
             until test -e /opt/ml/output/go; do sleep 0.01; done",
        );
        spec.image = image.into();
        spec.network_isolation = true;
        spec.channels.push(channel(h.scratch(), "rows", "rows\n"));
        spec.channels.push(streamed(h.scratch(), &[("a", b"1\n")], PipeSpec::default()));
        h.executor.launch(&spec).await.unwrap();
        line(&h.executor, spec.id, "ready").await;

        let helper = inspect(&h, &h.helper(spec.id, "algo-1").await).await;
        let (config, host) = (helper.config.unwrap(), helper.host_config.unwrap());
        assert_eq!((host.privileged, host.readonly_rootfs), (Some(false), Some(true)));
        assert_eq!((host.network_mode.as_deref(), host.cap_drop), (Some("none"), Some(vec!["ALL".to_owned()])));
        assert_eq!((host.security_opt, host.binds), (Some(vec!["no-new-privileges".to_owned()]), None));
        assert_eq!((host.memory, host.memory_swap, host.pids_limit), (Some(1 << 30), Some(1 << 30), Some(64)));
        let writable: Vec<_> = helper.mounts.unwrap().into_iter().filter(|mount| mount.rw == Some(true)).collect();
        let places: Vec<_> = writable.iter().filter_map(|mount| mount.destination.as_deref()).collect();
        assert_eq!(places, ["/tunesmith/pipes"]);
        assert_eq!(config.labels.unwrap()["tunesmith.executor"], h.executor.id());

        h.tell(spec.id, "go").await;
        assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 }, "{image}");
        assert_eq!(lines(&h.executor, spec.id).await, ["rows train_0", "1", "1", "rows", "ready"], "{image}");
        let model = h.executor.outputs(spec.id).await.unwrap().model;
        assert_eq!(std::fs::read_to_string(model.join("m")).unwrap(), "m\n");
        assert!(!is_running(&h, &h.helper(spec.id, "algo-1").await).await, "it ends with its container");
        leaves_nothing(&h, spec.id).await;
    }
}

#[tokio::test]
async fn an_epoch_goes_on_over_the_end_of_a_server_and_of_a_supervisor() {
    let Streaming(mut h) = Streaming::start().await;
    let text = "exec 3< /opt/ml/input/data/train_0; head -c 1000 <&3 | wc -c; echo half; \
                until test -e /opt/ml/output/go; do sleep 0.01; done; wc -c <&3; exec 3<&-; \
                wc -c < /opt/ml/input/data/train_1";
    let spec = reader(h.scratch(), text, 8);
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "half").await;
    let helper = h.helper(spec.id, "algo-1").await;
    kill_supervisors(&h, spec.id).await;
    taken_up_again(&mut h, spec.id).await;
    h.executor.launch(&spec).await.unwrap();
    h.tell(spec.id, "go").await;
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 });
    let said = lines(&h.executor, spec.id).await;
    // What `head` took into its buffer is lost to others.
    let rest: usize = said[2].parse().unwrap();
    assert!(said[0] == "1000" && rest > (8 << 20) - 70_000 && said[3] == (8 << 20).to_string(), "{said:?}");
    assert_eq!(h.helper(spec.id, "algo-1").await, helper, "the same one");
    leaves_nothing(&h, spec.id).await;
}

#[tokio::test]
async fn an_attempt_without_its_helper_is_an_infrastructure_fault() {
    let Streaming(h) = Streaming::start().await;
    let waiting = "exec 3< /opt/ml/input/data/train_0; echo ready; while true; do sleep 0.01; done";
    let spec = reader(h.scratch(), waiting, 8);
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    h.docker.kill_container(&h.helper(spec.id, "algo-1").await, None).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert!(is_infrastructure(&exit, "the helper that streams the channels was ended"), "{exit:?}");
    leaves_nothing(&h, spec.id).await;

    // A program takes what it has read for all of it, and is quicker than whoever looks.
    let text = "exec 3< /opt/ml/input/data/train_0; echo ready; until test -e /opt/ml/output/go; do sleep 0.01; done; \
                wc -c <&3";
    let gated = reader(h.scratch(), text, 8);
    h.executor.launch(&gated).await.unwrap();
    line(&h.executor, gated.id, "ready").await;
    kill_supervisors(&h, gated.id).await;
    h.docker.kill_container(&h.helper(gated.id, "algo-1").await, None).await.unwrap();
    h.tell(gated.id, "go").await;
    let container = h.container(gated.id).await;
    let until = Instant::now() + PATIENCE;
    while is_running(&h, &container).await {
        assert!(Instant::now() < until);
    }
    assert_eq!(inspect(&h, &container).await.state.unwrap().exit_code, Some(0), "it saw nothing");
    let exit = over(&h.executor, gated.id).await;
    assert!(is_infrastructure(&exit, "the helper that streams the channels was ended"), "{exit:?}");
    leaves_nothing(&h, gated.id).await;
}

#[tokio::test]
async fn a_stop_and_a_removal_end_the_helper() {
    let Streaming(h) = Streaming::start().await;
    let waiting = "trap 'exit 0' TERM; exec 3< /opt/ml/input/data/train_0; echo ready; while true; do sleep 0.01; done";
    let stopped = reader(h.scratch(), waiting, 8);
    h.executor.launch(&stopped).await.unwrap();
    line(&h.executor, stopped.id, "ready").await;
    h.executor.stop(stopped.id).await.unwrap();
    assert_eq!(over(&h.executor, stopped.id).await.cause, ExitCause::Stopped);
    let (helper, until) = (h.helper(stopped.id, "algo-1").await, Instant::now() + PATIENCE);
    while is_running(&h, &helper).await {
        assert!(Instant::now() < until);
    }
    leaves_nothing(&h, stopped.id).await;

    let removed = reader(h.scratch(), waiting, 8);
    h.executor.launch(&removed).await.unwrap();
    line(&h.executor, removed.id, "ready").await;
    leaves_nothing(&h, removed.id).await;

    // An earlier attempt's goes before the next one begins.
    let first = reader(h.scratch(), waiting, 8);
    h.executor.launch(&first).await.unwrap();
    line(&h.executor, first.id, "ready").await;
    let second = AttemptSpec { id: AttemptId { number: 2, ..first.id }, ..reader(h.scratch(), "exit 0", 1) };
    assert!(told(&h, &second).await.is_empty());
    assert_eq!(containers(&h.docker, &format!("tunesmith.attempt={}", first.id)).await, Vec::<String>::new());
    over(&h.executor, first.id).await;
    leaves_nothing(&h, first.id).await;
    leaves_nothing(&h, second.id).await;
}

#[tokio::test]
async fn hosts_share_each_epoch_out_or_have_all_of_it() {
    let Streaming(h) = Streaming::start().await;
    let names: Vec<String> = (0..7).map(|i| format!("{i}")).collect();
    let objects: Vec<(String, Vec<u8>)> = names.iter().map(|i| (i.clone(), format!("{i} ").into_bytes())).collect();
    let objects: Vec<(&str, &[u8])> = objects.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let mut spec = script(
        "cd /opt/ml/input/data; for epoch in 0 1 2; do for c in train all; do \
         echo $SM_CURRENT_HOST $c $epoch: $(cat ${c}_$epoch); done; done",
    );
    spec.hosts = 2;
    let shuffled = PipeSpec { shuffle_seed: Some(7), ..PipeSpec::default() };
    spec.channels.push(ChannelSpec { sharded: true, ..streamed(h.scratch(), &objects, shuffled) });
    spec.channels.push(ChannelSpec { name: "all".into(), ..streamed(h.scratch(), &objects, PipeSpec::default()) });
    let said = told(&h, &spec).await;
    let read = |host: u8, channel: &str, epoch: u8| -> Vec<String> {
        let start = format!("algo-{host} {channel} {epoch}: ");
        let line = said.iter().find_map(|line| line.strip_prefix(&start)).unwrap();
        line.split(' ').map(str::to_owned).collect()
    };
    let mut orders = BTreeSet::new();
    for epoch in 0..3 {
        let (one, two) = (read(1, "train", epoch), read(2, "train", epoch));
        assert_eq!((one.len(), two.len()), (4, 3));
        let both: BTreeSet<&String> = one.iter().chain(&two).collect();
        assert_eq!(both, names.iter().collect(), "{said:?}");
        assert!(read(1, "all", epoch) == names && read(2, "all", epoch) == names, "{said:?}");
        orders.insert(one);
    }
    assert_eq!(orders.len(), 3, "shared out anew in each epoch");
    leaves_nothing(&h, spec.id).await;
}

/// An attempt whose daemon is restarted in the middle of its first epoch; what became of it.
async fn over_a_restart(live_restore: bool) -> (Exit, Vec<String>) {
    let mut daemon = Daemon::start(live_restore).await;
    let helper = make_helper_image(&connect(&daemon.address()).await).await;
    let set = |settings: &mut DockerSettings| {
        (settings.network, settings.helper_image) = ("none".into(), Some(helper));
    };
    let h = Harness::at(daemon.address(), set).await;
    let text = "exec 3< /opt/ml/input/data/train_0; head -c 1000 <&3 | wc -c; echo half; \
                until test -e /opt/ml/output/go; do sleep 0.01; done; cat <&3 > /dev/null; exec 3<&-; \
                wc -c < /opt/ml/input/data/train_1";
    let spec = reader(h.scratch(), text, 8);
    let (exit, said) = daemon::restarted_after(&mut daemon, &h, &spec, "half", live_restore).await;
    leaves_nothing(&h, spec.id).await;
    drop(h);
    (exit, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_restarted_ends_the_pipes_too_or_nothing() {
    let (exit, _) = over_a_restart(false).await;
    assert!(is_infrastructure(&exit, "ended"), "{exit:?}");
    let (exit, said) = over_a_restart(true).await;
    assert_eq!((exit.cause, said[2].as_str()), (ExitCause::Exited { code: 0 }, "8388608"));
}

#[tokio::test]
async fn without_an_image_for_helpers_nothing_is_streamed() {
    let h = Harness::start().await;
    let spec = reader(h.scratch(), "exit 0", 1);
    let refused = h.executor.launch(&spec).await.unwrap_err();
    let named = matches!(&refused, ExecutorError::Client(text) if text.contains("channel train"));
    assert!(named && refused.to_string().contains("docker.helper_image"), "{refused}");

    // One that is not there is the owner's fault, not the job's.
    let h = Harness::with(|settings| settings.helper_image = Some("tunesmith-test/none:1".into())).await;
    let spec = reader(h.scratch(), "exit 0", 1);
    let failed = h.executor.launch(&spec).await.unwrap_err();
    let named = matches!(&failed, ExecutorError::Infrastructure { doing, .. } if doing.contains("docker.helper_image"));
    assert!(named, "{failed}");
    leaves_nothing(&h, spec.id).await;

    // And one that is something else.
    let h = Harness::with(|settings| settings.helper_image = Some(SHELL.into())).await;
    let spec = reader(h.scratch(), "echo started", 1);
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert!(is_infrastructure(&exit, "is docker.helper_image Tunesmith's own image, of this version?"), "{exit:?}");
    assert!(lines(&h.executor, spec.id).await.is_empty(), "it was not started");
    leaves_nothing(&h, spec.id).await;
}
