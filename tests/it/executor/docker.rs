//! What is particular to containers: what they cannot do, what they are given, and what becomes of them when a supervisor,
//! the daemon or somebody else interferes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions, RemoveVolumeOptions,
};
use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::executor::docker::{InstanceLimits, Pull};
use tunesmith::executor::{AttemptSpec, ChannelSpec, CheckpointSpec, Executor, ExecutorError, Observed, Stream};

use crate::support::docker::{Harness, SHELL, containers, import};
use crate::support::executor_harness::{ExecutorHarness, PATIENCE, channel, line, lines, log, over, script};

/// Runs a script that must succeed; what it said.
pub(super) async fn told(h: &Harness, spec: &AttemptSpec) -> Vec<String> {
    h.executor.launch(spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    let said = lines(&h.executor, spec.id).await;
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 }, "{exit:?} {said:?}");
    said
}

pub(super) async fn inspect(h: &Harness, id: AttemptId) -> ContainerInspectResponse {
    h.docker.inspect_container(&h.container(id).await, None::<InspectContainerOptions>).await.unwrap()
}

/// The processes that look after an attempt.
pub(super) fn supervisors(h: &Harness, id: AttemptId) -> Vec<nix::unistd::Pid> {
    let wanted = format!("supervise-container\0{}\0", h.folder(id).display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&wanted)
    };
    pids.filter(is_it).map(nix::unistd::Pid::from_raw).collect()
}

