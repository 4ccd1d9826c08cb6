//! The behaviour that every executor has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::ExitCause;
use tunesmith::executor::{CheckpointSpec, ExecutorError, Observed, Stream};

use crate::support::executor_harness::{ExecutorHarness, channel, line, lines, log, over, script};

pub(super) async fn the_contract_is_seen_inside(h: &mut impl ExecutorHarness) {
    let mut jobs = Vec::new();
    for name in ["one", "two"] {
        // Each tells its own tale from its own /opt/ml, while the other does so too.
        let mut spec = script(
            "cd $SM_INPUT_DIR; cat config/hyperparameters.json; echo; cat config/inputdataconfig.json; echo; \
             cat config/resourceconfig.json; echo; cat data/train/data.csv $SM_CHANNEL_TRAIN/data.csv; \
             echo $TRAINING_JOB_NAME $GREETING; test -d $SM_MODEL_DIR && test -d $SM_OUTPUT_DATA_DIR || exit 3; \
             echo $NAME > $SM_MODEL_DIR/name; echo ready; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done; \
             cat $SM_MODEL_DIR/*",
        );
        spec.hyperparameters.insert("lr".into(), "0.1".into());
        spec.channels.push(channel(h.scratch(), "train", &format!("rows of {name}\n")));
        spec.environment = BTreeMap::from([("GREETING".into(), "hello world".into()), ("NAME".into(), name.into())]);
        h.executor().launch(&spec).await.unwrap();
        jobs.push((name, spec));
    }
    for (_, spec) in &jobs {
        line(h.executor(), spec.id, "ready").await;
    }
    for (_, spec) in &jobs {
        h.tell(spec.id, "go").await;
    }
    for (name, spec) in &jobs {
        assert_eq!(
            over(h.executor(), spec.id).await.cause,
            ExitCause::Exited { code: 0 },
            "{:?}",
            lines(h.executor(), spec.id).await
        );
        let lines = lines(h.executor(), spec.id).await;
        assert!(lines[0].contains(r#""lr":"0.1""#), "{lines:?}");
        assert_eq!(lines[1], r#"{"train":{"TrainingInputMode":"File"}}"#);
        assert!(lines[2].contains(r#""current_host":"algo-1""#), "{lines:?}");
        let rows = format!("rows of {name}");
        assert_eq!(lines[3..], [&rows, &rows, "tune-001-0badcafe hello world", "ready", *name], "{lines:?}");
    }
}

pub(super) async fn arguments_and_streams(h: &mut impl ExecutorHarness) {
    let spec = script("echo \"$# $1\"; echo warned >&2");
    h.executor().launch(&spec).await.unwrap();
    let exit = over(h.executor(), spec.id).await;
    assert!(exit.started_at.is_some_and(|started| started <= exit.ended_at));
    let records = log(h.executor(), spec.id, 0).await;
    let mut seen: Vec<_> = records.iter().map(|r| (r.stream == Stream::Stderr, r.line.as_slice())).collect();
    seen.sort();
    assert_eq!(seen, [(false, &b"1 train"[..]), (true, b"warned")]);
    assert!(records.iter().all(|r| exit.started_at.unwrap() <= r.time && r.time <= exit.ended_at));
}

pub(super) async fn exit_codes(h: &mut impl ExecutorHarness) {
    for (text, cause) in [
        ("exit 0", ExitCause::Exited { code: 0 }),
        ("exit 37", ExitCause::Exited { code: 37 }),
        ("kill -9 $$", ExitCause::Signaled { signal: 9 }),
    ] {
        let spec = script(text);
        h.executor().launch(&spec).await.unwrap();
        assert_eq!(over(h.executor(), spec.id).await.cause, cause, "{text}");
    }
}

pub(super) async fn a_failure_file_explains(h: &mut impl ExecutorHarness) {
    let spec = script(
        "printf 'no such column: \\303\\274 ' > $SM_OUTPUT_DIR/failure; head -c 5000 /dev/zero | tr '\\0' x >> $SM_OUTPUT_DIR/failure; exit 1",
    );
    h.executor().launch(&spec).await.unwrap();
    let failure = over(h.executor(), spec.id).await.failure.unwrap();
    assert!(failure.starts_with("no such column: \u{fc} xxx"), "{failure}");
    assert_eq!(failure.chars().count(), 1024);

    // A job cannot make the service read a file that it may not, nor wait for ever.
    for trap in ["ln -s /etc/passwd", "mkfifo"] {
        let spec = script(&format!("{trap} $SM_OUTPUT_DIR/failure; exit 1"));
        h.executor().launch(&spec).await.unwrap();
        assert_eq!(over(h.executor(), spec.id).await.failure, None, "{trap}");
    }
}

pub(super) async fn stderr_tail_is_kept(h: &mut impl ExecutorHarness) {
    let spec = script("for i in $(seq 2000); do echo line $i >&2; done; echo out; exit 1");
    h.executor().launch(&spec).await.unwrap();
    let tail = over(h.executor(), spec.id).await.stderr_tail;
    assert!(tail.len() <= 2048 && tail.starts_with("line ") && tail.ends_with("line 2000"), "{tail}");
}

pub(super) async fn the_deadline_is_kept(h: &mut impl ExecutorHarness) {
    let mut spec = script("trap 'echo saving; exit 0' TERM; echo ready; while true; do sleep 0.01; done");
    spec.max_runtime_ms = 300;
    h.executor().launch(&spec).await.unwrap();
    let exit = over(h.executor(), spec.id).await;
    assert_eq!(exit.cause, ExitCause::Deadline);
    assert!(exit.ended_at.since_ms(exit.started_at.unwrap()) >= 300);
    assert!(lines(h.executor(), spec.id).await.contains(&"saving".to_owned()), "the program was asked first");
}

pub(super) async fn a_stop_gives_grace(h: &mut impl ExecutorHarness) {
    let spec = script("trap 'echo saving; exit 5' TERM; echo ready; while true; do sleep 0.01; done");
    h.executor().launch(&spec).await.unwrap();
    line(h.executor(), spec.id, "ready").await;
    h.executor().stop(spec.id).await.unwrap();
    h.executor().stop(spec.id).await.unwrap();
    assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Stopped);
    let seen = lines(h.executor(), spec.id).await;
    assert!(seen.contains(&"saving".to_owned()), "{seen:?}");
    h.executor().stop(spec.id).await.unwrap();
}

pub(super) async fn what_ignores_sigterm_is_killed(h: &mut impl ExecutorHarness) {
    let mut spec = script("trap '' TERM; echo ready; while true; do sleep 0.01; done");
    spec.stop_grace_ms = 100;
    h.executor().launch(&spec).await.unwrap();
    line(h.executor(), spec.id, "ready").await;
    let asked = Instant::now();
    h.executor().stop(spec.id).await.unwrap();
    assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Stopped);
    assert!(asked.elapsed() >= Duration::from_millis(100));
}

pub(super) async fn a_stop_may_come_before_the_start(h: &mut impl ExecutorHarness) {
    for _ in 0..10 {
        let spec = script("trap 'exit 0' TERM; while true; do sleep 0.01; done");
        h.executor().launch(&spec).await.unwrap();
        h.executor().stop(spec.id).await.unwrap();
        assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Stopped);
    }
}

pub(super) async fn launching_twice_is_once(h: &mut impl ExecutorHarness) {
    // What a second start would find of the first.
    let spec = script(
        "date >> $SM_MODEL_DIR/starts; echo ready; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done; \
         wc -l < $SM_MODEL_DIR/starts",
    );
    let executor = h.executor();
    let (a, b, c) = tokio::join!(executor.launch(&spec), executor.launch(&spec), executor.launch(&spec));
    a.and(b).and(c).unwrap();
    line(h.executor(), spec.id, "ready").await;
    h.restart().await;
    h.executor().launch(&spec).await.unwrap();
    h.tell(spec.id, "go").await;
    over(h.executor(), spec.id).await;
    h.executor().launch(&spec).await.unwrap();
    assert!(matches!(h.executor().observe(spec.id).await.unwrap(), Observed::Exited(_)));
    assert_eq!(lines(h.executor(), spec.id).await, ["ready", "1"], "one start");
}

pub(super) async fn logs_are_read_on_from_an_offset(h: &mut impl ExecutorHarness) {
    let spec = script("for i in $(seq 500); do echo line $i; done");
    h.executor().launch(&spec).await.unwrap();
    over(h.executor(), spec.id).await;
    let all = log(h.executor(), spec.id, 0).await;
    assert_eq!(all.len(), 500);
    assert_eq!(all[499].line, b"line 500");
    assert_eq!(log(h.executor(), spec.id, all[250].offset).await, all[250..]);
    let some = h.executor().logs(spec.id, 0, 100).await.unwrap();
    assert!(!some.records.is_empty() && some.records.len() < 20, "{}", some.records.len());

    let files = h.executor().log_files(spec.id).await.unwrap();
    let last = files.last().unwrap();
    assert_eq!((files[0].first_offset, files[0].first_time), (0, all[0].time));
    assert_eq!(h.executor().logs(spec.id, last.first_offset + last.bytes, 100).await.unwrap().records, []);
}

pub(super) async fn lines_of_every_kind(h: &mut impl ExecutorHarness) {
    let spec = script(
        "printf 'epoch 1\\repoch 2\\r\\n'; printf 'a\\tb \\377\\376\\000c\\n\\nlast without end'; \
         head -c 1500000 /dev/zero | tr '\\0' y >&2; echo >&2",
    );
    h.executor().launch(&spec).await.unwrap();
    assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Exited { code: 0 });
    let records = log(h.executor(), spec.id, 0).await;
    let of = |stream| records.iter().filter(move |r| r.stream == stream).map(|r| r.line.as_slice()).collect::<Vec<_>>();
    let expected: [&[u8]; 5] = [b"epoch 1", b"epoch 2", b"a\tb \xff\xfe\0c", b"", b"last without end"];
    assert_eq!(of(Stream::Stdout), expected);
    let long: Vec<usize> = of(Stream::Stderr).iter().map(|line| line.len()).collect();
    assert_eq!(long, [1 << 20, 1_500_000 - (1 << 20)], "a long line comes in pieces");
}

pub(super) async fn a_restarted_server_finds_its_attempts(h: &mut impl ExecutorHarness) {
    let spec = script("echo before; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done; echo after");
    h.executor().launch(&spec).await.unwrap();
    line(h.executor(), spec.id, "before").await;
    let seen = log(h.executor(), spec.id, 0).await;
    let next = h.executor().logs(spec.id, 0, 1 << 20).await.unwrap().next_offset;
    let id = h.executor().id().to_owned();

    h.restart().await;
    assert_eq!(h.executor().id(), id, "attempts stay bound to it");
    assert_eq!(h.executor().list().await.unwrap(), [spec.id]);
    let observed = h.executor().observe(spec.id).await.unwrap();
    assert!(matches!(observed, Observed::Running { started_at: Some(_) }), "{observed:?}");
    h.tell(spec.id, "go").await;
    assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Exited { code: 0 });
    let rest: Vec<_> = log(h.executor(), spec.id, next).await.into_iter().map(|record| record.line).collect();
    assert_eq!((seen.len(), rest), (1, vec![b"after".to_vec()]));
}

