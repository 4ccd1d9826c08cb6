//! What is particular to processes of this machine: the view from inside, and what becomes of the supervisor.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::ExitCause;
use tunesmith::executor::images::{Image, Images};
use tunesmith::executor::process::{Isolation, OpenError, ProcessExecutor, ProcessLimit, ProcessSettings, RunAs};
use tunesmith::executor::{CheckpointSpec, Executor, Observed, Stream};

use crate::support::executor_harness::process::{Harness, Plain};
use crate::support::executor_harness::{ExecutorHarness, channel, line, lines, log, no_longer_running, over, script};

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// Process ids whose command line or environment holds a text.
fn processes_with(file: &str, text: &str) -> Vec<u32> {
    let proc = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    proc.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let bytes = std::fs::read(entry.path().join(file)).ok()?;
        String::from_utf8_lossy(&bytes).contains(text).then_some(id)
    })
    .collect()
}

fn kill(id: u32) {
    let status = std::process::Command::new("kill").args(["-9", &id.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The server's lines, in order, of a script that must succeed.
async fn told(h: &Harness, text: &str) -> Vec<String> {
    let mut spec = script(text);
    spec.channels.push(channel(h.scratch(), "train", "rows\n"));
    spec.environment = BTreeMap::from([
        ("DATA_DIR".into(), h.settings.data_dir.to_str().unwrap().into()),
        ("SERVER".into(), std::process::id().to_string()),
    ]);
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 }, "{exit:?}");
    lines(&h.executor, spec.id).await
}

#[tokio::test]
async fn a_job_has_its_own_opt_ml_and_the_host_keeps_its_own() {
    let before = std::fs::read_dir("/opt").map(Iterator::count);
    let h = Harness::start();
    assert_eq!(*h.executor.isolation(), Isolation::Private);
    let seen = told(&h, "cd /opt/ml; echo *; cat input/data/train/data.csv; echo x > model/x; ls /opt").await;
    assert_eq!(seen[..2], ["checkpoints input model output tmp", "rows"]);
    if let Ok(mut entries) = std::fs::read_dir("/opt/ml") {
        assert!(entries.next().is_none(), "an empty folder at most");
    } else {
        assert_eq!(std::fs::read_dir("/opt").map(Iterator::count).ok(), before.ok());
    }
}

#[tokio::test]
async fn channels_are_read_only_and_single_files_are_shown() {
    let h = Harness::start();
    let mut spec = script(
        "cd /opt/ml/input/data; for f in train/new train/data.csv one/data.csv; do \
         (echo x > $f) 2>/dev/null && echo wrote $f; done; cat one/data.csv",
    );
    let mut one = channel(h.scratch(), "one", "a single file\n");
    one.source.push("data.csv");
    spec.channels = vec![channel(h.scratch(), "train", ""), one];
    h.executor.launch(&spec).await.unwrap();
    over(&h.executor, spec.id).await;
    assert_eq!(lines(&h.executor, spec.id).await, ["a single file"]);
}

#[tokio::test]
async fn the_server_is_out_of_sight() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "password\n").unwrap();
    let h = Harness::with(|settings| settings.masked.push(secret.path().into()));
    let other = script("echo ready; until test -e /opt/ml/model/go; do sleep 0.01; done");
    h.executor.launch(&other).await.unwrap();
    line(&h.executor, other.id, "ready").await;
    let text = format!(
        "ls -A $DATA_DIR 2>/dev/null; cat {} ; touch $DATA_DIR/x 2>/dev/null && echo touched; \
         ls -d /proc/$SERVER/root/etc 2>/dev/null; kill -0 $SERVER 2>/dev/null && echo signalled; \
         ls /proc | grep -c '^[0-9]'; true",
        secret.path().display()
    );
    let seen = told(&h, &text).await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].parse::<u32>().unwrap() < 10, "only its own processes: {seen:?}");
    assert!(h.settings.data_dir.join("attempts").join(other.id.to_string()).is_dir());
}

