//! Attempts on several hosts: what they know of each other, whom else they reach, and that they have one start and one end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{InspectContainerOptions, ListNetworksOptions, RemoveContainerOptions};
use serde_json::{Value, json};
use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::executor::{AttemptSpec, ChannelSpec, Executor, ExecutorError, Observed, Stream};

use crate::executor::docker::{inspect, is_infrastructure, kill_supervisors, taken_up_again, told};
use crate::support::docker::{Daemon, Harness, containers, import};
use crate::support::executor_harness::{ExecutorHarness, PATIENCE, channel, line, lines, log, over, script};

/// An attempt on so many hosts: `each` on all of them, then what each has of its own.
fn on_hosts(each: &str, own: &[&str]) -> AttemptSpec {
    let cases: Vec<String> = own.iter().zip(1..).map(|(text, host)| format!("algo-{host}) {text};;")).collect();
    AttemptSpec {
        hosts: own.len(),
        network_isolation: true,
        ..script(&format!("{each}\ncase $SM_CURRENT_HOST in {} esac", cases.join(" ")))
    }
}

/// A word to another host, once that listens; and how to hear one. Who hears has an input that does not end: `nc` would
/// end with it.
const SAY: &str = "say() { until (echo $3 | nc -w 5 $1 $2) >/dev/null 2>&1; do sleep 0.05; done; }; \
                   mkfifo /tmp/open; exec 3<>/tmp/open; hear() { nc -l -p $1 <&3; };";

/// How a host says that it answers, or why not.
const TRY: &str = "try() { echo \"$1 $(timeout 3 nc -w 2 $2 $3 </dev/null 2>&1 | tr '\\n' ' ')\"; };";

const FOREVER: &str = "while true; do sleep 0.01; done";

