//! Channels as named pipes: what a program reads from epoch to epoch, and what becomes of programs that read otherwise.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::executor::{AttemptSpec, ChannelSpec, Executor, Observed, PipeSpec};

use crate::support::executor_harness::process::Harness;
use crate::support::executor_harness::{ExecutorHarness, line, lines, log, no_longer_running, over, script};

/// A folder with these objects, streamed as `train`.
pub(super) fn streamed(scratch: &Path, objects: &[(&str, &[u8])], pipe: PipeSpec) -> ChannelSpec {
    let source = scratch.canonicalize().unwrap().join(format!("channel-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&source).unwrap();
    for (path, bytes) in objects {
        let path = source.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let config = [("TrainingInputMode".to_owned(), "Pipe".to_owned())].into();
    ChannelSpec { name: "train".into(), source, sharded: false, config, pipe: Some(pipe) }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packing = GzEncoder::new(Vec::new(), Compression::fast());
    packing.write_all(bytes).unwrap();
    packing.finish().unwrap()
}

/// A script that prints what it reads from pipes, in hexadecimal digits.
fn print(pipes: &str) -> AttemptSpec {
    script(&format!("cd $SM_INPUT_DIR/data; for pipe in {pipes}; do od -An -v -tx1 $pipe | tr -d ' '; echo end; done"))
}

/// The digits that such a script printed for each pipe. It prints short lines: a daemon may lose the end of a long one.
fn printed(lines: &[String]) -> Vec<String> {
    let mut pipes: Vec<String> = lines.split(|line| line == "end").map(<[String]>::concat).collect();
    assert_eq!(pipes.pop().as_deref(), Some(""));
    pipes
}

fn bytes(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Reads as the readers of `RecordIO` do: a magic number, a length, the data, zeros up to a multiple of four bytes.
fn records(line: &str) -> Vec<Vec<u8>> {
    let (all, mut records) = (bytes(line), Vec::new());
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4) >> 29), (0xced7_230a, 0));
        let length = word(4) as usize;
        let (record, padding) = rest[8..8 + length.div_ceil(4) * 4].split_at(length);
        assert!(padding.iter().all(|byte| *byte == 0));
        records.push(record.to_vec());
        rest = &rest[8 + length + padding.len()..];
    }
    records
}

/// Runs an attempt to its end.
async fn run(h: &impl ExecutorHarness, spec: &AttemptSpec) -> (Exit, Vec<String>) {
    h.executor().launch(spec).await.unwrap();
    let exit = over(h.executor(), spec.id).await;
    (exit, lines(h.executor(), spec.id).await)
}

/// The lines of an attempt that must go well.
async fn told(h: &impl ExecutorHarness, spec: &AttemptSpec) -> Vec<String> {
    let (exit, lines) = run(h, spec).await;
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 }, "{exit:?} {lines:?}");
    lines
}

/// The processes of an attempt: its supervisor, and what streams.
fn processes(folder: &Path) -> Vec<String> {
    let of_attempt = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let name = folder.to_str().unwrap();
        String::from_utf8_lossy(&command).contains(name).then(|| entry.file_name().to_string_lossy().into_owned())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of_attempt).collect()
}

fn folder(h: &Harness, spec: &AttemptSpec) -> PathBuf {
    h.settings.data_dir.canonicalize().unwrap().join("attempts").join(spec.id.to_string())
}