#[tokio::test]
async fn the_environment_is_the_contract_and_nothing_else() {
    let h = Harness::start();
    let seen = told(&h, "env -0 | cut -z -d= -f1 | tr '\\0' '\\n' | grep -v '^SM_'").await;
    let mut names: Vec<&str> = seen.iter().map(String::as_str).collect();
    names.sort_unstable();
    let shells_own = ["PWD", "OLDPWD", "SHLVL", "_"];
    names.retain(|name| !shells_own.contains(name));
    assert_eq!(
        names,
        [
            "DATA_DIR",
            "HOME",
            "LANG",
            "PATH",
            "PYTHONUNBUFFERED",
            "SERVER",
            "TMPDIR",
            "TRAINING_JOB_ARN",
            "TRAINING_JOB_NAME",
            "TUNESMITH_ATTEMPT"
        ]
    );
}

#[tokio::test]
async fn privileges_are_gone() {
    let h = Harness::start();
    let seen =
        told(&h, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'; ulimit -c; readlink /proc/self/fd/0; ls -x /proc/$$/fd")
            .await;
    let none = "0000000000000000";
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:{none}"));
    assert_eq!(seen[..5], sets);
    assert_eq!(seen[5..], ["NoNewPrivs:1", "0", "/dev/null", "0  1  2"], "and no descriptor of the server's");
}

#[tokio::test]
async fn root_needs_consent_and_can_step_down() {
    let nobody = RunAs { uid: 65534, gid: 65534 };
    let h = Harness::start();
    let mut settings = h.settings.clone();
    settings.allow_root = false;
    if !is_root() {
        ProcessExecutor::open(settings.clone()).unwrap();
        settings.run_as = Some(RunAs { uid: 1, gid: 1 });
        assert!(matches!(ProcessExecutor::open(settings), Err(OpenError::CannotRunAs(1))));
        return;
    }
    assert!(matches!(ProcessExecutor::open(settings.clone()), Err(OpenError::RootRefused)));
    settings.run_as = Some(RunAs { uid: 0, gid: 0 });
    assert!(matches!(ProcessExecutor::open(settings), Err(OpenError::RootRefused)));

    let h = Harness::with(|settings| (settings.allow_root, settings.run_as) = (false, Some(nobody)));
    let text = "id -u; id -g; id -G; echo x > $SM_MODEL_DIR/x && touch $TMPDIR/x ~/x; cat $SM_CHANNEL_TRAIN/data.csv; \
                (echo x > /opt/ml/input/config/x) 2>/dev/null && echo wrote; mkdir $SM_MODEL_DIR/d; chmod 0 $SM_MODEL_DIR/d";
    assert_eq!(told(&h, text).await, ["65534", "65534", "65534", "rows"]);
    for id in h.executor.list().await.unwrap() {
        h.executor.remove(id).await.unwrap();
    }

    // Without namespaces it works along a path that the user may pass, and is refused otherwise.
    let mut settings = h.settings.clone();
    settings.isolate = false;
    assert!(matches!(ProcessExecutor::open(settings.clone()), Err(OpenError::NoPassage { uid: 65534, .. })));
    for folder in [&settings.data_dir, h.scratch()] {
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    }
    let mut h = h;
    h.executor = ProcessExecutor::open(settings).unwrap();
    assert_eq!(told(&h, "id -u; touch $SM_MODEL_DIR/x $TMPDIR/x ~/x && echo wrote").await, ["65534", "wrote"]);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let h = Harness::start();
    let open = |change: &dyn Fn(&mut ProcessSettings)| {
        let mut settings = h.settings.clone();
        change(&mut settings);
        ProcessExecutor::open(settings).unwrap_err().to_string()
    };
    let image = |command: &[&str]| Images::new(vec![Image::command("i", command.iter().copied())]).unwrap();
    let no_program = open(&|settings| settings.images = image(&["no-such-program"]));
    assert!(no_program.contains("no-such-program"), "{no_program}");
    assert!(open(&|settings| settings.images = image(&[])).contains("is empty"));
    assert!(open(&|settings| settings.masked.push("/opt".into())).contains("/opt/ml"));
    assert!(open(&|settings| settings.masked.push("/bin".into())).contains("hidden"));
    assert!(open(&|settings| settings.working_dir = settings.data_dir.clone()).contains("hidden"));
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("train.sh");
    std::fs::write(&program, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let image = Image::command("test/gone:1", ["./train.sh"]);
    let h = Harness::with(|settings| {
        settings.images = Images::new(vec![image]).unwrap();
        settings.working_dir = folder.path().into();
    });
    let mut spec = script("");
    spec.image = "test/gone:1".into();
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert_eq!(exit.started_at, None);
    assert!(matches!(&exit.cause, ExitCause::StartFailed { message } if message.contains("train.sh")), "{exit:?}");
}

/// Real-time signals have no names, and end processes like others.
async fn end_by_unnamed_signals(h: &impl ExecutorHarness) {
    let orphan = script(
        "(sh -c 'echo $$ > $TMPDIR/id; kill -34 $$' &); \
         until test -s $TMPDIR/id && ! kill -0 $(cat $TMPDIR/id) 2>/dev/null; do sleep 0.01; done; echo taken in",
    );
    h.executor().launch(&orphan).await.unwrap();
    assert_eq!(over(h.executor(), orphan.id).await.cause, ExitCause::Exited { code: 0 });
    assert_eq!(lines(h.executor(), orphan.id).await, ["taken in"]);
    let program = script("kill -34 $$");
    h.executor().launch(&program).await.unwrap();
    let exit = over(h.executor(), program.id).await;
    assert_eq!((exit.cause, exit.started_at.is_some()), (ExitCause::Signaled { signal: 34 }, true));
}

#[tokio::test]
async fn a_signal_without_a_name_ends_a_program_or_an_orphan() {
    end_by_unnamed_signals(&Harness::start()).await;
}

#[tokio::test]
async fn a_signal_without_a_name_ends_them_without_namespaces_too() {
    end_by_unnamed_signals(&Plain::start()).await;
}

/// Kills the supervisor of a job that has a stubborn descendant, and sees that nothing of it goes on.
async fn lose_the_supervisor(h: &impl ExecutorHarness) {
    let mark = h.scratch().join("alive");
    let mut spec = script(
        "trap '' TERM HUP; (setsid sh -c 'trap \"\" TERM HUP; while true; do echo x >> $MARK; sleep 0.01; done' &); \
         until test -s $MARK; do sleep 0.01; done; echo ready; while true; do sleep 0.01; done",
    );
    spec.environment = BTreeMap::from([("MARK".into(), mark.to_str().unwrap().into())]);
    h.executor().launch(&spec).await.unwrap();
    line(h.executor(), spec.id, "ready").await;
    let supervisors = processes_with("cmdline", &format!("supervise\0{}", attempt_folder(h, spec.id).display()));
    let [supervisor] = supervisors[..] else { unreachable!("one supervisor, not {supervisors:?}") };
    kill(supervisor);
    assert_eq!(no_longer_running(h.executor(), spec.id).await, Observed::Lost);
    assert_eq!(processes_with("environ", &format!("TUNESMITH_ATTEMPT={}", spec.id)), Vec::<u32>::new());
    let length = std::fs::metadata(&mark).unwrap().len();

    h.executor().launch(&spec).await.unwrap();
    assert_eq!(h.executor().observe(spec.id).await.unwrap(), Observed::Lost, "never started again");
    assert_eq!(lines(h.executor(), spec.id).await, ["ready"], "what it said is kept");
    assert_eq!(std::fs::metadata(&mark).unwrap().len(), length);
    h.executor().remove(spec.id).await.unwrap();
    assert_eq!(h.executor().observe(spec.id).await.unwrap(), Observed::Absent);
}

fn attempt_folder(h: &impl ExecutorHarness, id: AttemptId) -> PathBuf {
    h.scratch().canonicalize().unwrap().join("data/attempts").join(id.to_string())
}

#[tokio::test]
async fn an_attempt_is_lost_with_its_supervisor_and_nothing_of_it_runs_on() {
    lose_the_supervisor(&Harness::start()).await;
}

#[tokio::test]
async fn an_attempt_without_namespaces_is_lost_with_its_supervisor_too() {
    lose_the_supervisor(&Plain::start()).await;
}

#[tokio::test]
async fn a_start_that_a_dying_server_left_half_done_is_done() {
    let h = Harness::start();
    let spec = script("echo started");
    let folder = attempt_folder(&h, spec.id);
    std::fs::create_dir_all(folder.join("ml/input/config")).unwrap();
    std::fs::write(folder.join("plan.json"), "{half").unwrap();
    std::fs::write(folder.join("lock"), "").unwrap();
    assert_eq!(h.executor.observe(spec.id).await.unwrap(), Observed::Absent);
    h.executor.launch(&spec).await.unwrap();
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 });
}