async fn networks(h: &Harness, id: AttemptId) -> usize {
    let filters = Some(BTreeMap::from([("label", vec![format!("tunesmith.attempt={id}")])]));
    let filters = filters.map(|all| all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    h.docker.list_networks(Some(ListNetworksOptions { filters })).await.unwrap().len()
}

/// Removes an attempt; nothing of it is left with the daemon.
async fn leaves_nothing(h: &Harness, id: AttemptId) {
    h.executor.remove(id).await.unwrap();
    assert_eq!(containers(&h.docker, &format!("tunesmith.attempt={id}")).await, Vec::<String>::new());
    assert_eq!(networks(h, id).await, 0);
    let volumes = h.docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>).await.unwrap();
    let own = h.container_name(id);
    assert!(volumes.volumes.unwrap_or_default().iter().all(|volume| !volume.name.starts_with(&own)));
    assert!(!h.executor.list().await.unwrap().contains(&id));
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test]
async fn hosts_know_each_other_by_name() {
    let h = Harness::start().await;
    for isolated in [true, false] {
        let mut spec = on_hosts(
            &format!("{SAY} hostname; echo \"$SM_HOSTS $SM_CURRENT_HOST $SM_NETWORK_INTERFACE_NAME\""),
            &[
                "hear 5000; say algo-3 5000 'word for algo-3'",
                "say algo-1 5000 'word for algo-1'",
                "cat /opt/ml/input/config/resourceconfig.json; echo; ls /sys/class/net; hear 5000",
            ],
        );
        spec.network_isolation = isolated;
        let said = sorted(told(&h, &spec).await);
        let all = json!(["algo-1", "algo-2", "algo-3"]);
        let config = said.iter().find(|line| line.starts_with('{')).unwrap();
        let expected = json!({
            "current_host": "algo-3", "hosts": all, "network_interface_name": "eth0",
            "current_instance_type": "ml.m5.large", "current_group_name": "homogeneousCluster",
            "instance_groups": [
                {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": all}
            ],
        });
        assert_eq!(serde_json::from_str::<Value>(config).unwrap(), expected);
        let others: Vec<&str> = said.iter().map(String::as_str).filter(|line| !line.starts_with('{')).collect();
        let own = |host: u8| format!("{all} algo-{host} eth0");
        let (one, two, three) = (own(1), own(2), own(3));
        let words = ["algo-1", "algo-2", "algo-3", "eth0", "lo", "word for algo-1", "word for algo-3"];
        assert_eq!(others, [[&one, &two, &three].map(String::as_str).as_slice(), &words].concat());
        leaves_nothing(&h, spec.id).await;
    }
}

#[tokio::test]
async fn isolated_hosts_reach_nobody_else() {
    let h = Harness::start().await;
    let neighbour = script("echo ready; while true; do nc -l -p 5000 </dev/null; done");
    h.executor.launch(&neighbour).await.unwrap();
    line(&h.executor, neighbour.id, "ready").await;
    let networks = inspect(&h, neighbour.id).await.network_settings.unwrap().networks.unwrap();
    let address = networks["bridge"].ip_address.clone().unwrap();
    // The machine's own address in the network: the first.
    let machine = "$(ip route | sed -n 's|^\\([0-9.]*\\)\\.0/[0-9]* dev eth0.*|\\1.1|p')";
    let script_of = |isolated, hosts: &[&str]| {
        let mut spec = on_hosts(TRY, hosts);
        spec.environment = BTreeMap::from([("NEIGHBOUR".into(), address.clone())]);
        spec.network_isolation = isolated;
        spec
    };
    let tries = format!("try machine {machine} 9; try neighbour $NEIGHBOUR 5000");
    let said = told(&h, &script_of(true, &[&tries, ":"])).await;
    let of = |what: &str, said: &[String]| said.iter().find(|line| line.starts_with(what)).unwrap().clone();
    for what in ["machine", "neighbour"] {
        let answer = of(what, &said);
        assert!(!answer.contains("refused") && answer.len() > what.len() + 1, "it answers: {said:?}");
    }
    // The same tries do reach them where they may: with a way out the machine answers, and one host on the daemon's own
    // network has a neighbour.
    let said = told(&h, &script_of(false, &[&tries, ":"])).await;
    assert!(of("machine", &said).contains("refused"), "{said:?}");
    let said = told(&h, &script_of(false, &[&tries])).await;
    assert_eq!(of("neighbour", &said), "neighbour ", "{said:?}");
}

#[tokio::test]
async fn the_owners_network_is_kept_to() {
    let h = Harness::with(|settings| settings.network = "some-network".into()).await;
    let spec = AttemptSpec { network_isolation: false, ..on_hosts("", &[":", ":"]) };
    let refused = h.executor.launch(&spec).await.unwrap_err();
    assert!(matches!(&refused, ExecutorError::Client(text) if text.contains("some-network")), "{refused}");
    leaves_nothing(&h, spec.id).await;
    assert!(told(&h, &on_hosts("", &["echo isolated", ":"])).await.contains(&"isolated".to_owned()));
}

#[tokio::test]
async fn the_first_host_that_fails_decides_and_ends_the_others() {
    let h = Harness::start().await;
    let mut spec = on_hosts(
        SAY,
        &[
            &format!("trap 'echo told; echo late >&2; exit 4' TERM; say algo-2 5000 ready; {FOREVER}"),
            "hear 5000; echo why > /opt/ml/output/failure; echo it broke >&2; exit 3",
            &format!("trap 'echo deaf' TERM; {FOREVER}"),
        ],
    );
    spec.stop_grace_ms = 1_000;
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert_eq!(exit.cause, ExitCause::Exited { code: 3 }, "{exit:?}");
    assert_eq!((exit.failure.as_deref(), exit.stderr_tail.as_str()), (Some("why\n"), "it broke"));
    let said = lines(&h.executor, spec.id).await;
    assert!(said.contains(&"told".to_owned()) && said.contains(&"deaf".to_owned()), "{said:?}");
    let records = log(&h.executor, spec.id, 0).await;
    let remark = records.iter().find(|record| record.stream == Stream::Service).unwrap();
    assert!(String::from_utf8_lossy(&remark.line).starts_with("algo-2: it has failed"), "{remark:?}");
    for host in ["algo-1", "algo-2", "algo-3"] {
        assert!(!is_running(&h, spec.id, host).await, "{host}");
    }
    leaves_nothing(&h, spec.id).await;
}

async fn is_running(h: &Harness, id: AttemptId, host: &str) -> bool {
    let container = h.host(id, host).await;
    let inspected = h.docker.inspect_container(&container, None::<InspectContainerOptions>).await.unwrap();
    inspected.state.unwrap().running == Some(true)
}

#[tokio::test]
async fn a_success_takes_all_hosts() {
    let h = Harness::start().await;
    let spec = on_hosts(
        "put() { mkdir -p $SM_MODEL_DIR/all; echo $SM_CURRENT_HOST | tee $SM_MODEL_DIR/all/one > $SM_MODEL_DIR/$1; };",
        &["put first; echo first over", "put second; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done"],
    );
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "first over").await;
    let until = Instant::now() + PATIENCE;
    while is_running(&h, spec.id, "algo-1").await {
        assert!(Instant::now() < until);
    }
    assert!(matches!(h.executor.observe(spec.id).await.unwrap(), Observed::Running { started_at: Some(_) }));
    h.tell_container(&h.host(spec.id, "algo-2").await, "go").await;
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 });
    let model = h.executor.outputs(spec.id).await.unwrap().model;
    let read = |name: &str| std::fs::read_to_string(model.join(name)).unwrap();
    assert_eq!((read("first"), read("second")), ("algo-1\n".to_owned(), "algo-2\n".to_owned()));
    assert_eq!(read("all/one"), "algo-1\n", "the first host's counts");
}