/// Waits until nothing of an attempt runs any more.
async fn gone(folder: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !processes(folder).is_empty() {
        assert!(Instant::now() < until, "{:?} still run", processes(folder));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Each epoch the whole channel, in the order of the keys, from a pipe of its own, the next one there at the end of each.
pub(super) async fn an_epoch_is_the_whole_channel(h: &mut impl ExecutorHarness) {
    let mut spec = script(
        "cd $SM_INPUT_DIR/data; echo $(ls); for epoch in 0 1 2; do test -p train_$epoch || exit 3; \
         test -e train_$((epoch + 2)) && exit 4; cat train_$epoch; done; echo $(ls); \
         grep -o '\"TrainingInputMode\":\"Pipe\"' $SM_INPUT_DIR/config/inputdataconfig.json",
    );
    let objects: [(&str, &[u8]); 3] = [("b", b"3\n"), ("a/x", b"2\n"), ("a.csv", b"1\n")];
    spec.channels.push(streamed(h.scratch(), &objects, PipeSpec::default()));
    let told = told(h, &spec).await;
    assert_eq!(told[0], "train_0");
    assert_eq!(told[1..10], ["1", "2", "3"].repeat(3));
    assert_eq!(told[10..], ["train_3", "\"TrainingInputMode\":\"Pipe\""], "pipes that were read are gone");
}

/// One object, some, none at all; several channels at once, in any order.
pub(super) async fn channels_are_read_independently(h: &mut impl ExecutorHarness) {
    let mut spec = script(
        "cd $SM_INPUT_DIR/data; cat two_0 > /dev/null; cat two_1 > /dev/null; wc -c < train_0; wc -c < none_0; \
         wc -c < none_1; cat one_0; cat two_2",
    );
    let large = vec![7; 3 << 20];
    spec.channels.push(streamed(h.scratch(), &[("large", &large), ("larger", &large)], PipeSpec::default()));
    spec.channels
        .push(ChannelSpec { name: "two".into(), ..streamed(h.scratch(), &[("x", b"two\n")], PipeSpec::default()) });
    spec.channels.push(ChannelSpec { name: "none".into(), ..streamed(h.scratch(), &[], PipeSpec::default()) });
    let mut one = streamed(h.scratch(), &[("x", b"one\n"), ("y", b"another\n")], PipeSpec::default());
    one.source.push("x");
    spec.channels.push(ChannelSpec { name: "one".into(), ..one });
    assert_eq!(told(h, &spec).await, [&(6 << 20).to_string(), "0", "0", "one", "two"]);
}

pub(super) async fn records_are_framed_and_unpacked(h: &mut impl ExecutorHarness) {
    let magic = 0xced7_230a_u32.to_le_bytes().repeat(2);
    let large = vec![b'x'; 100_000];
    let objects: [(&str, &[u8]); 6] =
        [("a", b""), ("b", b"1"), ("c", b"four"), ("d", &magic), ("e", &large), ("f", b"12345")];
    let zipped: Vec<_> = objects.iter().map(|(name, bytes)| (*name, packed(bytes))).collect();
    let mut zipped: Vec<(&str, &[u8])> = zipped.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    // As two packed files one after the other unpack to both; and what stands for a folder is not packed.
    let twice = [packed(b"12"), packed(b"345")].concat();
    zipped[5].1 = &twice;
    zipped[0].1 = b"";
    let mut spec = print("train_0 zip_0 plain_0 train_1 zip_1");
    let record_io = PipeSpec { record_io: true, ..PipeSpec::default() };
    let gzip = PipeSpec { gzip: true, ..PipeSpec::default() };
    let both = PipeSpec { gzip: true, ..record_io.clone() };
    spec.channels.push(streamed(h.scratch(), &objects, record_io));
    spec.channels.push(ChannelSpec { name: "zip".into(), ..streamed(h.scratch(), &zipped, both) });
    spec.channels.push(ChannelSpec { name: "plain".into(), ..streamed(h.scratch(), &zipped, gzip) });
    let (told, expected) = (printed(&told(h, &spec).await), objects.map(|(_, bytes)| bytes.to_vec()));
    assert_eq!(told.len(), 5);
    assert!(records(&told[0]) == expected && told[3] == told[0], "{:?}", &told[0][..100]);
    assert!(told[1] == told[0] && told[4] == told[0] && bytes(&told[2]) == expected.concat());
}

pub(super) async fn a_list_says_what_is_streamed(h: &mut impl ExecutorHarness) {
    let list = h.scratch().join("list");
    std::fs::write(
        &list,
        "[{\"file\":\"img/2\"},{\"text\":\"1\"}]\n[{\"file\":\"img/1\"},{\"text\":\"{\\\"a\\\": 0}\"}]\n[{\"file\":\"img/2\"}]\n",
    )
    .unwrap();
    let objects: [(&str, &[u8]); 3] = [("img/1", b"one"), ("img/2", b"two"), ("img/3", b"three")];
    let pipe = PipeSpec { list: Some(list), record_io: true, ..PipeSpec::default() };
    let mut spec = print("train_0 train_1 train_2");
    spec.channels.push(streamed(h.scratch(), &objects, pipe));
    let told = printed(&told(h, &spec).await);
    let expected: [&[u8]; 5] = [b"two", b"1", b"one", b"{\"a\": 0}", b"two"];
    assert_eq!(records(&told[0]), expected);
    assert_eq!(told, [told[0].as_str(); 3]);
}

/// A list may name files of several folders, each by its bucket.
pub(super) async fn a_list_may_name_several_buckets(h: &mut impl ExecutorHarness) {
    let list = h.scratch().join("buckets");
    std::fs::write(
        &list,
        "[{\"file\":\"one/x\"},{\"file\":\"two/x\"},{\"text\":\"1\"}]\n[{\"file\":\"two/deep/y\"}]\n",
    )
    .unwrap();
    let one = streamed(h.scratch(), &[("x", b"one")], PipeSpec::default());
    let two = streamed(h.scratch(), &[("x", b"two"), ("deep/y", b"deep")], PipeSpec::default());
    let buckets = [("one".to_owned(), one.source.clone()), ("two".to_owned(), two.source)].into();
    let pipe = PipeSpec { list: Some(list), buckets, record_io: true, ..PipeSpec::default() };
    let mut spec = print("train_0");
    spec.channels.push(ChannelSpec { pipe: Some(pipe), ..one });
    let told = printed(&told(h, &spec).await);
    let expected: [&[u8]; 4] = [b"one", b"two", b"1", b"deep"];
    assert_eq!(records(&told[0]), expected);
}

/// Each epoch another order, the same one for every attempt of the same seed.
pub(super) async fn epochs_are_shuffled_by_the_seed(h: &mut impl ExecutorHarness) {
    let names: Vec<String> = (0..20).map(|i| format!("{i:02} ")).collect();
    let objects: Vec<(&str, &[u8])> = names.iter().map(|name| (name.trim(), name.as_bytes())).collect();
    let mut orders = Vec::new();
    for seed in [7, 7, 8] {
        let mut spec = script("cd $SM_INPUT_DIR/data; for epoch in 0 1 2; do echo $(cat train_$epoch); done");
        let pipe = PipeSpec { shuffle_seed: Some(seed), ..PipeSpec::default() };
        spec.channels.push(streamed(h.scratch(), &objects, pipe));
        orders.push(told(h, &spec).await);
    }
    assert_eq!(orders[0], orders[1]);
    let all: BTreeSet<&String> = orders.iter().flatten().collect();
    assert_eq!(all.len(), 6, "three epochs of two seeds");
    for order in all {
        let mut names: Vec<&str> = order.split(' ').collect();
        names.sort_unstable();
        assert_eq!(names, (0..20).map(|i| format!("{i:02}")).collect::<Vec<_>>());
    }
}

/// A program that reads a part of an epoch has the whole of the next, at once.
pub(super) async fn an_epoch_may_be_left_early(h: &mut impl ExecutorHarness) {
    let large = vec![b'x'; 5 << 20];
    let mut spec = script(
        "cd $SM_INPUT_DIR/data; for epoch in 0 1 2 3 4; do head -c 100 train_$epoch | wc -c; done; wc -c < train_5",
    );
    spec.channels.push(streamed(h.scratch(), &[("a", &large), ("b", &large)], PipeSpec::default()));
    assert_eq!(told(h, &spec).await, ["100", "100", "100", "100", "100", &(10 << 20).to_string()]);
}

/// Whatever a program does with its pipes, its end is the attempt's.
pub(super) async fn no_reader_holds_up_the_end(h: &mut impl ExecutorHarness) {
    let large = vec![b'x'; 5 << 20];
    for text in [
        "exit 5",
        "exec 3< $SM_INPUT_DIR/data/train_0; head -c 10 <&3 > /dev/null; exit 5",
        "(exec 3< $SM_INPUT_DIR/data/train_0; sleep 100) & (cat $SM_INPUT_DIR/data/train_1 > /dev/null) & exit 5",
        "cat $SM_INPUT_DIR/data/train_0 > /dev/null; exit 5",
    ] {
        let mut spec = script(text);
        spec.channels.push(streamed(h.scratch(), &[("a", &large)], PipeSpec::default()));
        let begun = Instant::now();
        let (exit, _) = run(h, &spec).await;
        assert_eq!(exit.cause, ExitCause::Exited { code: 5 }, "{text}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{text}");
        h.executor().remove(spec.id).await.unwrap();
        assert_eq!(h.executor().observe(spec.id).await.unwrap(), Observed::Absent);
    }
    // One that waits for what does not come is stopped as others are.
    let mut spec =
        script("trap 'exit 0' TERM; echo ready; until test -p $SM_INPUT_DIR/data/train_1; do sleep 0.01; done & wait");
    spec.channels.push(streamed(h.scratch(), &[("a", &large)], PipeSpec::default()));
    h.executor().launch(&spec).await.unwrap();
    line(h.executor(), spec.id, "ready").await;
    h.executor().stop(spec.id).await.unwrap();
    assert_eq!(over(h.executor(), spec.id).await.cause, ExitCause::Stopped);
}

/// Data that is not what it should be ends the attempt by name, and never looks like an end to the program.
pub(super) async fn what_cannot_be_streamed_is_told(h: &mut impl ExecutorHarness) {
    let gzip = || PipeSpec { gzip: true, ..PipeSpec::default() };
    let (whole, mut broken) = (packed(b"fine\n"), packed(&vec![b'x'; 100_000]));
    broken.truncate(broken.len() / 2);
    for (objects, pipe, why) in [
        ([("a", whole.as_slice()), ("sub/b", b"plain text")], gzip(), "the object sub/b is no gzip data"),
        ([("a", &whole), ("b", &broken)], gzip(), "the object b is no gzip data"),
        ([("a", &whole), ("b", &broken)], PipeSpec { record_io: true, ..gzip() }, "the object b is no gzip data"),
    ] {
        let mut spec = script("cat $SM_INPUT_DIR/data/train_0 > /dev/null; echo 'that was all'");
        spec.channels.push(streamed(h.scratch(), &objects, pipe));
        let (exit, lines) = run(h, &spec).await;
        let told = matches!(&exit.cause, ExitCause::InputRefused { message }
            if message.contains(why) && message.contains("channel train"));
        assert!(told && lines.is_empty(), "{exit:?} {lines:?}");
        assert!(exit.started_at.is_some());
        let remarks = log(h.executor(), spec.id, 0).await;
        assert!(remarks.iter().any(|record| String::from_utf8_lossy(&record.line).contains(why)), "{remarks:?}");
    }
    // A record has no more bytes than its header can say; holes are quick to make.
    let mut spec = script("cat $SM_INPUT_DIR/data/train_0 > /dev/null; echo 'that was all'");
    let channel = streamed(h.scratch(), &[("a", b"")], PipeSpec { record_io: true, ..PipeSpec::default() });
    std::fs::File::options().write(true).open(channel.source.join("a")).unwrap().set_len(1 << 29).unwrap();
    spec.channels.push(channel);
    let (exit, _) = run(h, &spec).await;
    let told = matches!(&exit.cause, ExitCause::InputRefused { message } if message.contains("536870911 bytes"));
    assert!(told, "{exit:?}");
}

#[tokio::test]
async fn a_list_that_is_gone_is_the_servers_fault() {
    let h = Harness::start();
    let mut spec = script("cat $SM_INPUT_DIR/data/train_0");
    let list = Some(h.scratch().join("none"));
    spec.channels.push(streamed(h.scratch(), &[("a", b"")], PipeSpec { list, ..PipeSpec::default() }));
    let (exit, _) = run(&h, &spec).await;
    assert!(matches!(&exit.cause, ExitCause::Infrastructure { message } if message.contains("train")), "{exit:?}");
}

/// The folder of the pipes may be the program's own: what it puts there is not written to.
#[tokio::test]
async fn a_link_in_the_place_of_a_pipe_is_not_followed() {
    let h = Harness::start();
    let outside = h.scratch().join("outside");
    std::fs::write(&outside, "untouched").unwrap();
    // While the first epoch is not read to its end nobody waits at the second.
    let mut spec = script(
        "cd $SM_INPUT_DIR/data; exec 3< train_0; until test -p train_1; do sleep 0.01; done; rm train_1; \
         ln -s $OUTSIDE train_1; ln -s $OUTSIDE train_2; wc -c <&3; exec 3<&-; \
         until test -p train_1; do sleep 0.01; done; wc -c < train_1; wc -c < train_2",
    );
    spec.environment.insert("OUTSIDE".into(), outside.to_str().unwrap().into());
    spec.channels.push(streamed(h.scratch(), &[("a", &vec![b'x'; 5 << 20])], PipeSpec::default()));
    assert_eq!(told(&h, &spec).await, [(5 << 20).to_string().as_str(); 3]);
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
}

#[tokio::test]
async fn a_program_that_leaves_no_place_for_its_pipes_has_itself_to_blame() {
    let h = Harness::start();
    let mut spec = script(
        "cd $SM_INPUT_DIR/data; exec 3< train_0; until test -p train_1; do sleep 0.01; done; rm train_1; \
         mkdir -p train_1/in; cat <&3 > /dev/null; exec 3<&-; while true; do sleep 0.01; done",
    );
    spec.channels.push(streamed(h.scratch(), &[("a", &vec![b'x'; 5 << 20])], PipeSpec::default()));
    let (exit, _) = run(&h, &spec).await;
    let named = matches!(&exit.cause, ExitCause::InputRefused { message } if message.contains("the pipe train_1"));
    assert!(named, "{exit:?}");

    // One that takes the folder away reads what it has, and nothing more.
    let mut spec = script(
        "cd $SM_INPUT_DIR; exec 3< data/train_0; head -c 10 <&3 > /dev/null; rm -r data; wc -c <&3 | wc -l; \
         test -e data && exit 3; exit 0",
    );
    spec.channels.push(streamed(h.scratch(), &[("a", &vec![b'x'; 5 << 20])], PipeSpec::default()));
    assert_eq!(told(&h, &spec).await, ["1"]);
}

#[tokio::test]
async fn what_streams_ends_with_its_attempt() {
    let h = Harness::start();
    let large = vec![b'x'; 5 << 20];
    let stuck = |text: &str| {
        let mut spec = script(text);
        spec.channels.push(streamed(h.scratch(), &[("a", &large)], PipeSpec::default()));
        spec
    };
    let reading = "exec 3< $SM_INPUT_DIR/data/train_0; echo ready; while true; do sleep 0.01; done";
    // By itself.
    let spec = stuck("exit 0");
    told(&h, &spec).await;
    gone(&folder(&h, &spec)).await;
    // Removed while it runs.
    let spec = stuck(reading);
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    let folder_of = folder(&h, &spec);
    assert_eq!(processes(&folder_of).len(), 2, "the supervisor and what streams");
    h.executor.remove(spec.id).await.unwrap();
    gone(&folder_of).await;
    // With its supervisor.
    let spec = stuck(reading);
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    let folder_of = folder(&h, &spec);
    for process in processes(&folder_of) {
        // The supervisor is the others' parent.
        let parent = |process: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned))
        };
        if processes(&folder_of).iter().any(|other| parent(other).as_deref() == Some(&process)) {
            assert!(std::process::Command::new("kill").args(["-9", &process]).status().unwrap().success());
            break;
        }
    }
    gone(&folder_of).await;
    // A process lets go of its lock a moment after its command line can be seen no more.
    assert_eq!(no_longer_running(&h.executor, spec.id).await, Observed::Lost);
}

#[tokio::test]
async fn an_attempt_without_its_streams_is_an_infrastructure_fault() {
    let h = Harness::start();
    let mut spec = script("exec 3< $SM_INPUT_DIR/data/train_0; echo ready; while true; do sleep 0.01; done");
    spec.channels.push(streamed(h.scratch(), &[("a", &vec![b'x'; 5 << 20])], PipeSpec::default()));
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    let threads = |process: &&String| {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
        tasks.map_or(0, Iterator::count)
    };
    let all = processes(&folder(&h, &spec));
    let streams = all.iter().find(|process| threads(process) > 1).expect("one of them has a thread for the channel");
    assert!(std::process::Command::new("kill").args(["-9", streams]).status().unwrap().success());
    let exit = over(&h.executor, spec.id).await;
    assert!(matches!(&exit.cause, ExitCause::Infrastructure { message } if message.contains("streams")), "{exit:?}");
    assert_eq!(lines(&h.executor, spec.id).await, ["ready"]);
}