#[tokio::test]
async fn the_deadline_is_kept_without_a_server() {
    let mut h = Harness::start();
    let mut spec = script("echo ready; while true; do sleep 0.01; done");
    spec.max_runtime_ms = 300;
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    h.restart().await;
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Deadline);
}

#[tokio::test]
async fn a_flood_is_cut_off_with_a_mark_and_never_blocks_the_program() {
    let h = Harness::with(|settings| {
        settings.max_log_bytes = 1 << 20;
        settings.segment_bytes = 256 << 10;
    });
    let spec = script("yes 0123456789 | head -c 100000000; echo the end >&2; exit 3");
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert_eq!((exit.cause, exit.stderr_tail.as_str()), (ExitCause::Exited { code: 3 }, "the end"));
    let records = log(&h.executor, spec.id, 0).await;
    let (mark, output) = records.split_last().unwrap();
    assert_eq!(mark.stream, Stream::Service);
    assert!(mark.line.starts_with(b"log truncated"));
    assert!(output.iter().all(|record| record.line == b"0123456789"), "only whole lines");
    let files = h.executor.log_files(spec.id).await.unwrap();
    assert!(files.len() >= 4 && files.iter().all(|file| file.bytes < 1 << 19), "{files:?}");
    let ends = files.iter().scan(0, |end, file| {
        let begins = (*end == file.first_offset).then_some(());
        *end = file.first_offset + file.bytes;
        begins
    });
    assert_eq!(ends.count(), files.len(), "segments join: {files:?}");
    assert!(files.iter().map(|file| file.bytes).sum::<u64>() < (1 << 20) + 200);
}