#[tokio::test]
async fn a_host_that_is_lost_takes_the_others_with_it() {
    let h = Harness::start().await;
    for (lost, other) in [("algo-2", "algo-1"), ("algo-1", "algo-2")] {
        let spec = on_hosts("", &[&format!("echo up; {FOREVER}"), &format!("echo up; {FOREVER}")]);
        h.executor.launch(&spec).await.unwrap();
        line(&h.executor, spec.id, "up").await;
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        h.docker.remove_container(&h.host(spec.id, lost).await, Some(options)).await.unwrap();
        let exit = over(&h.executor, spec.id).await;
        assert!(is_infrastructure(&exit, &format!("{lost}: the container is gone")), "{exit:?}");
        assert!(!is_running(&h, spec.id, other).await, "the other one is ended");
        leaves_nothing(&h, spec.id).await;
    }
}

#[tokio::test]
async fn a_stop_and_the_deadline_are_every_hosts() {
    let h = Harness::start().await;
    let waiting = format!("trap 'echo told $SM_CURRENT_HOST; exit 0' TERM; echo up $SM_CURRENT_HOST; {FOREVER}");
    let stopped = on_hosts(&waiting, &[":", ":"]);
    let mut late = on_hosts(&waiting, &[":", ":"]);
    late.max_runtime_ms = 1_500;
    for (spec, cause) in [(&stopped, ExitCause::Stopped), (&late, ExitCause::Deadline)] {
        h.executor.launch(spec).await.unwrap();
        line(&h.executor, spec.id, "up algo-1").await;
        line(&h.executor, spec.id, "up algo-2").await;
        if cause == ExitCause::Stopped {
            h.executor.stop(spec.id).await.unwrap();
        }
        assert_eq!(over(&h.executor, spec.id).await.cause, cause);
        let said = sorted(lines(&h.executor, spec.id).await);
        assert_eq!(said, ["told algo-1", "told algo-2", "up algo-1", "up algo-2"]);
    }
}

#[tokio::test]
async fn what_cannot_start_starts_nowhere() {
    let h = Harness::start().await;
    import(&h.docker, "tunesmith-test/broken:1", r#"ENTRYPOINT ["/no/such/program"]"#).await;
    let spec = AttemptSpec { image: "tunesmith-test/broken:1".into(), ..on_hosts("", &[":", ":"]) };
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    let started = matches!(&exit.cause, ExitCause::StartFailed { message } if message.contains("/no/such/program"));
    assert!(started || matches!(exit.cause, ExitCause::Exited { code: 126 | 127 }), "{exit:?}");
    leaves_nothing(&h, spec.id).await;
}

#[tokio::test]
async fn hosts_without_a_supervisor_get_another_and_no_line_is_lost_or_repeated() {
    let mut h = Harness::start().await;
    let counting = "i=0; until test -e $SM_OUTPUT_DIR/go; do i=$((i+1)); echo $SM_CURRENT_HOST $i; \
                    printf \"half \"; echo \"whole $i $SM_CURRENT_HOST\"; done; echo last $SM_CURRENT_HOST $i";
    let spec = on_hosts(counting, &[":", ":"]);
    h.executor.launch(&spec).await.unwrap();
    for round in [50, 500] {
        line(&h.executor, spec.id, &format!("algo-1 {round}")).await;
        line(&h.executor, spec.id, &format!("algo-2 {round}")).await;
        kill_supervisors(&h, spec.id).await;
        taken_up_again(&mut h, spec.id).await;
        h.executor.launch(&spec).await.unwrap();
    }
    for host in ["algo-1", "algo-2"] {
        h.tell_container(&h.host(spec.id, host).await, "go").await;
    }
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 });
    let said = lines(&h.executor, spec.id).await;
    for host in ["algo-1", "algo-2"] {
        let own: Vec<&str> = said.iter().map(String::as_str).filter(|line| line.contains(host)).collect();
        let rounds = (own.len() - 1) / 2;
        let round = |i| [format!("{host} {i}"), format!("half whole {i} {host}")];
        let expected: Vec<String> = (1..=rounds).flat_map(round).chain([format!("last {host} {rounds}")]).collect();
        assert_eq!(own, expected);
    }
    assert!(said.iter().all(|line| line.contains("algo-")), "no line is made of two hosts'");
}