pub(super) async fn removing_forgets_everything(h: &mut impl ExecutorHarness) {
    let ended = script(
        "mkdir -p $SM_MODEL_DIR/a/b; touch $SM_MODEL_DIR/a/b/c; ln -s / $SM_MODEL_DIR/root; chmod 0 $SM_MODEL_DIR/a",
    );
    let running = script("trap '' TERM; echo ready; while true; do sleep 0.01; done");
    for spec in [&ended, &running] {
        h.executor().launch(spec).await.unwrap();
    }
    over(h.executor(), ended.id).await;
    line(h.executor(), running.id, "ready").await;
    for spec in [&ended, &running] {
        h.executor().remove(spec.id).await.unwrap();
        assert_eq!(h.executor().observe(spec.id).await.unwrap(), Observed::Absent);
        h.executor().remove(spec.id).await.unwrap();
    }
    assert_eq!(h.executor().list().await.unwrap(), []);
    assert_eq!(h.executor().logs(ended.id, 0, 100).await.unwrap().records, []);
}

pub(super) async fn unknown_attempts_are_absent(h: &mut impl ExecutorHarness) {
    let id = AttemptId { training_job: uuid::Uuid::new_v4(), number: 3 };
    assert_eq!(h.executor().observe(id).await.unwrap(), Observed::Absent);
    h.executor().stop(id).await.unwrap();
    h.executor().remove(id).await.unwrap();
    assert_eq!(h.executor().list().await.unwrap(), []);
    assert_eq!(h.executor().log_files(id).await.unwrap(), []);
}