/// Ends whoever looks after an attempt, and waits until nobody does.
pub(super) async fn kill_supervisors(h: &Harness, id: AttemptId) {
    let found = supervisors(h, id);
    assert!(!found.is_empty(), "nobody looks after it");
    for pid in found {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while !supervisors(h, id).is_empty() {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
}

/// Restarts the server, and waits until it has another supervisor look after an attempt that lost its own.
pub(super) async fn taken_up_again(h: &mut Harness, id: AttemptId) {
    h.restart().await;
    // The lock is free a moment after its holder can be seen no more.
    let until = Instant::now() + PATIENCE;
    while supervisors(h, id).is_empty() {
        let observed = h.executor.observe(id).await.unwrap();
        assert!(matches!(observed, Observed::Running { started_at: Some(_) }), "{observed:?}");
        assert!(Instant::now() < until);
    }
}

pub(super) fn is_infrastructure(exit: &Exit, says: &str) -> bool {
    matches!(&exit.cause, ExitCause::Infrastructure { message } if message.contains(says))
}

#[tokio::test]
async fn a_container_can_do_nothing_to_its_machine() {
    let h = Harness::start().await;
    let mut spec = script(
        "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'; \
         mount -t tmpfs none /mnt 2>/dev/null && echo mounted; unshare -m true 2>/dev/null && echo unshared; \
         unshare -U true 2>/dev/null && echo namespace; chroot / true 2>/dev/null && echo chrooted; \
         mknod /tmp/sda b 8 0 2>/dev/null && echo device; ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1 && echo raw; \
         nice -n -5 true 2>/dev/null | grep -q . && echo nice; hostname other 2>/dev/null && echo renamed; \
         ls /var/run/docker.sock /run/docker.sock 2>/dev/null; echo 1 2>/dev/null > /proc/sys/kernel/panic && echo sysctl; \
         echo x 2>/dev/null > /opt/ml/input/data/train/new && echo wrote; hostname; ls /proc | grep -c '^[0-9]'; cat /opt/ml/input/data/train/data.csv",
    );
    spec.channels.push(channel(h.scratch(), "train", "rows\n"));
    let said = told(&h, &spec).await;
    let none = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:0000000000000000"));
    assert_eq!(said[..5], none);
    assert_eq!(said[5..7], ["NoNewPrivs:1", "algo-1"], "{said:?}");
    assert!(said[7].parse::<u32>().unwrap() < 10, "only its own processes: {said:?}");
    assert_eq!(said[8..], ["rows"]);

    let host = inspect(&h, spec.id).await.host_config.unwrap();
    assert_eq!((host.privileged, host.init), (Some(false), Some(true)));
    assert_eq!(host.memory, host.memory_swap, "no swap on top");
    assert_eq!(host.memory, Some(8 << 30), "an ml.m5.large");
    assert_eq!((host.oom_score_adj, host.cpu_shares), (Some(1000), Some(128)), "before anything else of its machine");
    assert!(host.nano_cpus.is_some_and(|cpus| cpus <= 2_000_000_000), "{:?}", host.nano_cpus);
    assert_eq!((host.pids_limit, host.binds), (Some(64), None));
    for mode in [host.pid_mode, host.uts_mode, host.userns_mode] {
        assert!(mode.as_deref().unwrap_or_default().is_empty(), "{mode:?}");
    }
    assert_eq!(host.ipc_mode.as_deref(), Some("private"));
}

#[tokio::test]
async fn isolation_leaves_no_network() {
    let h = Harness::start().await;
    let mut spec = script("ls /sys/class/net; echo $SM_NETWORK_INTERFACE_NAME");
    assert!(told(&h, &spec).await.contains(&"eth0".to_owned()));
    spec = script("grep -w algo-1 /etc/hosts | tr '\\t' ' '; ls /sys/class/net; echo $SM_NETWORK_INTERFACE_NAME");
    spec.network_isolation = true;
    let said = told(&h, &spec).await;
    assert_eq!(said[0], "127.0.0.1 algo-1", "it knows itself: {said:?}");
    assert!(!said.contains(&"eth0".to_owned()) && said.last().unwrap() == "lo", "{said:?}");
}

#[tokio::test]
async fn a_fork_bomb_and_a_deaf_program_are_contained() {
    let h = Harness::start().await;
    // A child that ends interrupts what waits for the pipe: it waits again, without a process of its own.
    let mut bomb = script(
        "trap '' TERM; mkfifo /tmp/never; exec 3<>/tmp/never; bomb() { bomb | bomb & }; echo ready; (bomb) & \
         while true; do read x <&3; done",
    );
    (bomb.max_runtime_ms, bomb.stop_grace_ms) = (2_000, 200);
    h.executor.launch(&bomb).await.unwrap();
    line(&h.executor, bomb.id, "ready").await;
    assert_eq!(told(&h, &script("echo as ever")).await, ["as ever"]);
    assert_eq!(over(&h.executor, bomb.id).await.cause, ExitCause::Deadline);
}

#[tokio::test]
async fn a_flood_is_cut_off_with_a_mark_and_the_end_is_told() {
    let h = Harness::with(|settings| {
        settings.max_log_bytes = 1 << 20;
        settings.segment_bytes = 256 << 10;
    })
    .await;
    let spec = script("yes 0123456789 | head -c 20000000; echo the end >&2; exit 3");
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert_eq!((exit.cause, exit.stderr_tail.as_str()), (ExitCause::Exited { code: 3 }, "the end"));
    let records = log(&h.executor, spec.id, 0).await;
    let (mark, output) = records.split_last().unwrap();
    assert!(mark.stream == Stream::Service && mark.line.starts_with(b"log truncated"));
    assert!(output.iter().all(|record| record.line == b"0123456789"), "only whole lines");
}

#[tokio::test]
async fn too_much_disk_ends_it_with_the_reason() {
    let h = Harness::start().await;
    for image in ["test/sh:1", "test/read-only:1"] {
        let mut spec =
            script("head -c 60000000 /dev/zero > /opt/ml/model/big; echo written; while true; do sleep 0.1; done");
        (spec.image, spec.volume_bytes) = (image.into(), Some(16 << 20));
        // What others have filled is not the program's.
        spec.channels.push(channel(h.scratch(), "train", &"x".repeat(20 << 20)));
        h.executor.launch(&spec).await.unwrap();
        let exit = over(&h.executor, spec.id).await;
        let says = "more than 16777216 bytes of disk: ask for a larger VolumeSizeInGB";
        assert!(matches!(&exit.cause, ExitCause::OverLimit { message } if message.contains(says)), "{exit:?}");
        let mut small = AttemptSpec { id: script("").id, ..spec.clone() };
        small.hyperparameters = script("sleep 2.5; echo kept").hyperparameters;
        assert_eq!(told(&h, &small).await, ["kept"], "{image}");
        h.executor.remove(spec.id).await.unwrap();
        assert!(containers(&h.docker, &format!("tunesmith.attempt={}", spec.id)).await.is_empty());
    }
}

#[tokio::test]
async fn whoever_prunes_containers_hides_no_full_disk() {
    let h = Harness::start().await;
    let mut spec = script(
        "echo ready; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done; head -c 60000000 /dev/zero > /opt/ml/model/big; \
         while true; do sleep 0.1; done",
    );
    (spec.image, spec.volume_bytes) = ("test/read-only:1".into(), Some(16 << 20));
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    h.docker.remove_container(&format!("{}-meter", h.container_name(spec.id)), None).await.unwrap();
    h.tell(spec.id, "go").await;
    let exit = over(&h.executor, spec.id).await;
    assert!(matches!(&exit.cause, ExitCause::OverLimit { .. }), "{exit:?}");
    h.executor.remove(spec.id).await.unwrap();
    assert!(containers(&h.docker, &format!("tunesmith.attempt={}", spec.id)).await.is_empty());
}

#[tokio::test]
async fn too_much_memory_ends_it_with_the_reason() {
    let h = Harness::with(|settings| settings.reserve_memory = u64::MAX).await;
    let spec = script("x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo kept ${#x}");
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert!(
        matches!(&exit.cause, ExitCause::OverLimit { message } if message.contains("memory than the 64 MiB")),
        "{exit:?}"
    );
}

#[tokio::test]
async fn what_is_too_large_to_store_is_the_jobs_fault() {
    let h = Harness::with(|settings| settings.max_output = (1 << 20, 10)).await;
    for (script_text, why) in [
        ("head -c 2000000 /dev/zero > $SM_MODEL_DIR/big", "larger than 1048576 bytes"),
        ("for i in $(seq 20); do touch $SM_MODEL_DIR/$i; done", "more than 10 files"),
    ] {
        let spec = script(script_text);
        told(&h, &spec).await;
        let refused = h.executor.outputs(spec.id).await.unwrap_err();
        assert!(matches!(&refused, ExecutorError::Client(text) if text.contains(why)), "{refused}");
    }
}

#[tokio::test]
async fn a_read_only_root_leaves_its_folders_and_tmp() {
    let h = Harness::start().await;
    let mut spec = script(
        "echo x 2>/dev/null > /bin/new && echo wrote; echo x > /tmp/x && echo m > $SM_MODEL_DIR/m && cat /tmp/x; \
         cat $SM_CHANNEL_TRAIN/data.csv; echo c > /opt/ml/checkpoints/c",
    );
    spec.image = "test/read-only:1".into();
    spec.channels.push(channel(h.scratch(), "train", "rows\n"));
    let kept = h.scratch().join("kept");
    std::fs::create_dir(&kept).unwrap();
    spec.checkpoints = Some(CheckpointSpec { source: kept.clone(), target: "/opt/ml/checkpoints".into() });
    assert_eq!(told(&h, &spec).await, ["x", "rows"]);
    let outputs = h.executor.outputs(spec.id).await.unwrap();
    assert_eq!(std::fs::read_to_string(outputs.model.join("m")).unwrap(), "m\n");
    assert_eq!(std::fs::read_to_string(kept.join("c")).unwrap(), "c\n");
    let volume = format!("{}-ml", h.container_name(spec.id));
    h.docker.inspect_volume(&volume).await.unwrap();
    h.executor.remove(spec.id).await.unwrap();
    assert!(h.docker.inspect_volume(&volume).await.is_err());
}

#[tokio::test]
async fn a_channel_is_filled_once_and_anew_when_it_changes() {
    let h = Harness::start().await;
    let shared = channel(h.scratch(), "train", "rows\n");
    std::fs::create_dir(shared.source.join("deep")).unwrap();
    std::fs::write(shared.source.join("deep/more.csv"), "deep\n").unwrap();
    let run = async || {
        let mut spec = script("cd /opt/ml/input/data/train; cat data.csv deep/more.csv");
        spec.channels.push(shared.clone());
        let said = told(&h, &spec).await;
        let mounts = inspect(&h, spec.id).await.mounts.unwrap();
        assert!(mounts.iter().all(|mount| mount.rw == Some(false)), "{mounts:?}");
        (said, mounts[0].name.clone().unwrap())
    };
    let ((said, first), (_, second)) = tokio::join!(run(), run());
    assert_eq!((said, &first), (vec!["rows".to_owned(), "deep".to_owned()], &second));
    std::fs::write(shared.source.join("data.csv"), "other rows\n").unwrap();
    let (said, third) = run().await;
    assert_eq!((said[0].as_str(), third == first), ("other rows", false));

    let mut one = script("cat /opt/ml/input/data/one/data.csv");
    let mut single = channel(h.scratch(), "one", "a single file\n");
    single.source.push("data.csv");
    one.channels.push(single);
    assert_eq!(told(&h, &one).await, ["a single file"]);

    for id in h.executor.list().await.unwrap() {
        h.executor.remove(id).await.unwrap();
    }
    h.executor.remove_channels().await.unwrap();
    assert!(h.docker.inspect_volume(&first).await.is_err(), "nobody uses it");
    assert_eq!(run().await.0[0], "other rows", "filled again");
}

#[tokio::test]
async fn attempts_that_come_at_once_wait_for_no_channel_of_each_other() {
    let h = Harness::start().await;
    let (one, two) = (channel(h.scratch(), "one", "1\n"), channel(h.scratch(), "two", "2\n"));
    let named = |name: &str, channel: &ChannelSpec| ChannelSpec { name: name.into(), ..channel.clone() };
    let run = async |order: [&ChannelSpec; 4]| {
        let mut spec = script("cd /opt/ml/input/data; cat a/data.csv b/data.csv c/data.csv d/data.csv | tr -d '\\n'");
        spec.channels.extend(["a", "b", "c", "d"].iter().zip(order).map(|(name, channel)| named(name, channel)));
        told(&h, &spec).await
    };
    let (there, back) = ([&one, &one, &two, &one], [&two, &one, &two, &two]);
    run(there).await;
    // Somebody removes the volumes: all find out at once.
    for id in h.executor.list().await.unwrap() {
        h.executor.remove(id).await.unwrap();
    }
    for volume in std::fs::read_dir(h.settings.data_dir.join("docker/volumes")).unwrap() {
        let name = volume.unwrap().file_name().into_string().unwrap();
        h.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
    }
    let all = async { tokio::join!(run(there), run(back), run(there), run(back)) };
    let all = tokio::time::timeout(PATIENCE, all).await.expect("nobody waits for ever");
    assert_eq!(
        all,
        (vec!["1121".to_owned()], vec!["2122".to_owned()], vec!["1121".to_owned()], vec!["2122".to_owned()])
    );
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let h = Harness::start().await;
    import(&h.docker, "tunesmith-test/broken:1", r#"ENTRYPOINT ["/no/such/program"]"#).await;
    let mut spec = script("");
    spec.image = "tunesmith-test/broken:1".into();
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    let started = matches!(&exit.cause, ExitCause::StartFailed { message } if message.contains("/no/such/program"));
    // A daemon's own first process may start, and then find no program.
    assert!(started || matches!(exit.cause, ExitCause::Exited { code: 126 | 127 }), "{exit:?}");

    let mut missing = script("");
    missing.image = "tunesmith-test/missing:1".into();
    let refused = h.executor.launch(&missing).await.unwrap_err();
    assert!(matches!(&refused, ExecutorError::Client(text) if text.contains("pulls none")), "{refused}");

    let mut small = Harness::with(|settings| settings.instance_limits = InstanceLimits::Enforce).await;
    let mut large = script("");
    large.instance_type = Some("ml.m8i.96xlarge".into());
    let refused = small.executor.launch(&large).await.unwrap_err();
    assert!(
        matches!(&refused, ExecutorError::Client(text) if text.contains("too small for ml.m8i.96xlarge")),
        "{refused}"
    );

    // A registry that does not answer is nobody's fault; one that is asked is asked for what is missing only.
    small.settings.pull = Pull::IfMissing;
    small.settings.images = small.settings.images.clone().allow(&["127.0.0.1:1/**".into()]).unwrap();
    small.restart().await;
    missing.image = "127.0.0.1:1/x:1".into();
    let failed = small.executor.launch(&missing).await.unwrap_err();
    assert!(matches!(failed, ExecutorError::Infrastructure { .. }), "{failed}");
    assert_eq!(told(&small, &script("echo here")).await, ["here"]);
}

#[tokio::test]
async fn a_container_without_a_supervisor_gets_another_and_no_line_is_lost_or_repeated() {
    let mut h = Harness::start().await;
    let spec = script(
        "i=0; until test -e $SM_OUTPUT_DIR/go; do i=$((i+1)); echo line $i; echo warned $i >&2; printf \"half $i \"; \
         printf \"\\r$i%%\\r\"; echo whole; done; echo last $i",
    );
    h.executor.launch(&spec).await.unwrap();
    for round in [50, 500, 1500] {
        line(&h.executor, spec.id, &format!("line {round}")).await;
        kill_supervisors(&h, spec.id).await;
        let before = log(&h.executor, spec.id, 0).await;
        taken_up_again(&mut h, spec.id).await;
        line(&h.executor, spec.id, &format!("line {}", round + 20)).await;
        let after = log(&h.executor, spec.id, 0).await;
        // What readers have seen stays; only half a batch may come again, as it was.
        assert_eq!(after[..before.len()], before[..]);
    }
    h.tell(spec.id, "go").await;
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 });
    let records = log(&h.executor, spec.id, 0).await;
    let of = |stream| {
        let lines = records.iter().filter(move |record| record.stream == stream);
        lines.map(|record| String::from_utf8(record.line.clone()).unwrap()).collect::<Vec<_>>()
    };
    let (out, err) = (of(Stream::Stdout), of(Stream::Stderr));
    let rounds = err.len();
    let expected: Vec<String> = (1..=rounds)
        .flat_map(|i| [format!("line {i}"), format!("half {i} "), format!("{i}%"), "whole".to_owned()])
        .chain([format!("last {rounds}")])
        .collect();
    assert_eq!(out, expected);
    assert_eq!(err, (1..=rounds).map(|i| format!("warned {i}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn deadline_and_stop_are_kept_without_a_server_and_over_a_supervisors_end() {
    let h = Harness::start().await;
    let mut spec = script("trap 'echo saving; exit 0' TERM; echo ready; while true; do sleep 0.01; done");
    spec.max_runtime_ms = 1_500;
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    // Nobody asks for it any more, and it ends all the same: what runs on is the supervisor.
    let record = h.folder(spec.id).join("exit.json");
    let until = Instant::now() + PATIENCE;
    while !record.exists() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let exit = over(&h.executor, spec.id).await;
    assert_eq!(exit.cause, ExitCause::Deadline);
    assert!(lines(&h.executor, spec.id).await.contains(&"saving".to_owned()), "it was asked first");

    // A stop sequence that has begun goes on where it stood.
    let mut deaf = script("trap 'echo deaf' TERM; echo ready; while true; do sleep 0.01; done");
    deaf.stop_grace_ms = 2_000;
    h.executor.launch(&deaf).await.unwrap();
    line(&h.executor, deaf.id, "ready").await;
    h.executor.stop(deaf.id).await.unwrap();
    line(&h.executor, deaf.id, "deaf").await;
    kill_supervisors(&h, deaf.id).await;
    let exit = over(&h.executor, deaf.id).await;
    assert_eq!(exit.cause, ExitCause::Stopped, "{exit:?}");
    let ran = exit.ended_at.since_ms(exit.started_at.unwrap());
    assert!(ran >= 2_000, "killed after {ran} ms");
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_lost() {
    let h = Harness::start().await;
    let mut spec = script("echo ready; while true; do sleep 0.01; done");
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    h.docker.remove_container(&h.container(spec.id).await, Some(options)).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert!(is_infrastructure(&exit, "something else removed it"), "{exit:?}");
    assert!(exit.started_at.is_some());
    assert_eq!(lines(&h.executor, spec.id).await, ["ready"], "what it said is kept");
    h.executor.launch(&spec).await.unwrap();
    assert!(matches!(h.executor.observe(spec.id).await.unwrap(), Observed::Exited(_)), "never started again");

    // Killed by hand, it has ended; nobody can tell that from a program that kills itself.
    spec = script("echo ready; while true; do sleep 0.01; done");
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    h.docker.kill_container(&h.container(spec.id).await, None).await.unwrap();
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Signaled { signal: 9 });
}

#[tokio::test]
async fn an_earlier_attempt_and_a_container_without_a_folder_are_ended() {
    let h = Harness::start().await;
    let first = script("echo ready; while true; do sleep 0.01; done");
    h.executor.launch(&first).await.unwrap();
    line(&h.executor, first.id, "ready").await;
    let mut second = script("echo second");
    second.id = AttemptId { number: 2, ..first.id };
    assert_eq!(told(&h, &second).await, ["second"]);
    let exit = over(&h.executor, first.id).await;
    assert!(is_infrastructure(&exit, "removed"), "one at a time: {exit:?}");

    let stray = AttemptId { training_job: uuid::Uuid::new_v4(), number: 1 };
    let labels = [
        ("tunesmith.executor".to_owned(), h.executor.id().to_owned()),
        ("tunesmith.attempt".to_owned(), stray.to_string()),
    ];
    let body = ContainerCreateBody {
        image: Some(SHELL.into()),
        labels: Some(labels.into()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptions { name: Some(h.container_name(stray)), ..CreateContainerOptions::default() };
    h.docker.create_container(Some(options), body).await.unwrap();
    assert!(h.executor.list().await.unwrap().contains(&stray));
    h.executor.remove(stray).await.unwrap();
    assert_eq!(containers(&h.docker, &format!("tunesmith.attempt={stray}")).await, Vec::<String>::new());
    assert!(!h.executor.list().await.unwrap().contains(&stray));
}

#[tokio::test]
async fn checkpoints_reach_the_next_attempt() {
    let h = Harness::start().await;
    let kept = h.scratch().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let checkpoints = Some(CheckpointSpec { source: kept.clone(), target: "/opt/ml/checkpoints".into() });
    let mut first = script(
        "mkdir /opt/ml/checkpoints/e; echo 7 > /opt/ml/checkpoints/e/epoch; echo ready; while true; do sleep 0.01; done",
    );
    first.checkpoints.clone_from(&checkpoints);
    h.executor.launch(&first).await.unwrap();
    line(&h.executor, first.id, "ready").await;
    h.executor.stop(first.id).await.unwrap();
    over(&h.executor, first.id).await;
    let mut second = script("cat /opt/ml/checkpoints/e/epoch; echo 8 > /opt/ml/checkpoints/e/epoch");
    (second.id, second.checkpoints) = (AttemptId { number: 2, ..first.id }, checkpoints);
    assert_eq!(told(&h, &second).await, ["7"]);
    assert_eq!(std::fs::read_to_string(kept.join("e/epoch")).unwrap(), "8\n");

    // What a supervisor that was killed left goes with the last attempt.
    let left = kept.join("e").join(format!(".tunesmith-new-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&left, "half").unwrap();
    h.executor.remove(first.id).await.unwrap();
    assert!(left.exists(), "the other may be at it");
    h.executor.remove(second.id).await.unwrap();
    assert!(!left.exists() && kept.join("e/epoch").exists());
}

#[tokio::test]
async fn checkpoints_outlast_a_container_that_is_lost() {
    let h = Harness::with(|settings| settings.save_checkpoints_every = Duration::from_millis(100)).await;
    let kept = h.scratch().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let mut spec = script("echo 7 > /opt/ml/checkpoints/epoch; echo ready; while true; do sleep 0.01; done");
    spec.checkpoints = Some(CheckpointSpec { source: kept.clone(), target: "/opt/ml/checkpoints".into() });
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    let until = Instant::now() + PATIENCE;
    while !kept.join("epoch").exists() {
        assert!(Instant::now() < until);
        h.executor.changed(spec.id, Duration::from_millis(20)).await;
    }
    let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    h.docker.remove_container(&h.container(spec.id).await, Some(options)).await.unwrap();
    assert!(is_infrastructure(&over(&h.executor, spec.id).await, "removed"));
    assert_eq!(std::fs::read_to_string(kept.join("epoch")).unwrap(), "7\n");
}

#[tokio::test]
async fn the_environment_is_the_contract_and_the_jobs_own() {
    let h = Harness::start().await;
    let mut spec = script("env | cut -d= -f1 | grep -v '^SM_' | sort; echo $SM_NUM_CPUS $SM_CURRENT_INSTANCE_TYPE");
    spec.environment = BTreeMap::from([("LD_LIBRARY_PATH".into(), "/opt/lib".into()), ("MINE".into(), "1".into())]);
    let said = told(&h, &spec).await;
    let of_the_image = ["HOME", "HOSTNAME", "PATH", "PWD", "SHLVL"];
    let names: Vec<&str> = said.iter().map(String::as_str).filter(|name| !of_the_image.contains(name)).collect();
    let expected = ["LD_LIBRARY_PATH", "MINE", "PYTHONUNBUFFERED", "TRAINING_JOB_ARN", "TRAINING_JOB_NAME"];
    assert_eq!(names[..names.len() - 1], expected);
    assert!(names.last().unwrap().ends_with("ml.m5.large"));
}