#[tokio::test]
async fn a_supervisor_is_not_to_be_started_by_hand() {
    let h = Harness::start();
    let spec = script("true");
    h.executor.launch(&spec).await.unwrap();
    let before = over(&h.executor, spec.id).await;
    let mut by_hand = std::process::Command::new(&h.settings.binary);
    by_hand.arg("supervise").arg(attempt_folder(&h, spec.id)).stdin(std::process::Stdio::null());
    assert_eq!(by_hand.output().unwrap().status.code(), Some(2));
    assert_eq!(over(&h.executor, spec.id).await, before);
}

#[tokio::test]
async fn folders_of_any_depth_are_removed_and_half_removals_are_finished() {
    let h = Harness::start();
    let spec =
        script("cd /opt/ml/model; p=$(printf 'd/%.0s' $(seq 1 450)); for i in 1 2 3 4; do mkdir -p $p; cd $p; done");
    h.executor.launch(&spec).await.unwrap();
    assert_eq!(over(&h.executor, spec.id).await.cause, ExitCause::Exited { code: 0 });
    h.executor.remove(spec.id).await.unwrap();
    let trash = h.settings.data_dir.join("trash");
    assert_eq!(std::fs::read_dir(&trash).unwrap().count(), 0);
    // A removal that failed on the way is done again, not called done.
    std::fs::create_dir_all(trash.join(format!("{}-0/ml", spec.id))).unwrap();
    h.executor.remove(spec.id).await.unwrap();
    assert_eq!(std::fs::read_dir(&trash).unwrap().count(), 0);
}