pub(super) async fn an_unregistered_image_is_the_jobs_fault(h: &mut impl ExecutorHarness) {
    let mut spec = script("");
    spec.image = "/bin/sh".into();
    let error = h.executor().launch(&spec).await.unwrap_err();
    assert!(matches!(&error, ExecutorError::Client(message) if message.contains("test/sh:1")), "{error}");
    assert_eq!(h.executor().observe(spec.id).await.unwrap(), Observed::Absent);
}

pub(super) async fn odd_requests_are_refused(h: &mut impl ExecutorHarness) {
    let refused = async |spec: &tunesmith::executor::AttemptSpec| {
        let error = h.executor().launch(spec).await.unwrap_err();
        assert!(matches!(error, ExecutorError::Client(_)), "{error}");
    };
    for name in ["..", ".", "a/b", "/", "", "a\\b", "a\0"] {
        let mut spec = script("");
        spec.channels.push(channel(h.scratch(), name, ""));
        refused(&spec).await;
    }
    for target in ["/etc", "/opt/ml", "/opt/ml/input/data", "/opt/ml/a/../../../etc", "/opt/ml/model", "relative"] {
        let mut spec = script("");
        spec.checkpoints = Some(CheckpointSpec { source: h.scratch().into(), target: target.into() });
        refused(&spec).await;
    }
    let mut spec = script("");
    spec.environment = BTreeMap::from([("TRAINING_JOB_NAME".into(), "another".into())]);
    refused(&spec).await;
}