#[tokio::test]
async fn a_decision_outlasts_its_supervisor() {
    let mut h = Harness::start().await;
    let mut spec =
        on_hosts(SAY, &[&format!("trap 'echo told' TERM; say algo-2 5000 ready; {FOREVER}"), "hear 5000; exit 3"]);
    spec.stop_grace_ms = 2_000;
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "told").await;
    kill_supervisors(&h, spec.id).await;
    h.restart().await;
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 3 });
    leaves_nothing(&h, spec.id).await;
}

#[tokio::test]
async fn each_host_has_its_share_of_a_sharded_channel() {
    let h = Harness::start().await;
    let source = h.scratch().join("sharded");
    let keys: Vec<String> = (0..7).map(|nth| format!("part-{nth}/rows-{nth}.csv")).collect();
    for key in &keys {
        let path = source.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, key).unwrap();
    }
    let config = BTreeMap::from([("S3DistributionType".into(), "ShardedByS3Key".into())]);
    let list = "for c in train all few; do (cd /opt/ml/input/data/$c; find . -type f | \
                sed \"s|^\\./|$c $SM_CURRENT_HOST |\"); done";
    let mut spec = on_hosts(list, &[":", ":", ":"]);
    spec.channels.push(ChannelSpec { name: "train".into(), source, sharded: true, config, pipe: None });
    spec.channels.push(channel(h.scratch(), "all", "rows\n"));
    spec.channels.push(ChannelSpec { sharded: true, ..channel(h.scratch(), "few", "rows\n") });
    let said = told(&h, &spec).await;
    let of = |name: &str, host: usize| -> BTreeSet<String> {
        let start = format!("{name} algo-{} ", host + 1);
        said.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    };
    for host in 0..3 {
        let expected = keys.iter().skip(host).step_by(3).cloned().collect();
        assert_eq!(of("train", host), expected, "{said:?}");
        assert_eq!(of("all", host).len(), 1, "{said:?}");
    }
    assert_eq!((of("few", 0).len(), of("few", 1).len(), of("few", 2).len()), (1, 0, 0), "{said:?}");
    // One host gets all of a sharded channel.
    let mut one = on_hosts("ls /opt/ml/input/data/train | wc -l", &[":"]);
    one.channels.push(spec.channels[0].clone());
    assert_eq!(told(&h, &one).await, ["7"]);
}

#[tokio::test]
async fn networks_and_volumes_without_a_folder_are_removed() {
    let h = Harness::start().await;
    let strays = [(); 2].map(|()| AttemptId { training_job: uuid::Uuid::new_v4(), number: 1 });
    let labels = [("tunesmith.executor", h.executor.id().to_owned()), ("tunesmith.attempt", strays[0].to_string())];
    let labels = Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    let request = NetworkCreateRequest { name: h.container_name(strays[0]), labels, ..NetworkCreateRequest::default() };
    h.docker.create_network(request).await.unwrap();
    // A daemon may make a container's volumes without the labels that were asked for.
    let name = Some(format!("{}-algo-2-pipes", h.container_name(strays[1])));
    h.docker.create_volume(VolumeCreateRequest { name, ..Default::default() }).await.unwrap();
    for stray in strays {
        assert!(h.executor.list().await.unwrap().contains(&stray));
        leaves_nothing(&h, stray).await;
    }
}

/// An attempt over a restart of its daemon; what became of it.
async fn over_a_restart(live_restore: bool) -> Exit {
    let mut daemon = Daemon::start(live_restore).await;
    let h = Harness::at(daemon.address(), |settings| settings.network = "none".into()).await;
    let spec = on_hosts(
        "trap 'exit 0' TERM; echo up $SM_CURRENT_HOST; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done",
        &[":", ":"],
    );
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "up algo-1").await;
    line(&h.executor, spec.id, "up algo-2").await;
    daemon.stop();
    daemon.start_again().await;
    if live_restore {
        for host in ["algo-1", "algo-2"] {
            h.tell_container(&h.host(spec.id, host).await, "go").await;
        }
    }
    let exit = over(&h.executor, spec.id).await;
    leaves_nothing(&h, spec.id).await;
    drop(h);
    exit
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_restarted_ends_all_hosts_or_none() {
    let exit = over_a_restart(false).await;
    assert!(is_infrastructure(&exit, "the Docker daemon was restarted"), "{exit:?}");
    assert_eq!(over_a_restart(true).await.cause, ExitCause::Exited { code: 0 });
}