#[tokio::test]
async fn supervisors_are_born_out_of_the_terminals_reach() {
    let folder = tempfile::tempdir().unwrap();
    let (binary, told) = (folder.path().join("nursery"), folder.path().join("told"));
    // Field 5 of its stat is the process group.
    let text = format!(
        "#!/bin/sh\nread -r pid name state parent group rest < /proc/$$/stat\necho $pid $group > {0}.new\n\
                        mv {0}.new {0}\n",
        told.display()
    );
    std::fs::write(&binary, text).unwrap();
    std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let h = Harness::with(|settings| (settings.binary, settings.isolate) = (binary, false));
    let spec = script("true");
    h.executor.launch(&spec).await.unwrap();
    let begun = std::time::Instant::now();
    let text = loop {
        if let Ok(text) = std::fs::read_to_string(&told) {
            break text;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the nursery was not started");
        tokio::task::yield_now().await;
    };
    let (pid, group) = text.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
    // Supervisors are forks of it. This one made none, and said nothing: what became of the attempt is seen by looking.
    assert_eq!(h.executor.observe(spec.id).await.unwrap(), Observed::Absent);
}

#[tokio::test]
async fn a_nursery_that_dies_takes_no_supervisor_with_it_and_is_replaced() {
    let h = Harness::start();
    let (gate, first) = (h.scratch().join("gate"), "until test -s $GATE; do sleep 0.01; done; echo through");
    let mut first = script(first);
    first.environment = BTreeMap::from([("GATE".into(), gate.to_str().unwrap().into())]);
    h.executor.launch(&first).await.unwrap();
    let line = format!("supervise\0{}", attempt_folder(&h, first.id).display());
    let supervisor = loop {
        // It takes its name right after its birth.
        match processes_with("cmdline", &line).into_iter().min() {
            Some(supervisor) => break supervisor,
            None => tokio::task::yield_now().await,
        }
    };
    let nursery = parent(supervisor);
    assert_eq!(parent(nursery), std::process::id());
    kill(nursery);

    let second = script("echo after");
    h.executor.launch(&second).await.unwrap();
    assert_eq!(over(&h.executor, second.id).await.cause, ExitCause::Exited { code: 0 });
    std::fs::write(gate, "open").unwrap();
    assert_eq!(over(&h.executor, first.id).await.cause, ExitCause::Exited { code: 0 });
    assert_eq!(lines(&h.executor, first.id).await, ["through"]);
}

/// The process that started another.
fn parent(id: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_became_a_link_after_staging_is_not_followed() {
    use std::os::unix::fs::MetadataExt;
    let h = Harness::with(|settings| {
        settings.run_as = is_root().then_some(RunAs { uid: 65534, gid: 65534 });
    });
    let (outside, link) = (h.scratch().join("outside"), h.scratch().join("link"));
    std::fs::create_dir_all(outside.join("within")).unwrap();
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let owner = outside.metadata().unwrap().uid();
    for source in [link.clone(), link.join("within")] {
        let mut spec = script("echo reached");
        spec.checkpoints = Some(CheckpointSpec { source, target: "/opt/ml/checkpoints".into() });
        if h.executor.launch(&spec).await.is_ok() {
            let exit = over(&h.executor, spec.id).await;
            assert!(matches!(exit.cause, ExitCause::Infrastructure { .. }), "{exit:?}");
        }
    }
    assert_eq!(outside.metadata().unwrap().uid(), owner);
    assert_eq!(outside.join("within").metadata().unwrap().uid(), owner);

    let mut spec = script("cat $SM_CHANNEL_TRAIN/data.csv");
    let mut train = channel(h.scratch(), "train", "rows\n");
    let linked = h.scratch().join("train");
    std::os::unix::fs::symlink(&train.source, &linked).unwrap();
    train.source = linked;
    spec.channels.push(train);
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert!(matches!(exit.cause, ExitCause::Infrastructure { .. }), "{exit:?}");
}

#[tokio::test]
async fn after_a_power_failure_nothing_is_started_again() {
    let h = Harness::start();
    let spec = script("echo started");
    h.executor.launch(&spec).await.unwrap();
    over(&h.executor, spec.id).await;
    // The machine lost what was not on its disk yet: the marks of the start, and the exit record.
    let folder = attempt_folder(&h, spec.id);
    for gone in ["exit.json", "started", "boot"] {
        std::fs::remove_file(folder.join(gone)).unwrap();
    }
    std::os::unix::fs::symlink("another-boot", folder.join("boot")).unwrap();
    // The supervisor goes a moment after its exit record.
    assert_eq!(no_longer_running(&h.executor, spec.id).await, Observed::Lost);
    h.executor.launch(&spec).await.unwrap();
    assert_eq!(h.executor.observe(spec.id).await.unwrap(), Observed::Lost);
}

#[tokio::test]
async fn mapped_folders_are_seen_through_channels_only() {
    let mapped = tempfile::tempdir().unwrap();
    std::fs::create_dir(mapped.path().join("train")).unwrap();
    std::fs::write(mapped.path().join("train/data.csv"), "rows\n").unwrap();
    std::fs::write(mapped.path().join("other.csv"), "of another job\n").unwrap();
    // One that holds the working directory stays in sight, and the executor opens.
    let h = Harness::with(|settings| settings.mapped = vec![mapped.path().into(), "/".into()]);
    let mut spec = script(&format!("cat $SM_CHANNEL_TRAIN/data.csv {}/other.csv 2>/dev/null", mapped.path().display()));
    let mut train = channel(h.scratch(), "train", "");
    train.source = mapped.path().join("train");
    spec.channels.push(train);
    h.executor.launch(&spec).await.unwrap();
    over(&h.executor, spec.id).await;
    assert_eq!(lines(&h.executor, spec.id).await, ["rows"]);
}

/// An attempt that writes more than its request asked for, and then more than the server allows, to a checkpoint.
async fn end_what_fills_the_disk(h: &impl ExecutorHarness) {
    let mut asked = script("head -c 3000000 /dev/zero > $SM_MODEL_DIR/m; echo ready; while true; do sleep 0.01; done");
    asked.volume_bytes = Some(2 << 20);
    let mut allowed = script(
        "head -c 9000000 /dev/zero > $SM_MODEL_DIR/../checkpoints/c; trap '' TERM; while true; do sleep 0.01; done",
    );
    allowed.volume_bytes = Some(1 << 40);
    let kept = h.scratch().join("kept");
    std::fs::create_dir(&kept).unwrap();
    allowed.checkpoints =
        Some(CheckpointSpec { source: kept.canonicalize().unwrap(), target: "/opt/ml/checkpoints".into() });
    let modest = script("head -c 3000000 /dev/zero > $SM_MODEL_DIR/m; sleep 2.5");
    for spec in [&asked, &allowed, &modest] {
        h.executor().launch(spec).await.unwrap();
    }
    for (spec, limit, whose) in
        [(&asked, "2097152 bytes", "VolumeSizeInGB"), (&allowed, "8388608 bytes", "process.max_disk_gib")]
    {
        let exit = over(h.executor(), spec.id).await;
        let ExitCause::OverLimit { message } = &exit.cause else { unreachable!("{exit:?}") };
        assert!(message.contains(limit) && message.contains(whose), "{message}");
        assert!(exit.started_at.is_some());
        let last = log(h.executor(), spec.id, 0).await.pop().unwrap();
        assert!(last.stream == Stream::Service && last.line.ends_with(b"SIGKILL sent"), "{last:?}");
    }
    assert_eq!(over(h.executor(), modest.id).await.cause, ExitCause::Exited { code: 0 });
}

#[tokio::test]
async fn an_attempt_that_fills_the_disk_is_ended() {
    end_what_fills_the_disk(&Harness::with(|settings| settings.max_disk_bytes = Some(8 << 20))).await;
}

#[tokio::test]
async fn an_attempt_without_namespaces_that_fills_the_disk_is_ended_too() {
    let h = Harness::with(|settings| (settings.max_disk_bytes, settings.isolate) = (Some(8 << 20), false));
    end_what_fills_the_disk(&h).await;
}

#[tokio::test]
async fn the_processes_of_a_user_are_limited() {
    if !is_root() {
        // An ordinary user's limit is an attempt's own.
        let h = Harness::with(|settings| settings.max_processes = Some(20));
        assert_eq!(*h.executor.process_limit(), ProcessLimit::Each(20));
        return fork_beyond(&h, 20).await;
    }
    // A user of its own: the kernel counts all that it runs.
    let user = Some(RunAs { uid: 61_234, gid: 61_234 });
    let h = Harness::with(|settings| {
        (settings.run_as, settings.max_processes, settings.max_running) = (user, Some(10), 2);
    });
    assert_eq!(*h.executor.process_limit(), ProcessLimit::Together(20));
    fork_beyond(&h, 20).await;
    let h = Harness::with(|settings| settings.max_processes = Some(10));
    assert!(matches!(h.executor.process_limit(), ProcessLimit::Unlimited { why: Some(_) }));
}

/// Starts fewer processes than the limit, and more.
async fn fork_beyond(h: &Harness, limit: u32) {
    let forks =
        |count: u32| script(&format!("i=0; while [ $i -lt {count} ]; do sleep 60 & i=$((i+1)); done; echo all"));
    let few = forks(limit - 5);
    h.executor.launch(&few).await.unwrap();
    assert_eq!(over(&h.executor, few.id).await.cause, ExitCause::Exited { code: 0 });
    assert_eq!(lines(&h.executor, few.id).await, ["all"]);
    let many = forks(limit + 5);
    h.executor.launch(&many).await.unwrap();
    let exit = over(&h.executor, many.id).await;
    assert!(matches!(exit.cause, ExitCause::Exited { code } if code != 0), "{exit:?}");
    assert!(exit.stderr_tail.to_lowercase().contains("fork"), "{exit:?}");
}