pub(super) async fn code_of_the_jobs_own_is_refused(h: &mut impl ExecutorHarness) {
    let mut spec = script("");
    spec.environment = BTreeMap::from([("LD_PRELOAD".into(), "/tmp/x.so".into())]);
    let error = h.executor().launch(&spec).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Client(_)), "{error}");
}

pub(super) async fn outputs_are_found(h: &mut impl ExecutorHarness) {
    let mut spec = script(
        "echo m > $SM_MODEL_DIR/m; echo d > $SM_OUTPUT_DATA_DIR/d; echo c > $SM_MODEL_DIR/../checkpoints/c; \
         cat $SM_MODEL_DIR/../checkpoints/old",
    );
    let kept = h.scratch().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("old"), "from before\n").unwrap();
    spec.checkpoints = Some(CheckpointSpec { source: kept.clone(), target: "/opt/ml/checkpoints".into() });
    h.executor().launch(&spec).await.unwrap();
    assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Exited { code: 0 });
    assert_eq!(lines(h.executor(), spec.id).await, ["from before"]);
    let outputs = h.executor().outputs(spec.id).await.unwrap();
    assert_eq!(std::fs::read_to_string(outputs.model.join("m")).unwrap(), "m\n");
    assert_eq!(std::fs::read_to_string(outputs.data.join("d")).unwrap(), "d\n");
    h.executor().remove(spec.id).await.unwrap();
    assert_eq!(std::fs::read_to_string(kept.join("c")).unwrap(), "c\n", "checkpoints outlive the attempt");

    // Links in their place lead nowhere.
    let spec = script("cd $SM_MODEL_DIR/..; rm -rf model output; ln -s /etc model; ln -s / output");
    h.executor().launch(&spec).await.unwrap();
    over(h.executor(), spec.id).await;
    let outputs = h.executor().outputs(spec.id).await.unwrap();
    for folder in [outputs.model, outputs.data] {
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{}", folder.display());
        assert_eq!(folder, folder.canonicalize().unwrap());
    }
}

pub(super) async fn descendants_end_with_the_program(h: &mut impl ExecutorHarness) {
    let mark = h.scratch().join("alive");
    let mut spec = script(
        "(setsid sh -c 'trap \"\" TERM HUP; while true; do echo x >> $MARK; sleep 0.01; done' &) ; \
         until test -s $MARK; do sleep 0.01; done",
    );
    spec.environment = BTreeMap::from([("MARK".into(), mark.to_str().unwrap().into())]);
    h.executor().launch(&spec).await.unwrap();
    over(h.executor(), spec.id).await;
    // It wrote every 10 ms or so while it lived; another attempt gives it time to.
    let length = std::fs::metadata(&mark).unwrap().len();
    let other = script("sleep 0.1");
    h.executor().launch(&other).await.unwrap();
    over(h.executor(), other.id).await;
    assert_eq!(std::fs::metadata(&mark).unwrap().len(), length);
}

pub(super) async fn many_attempts_at_once(h: &mut impl ExecutorHarness) {
    let specs: Vec<_> = (0..24).map(|i| script(&format!("echo {i}; exit {i}"))).collect();
    for spec in &specs {
        h.executor().launch(spec).await.unwrap();
    }
    for (i, spec) in specs.iter().enumerate() {
        assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Exited { code: i32::try_from(i).unwrap() });
        assert_eq!(lines(h.executor(), spec.id).await, [i.to_string()]);
    }
    assert_eq!(h.executor().list().await.unwrap().len(), specs.len());
}

pub(super) async fn changes_wake_early(h: &mut impl ExecutorHarness) {
    let spec = script("echo ready; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done");
    h.executor().launch(&spec).await.unwrap();
    line(h.executor(), spec.id, "ready").await;
    let ended = async {
        h.tell(spec.id, "go").await;
        while !matches!(h.executor().observe(spec.id).await.unwrap(), Observed::Exited(_)) {
            // Longer than the test may take: only a wake-up ends it.
            h.executor().changed(spec.id, Duration::from_hours(1)).await;
        }
    };
    tokio::time::timeout(crate::support::executor_harness::PATIENCE, ended).await.unwrap();
}
