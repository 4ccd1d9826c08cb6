//! What becomes of attempts when their daemon is restarted, breaks off, falls silent, or takes its time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::VolumeListResponse;
use bollard::query_parameters::ListVolumesOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::executor::docker::Pull;
use tunesmith::executor::{AttemptSpec, Executor, ExecutorError, Observed};

use super::docker::{is_infrastructure, told};
use crate::support::docker::{Daemon, Harness, address, containers, import};
use crate::support::executor_harness::{ExecutorHarness, PATIENCE, channel, line, lines, over, script};

/// An attempt whose daemon is restarted after a line of its log; what became of it. Where it outlives its daemon it is
/// told to go on.
pub(super) async fn restarted_after(
    daemon: &mut Daemon,
    h: &Harness,
    spec: &AttemptSpec,
    heard: &str,
    outlives: bool,
) -> (Exit, Vec<String>) {
    h.executor.launch(spec).await.unwrap();
    line(&h.executor, spec.id, heard).await;
    daemon.stop();
    daemon.start_again().await;
    if outlives {
        h.tell(spec.id, "go").await;
    }
    let exit = over(&h.executor, spec.id).await;
    (exit, lines(&h.executor, spec.id).await)
}

async fn over_a_restart(live_restore: bool) -> (Exit, Vec<String>) {
    let mut daemon = Daemon::start(live_restore).await;
    let h = Harness::at(daemon.address(), |settings| settings.network = "none".into()).await;
    let spec = script(
        "trap 'exit 0' TERM; i=0; until test -e $SM_OUTPUT_DIR/go; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last",
    );
    let (exit, said) = restarted_after(&mut daemon, &h, &spec, "line 20", live_restore).await;
    h.executor.remove(spec.id).await.unwrap();
    drop(h);
    (exit, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_restarted_and_ends_its_containers_is_an_infrastructure_fault() {
    let (exit, said) = over_a_restart(false).await;
    assert!(is_infrastructure(&exit, "the Docker daemon was restarted"), "{exit:?}");
    assert!(said.contains(&"line 20".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_restarted_beneath_its_containers_changes_nothing() {
    let (exit, said) = over_a_restart(true).await;
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 }, "{exit:?}");
    let (last, counted) = said.split_last().unwrap();
    assert_eq!(last, "last");
    assert_eq!(*counted, (1..=counted.len()).map(|i| format!("line {i}")).collect::<Vec<_>>());
}

/// Stands between an executor and the daemon. It cuts their connections when it is told to, and does to requests what it
/// is told.
struct Between {
    folder: tempfile::TempDir,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    rules: Rules,
    /// A request was kept from the daemon.
    held: Arc<Notify>,
    /// Requests that come late may come.
    late: Arc<Notify>,
}

type Rules = Arc<Mutex<Vec<Rule>>>;

/// What becomes of requests that have all of some texts in their heads.
struct Rule {
    texts: Vec<&'static str>,
    fate: Fate,
    /// For how many of them.
    times: usize,
}

#[derive(Clone, Copy)]
enum Fate {
    /// The daemon never sees it.
    Held,
    /// The daemon sees it once that is let go, whether the client still waits or not.
    Late,
    /// The connection ends after so many bytes of the answer.
    CutAfter(usize),
    /// The same, but only after a while in which nothing comes.
    CutSlowly(usize, Duration),
}

impl Between {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let between = Self {
            folder,
            connections: Arc::default(),
            rules: Arc::default(),
            held: Arc::default(),
            late: Arc::default(),
        };
        let listener = UnixListener::bind(between.folder.path().join("docker.sock")).unwrap();
        let connections = Arc::clone(&between.connections);
        let (rules, held, late) = (Arc::clone(&between.rules), Arc::clone(&between.held), Arc::clone(&between.late));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = tokio::spawn(carry(client, Arc::clone(&rules), Arc::clone(&held), Arc::clone(&late)));
                connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection.abort_handle());
            }
        });
        between
    }

    fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    fn rule(&self, texts: &[&'static str], fate: Fate, times: usize) {
        self.rules.lock().unwrap().push(Rule { texts: texts.to_vec(), fate, times });
    }

    fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

/// Carries one connection's bytes to and fro.
async fn carry(client: UnixStream, rules: Rules, held: Arc<Notify>, late: Arc<Notify>) {
    let daemon = UnixStream::connect(address().trim_start_matches("unix://")).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_daemon, mut to_daemon)) =
        (client.into_split(), daemon.into_split());
    let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut left, mut slowly) = (usize::MAX, Duration::ZERO);
    while left > 0 {
        tokio::select! {
            read = from_client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                match fate_of(&request[..length], &rules) {
                    Some(Fate::Held) => {
                        held.notify_one();
                        std::future::pending::<()>().await;
                    }
                    Some(Fate::Late) => {
                        held.notify_one();
                        late.notified().await;
                    }
                    Some(Fate::CutAfter(bytes)) => left = bytes,
                    Some(Fate::CutSlowly(bytes, after)) => (left, slowly) = (bytes, after),
                    None => {}
                }
                if to_daemon.write_all(&request[..length]).await.is_err() {
                    return;
                }
            }
            read = from_daemon.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                let length = length.min(left);
                left -= if left == usize::MAX { 0 } else { length };
                if to_client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
    tokio::time::sleep(slowly).await;
}

fn fate_of(request: &[u8], rules: &Rules) -> Option<Fate> {
    let head = String::from_utf8_lossy(&request[..request.len().min(2000)]).into_owned();
    let mut rules = rules.lock().unwrap();
    let rule = rules.iter_mut().find(|rule| rule.times > 0 && rule.texts.iter().all(|text| head.contains(text)))?;
    rule.times -= 1;
    Some(rule.fate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_and_comes_back_changes_nothing() {
    let between = Between::start();
    let h = Harness::with(|settings| settings.address = between.address()).await;
    let live_restore = h.docker.info().await.unwrap().live_restore_enabled;
    assert_eq!(live_restore, Some(false), "with it the daemon is trusted whatever happens");
    let spec = script("i=0; until test -e $SM_OUTPUT_DIR/go; do i=$((i+1)); echo line $i; sleep 0.01; done; echo last");
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "line 20").await;
    between.cut();
    let said = lines(&h.executor, spec.id).await.len();
    // More than may have been under way: it is looked after again.
    line(&h.executor, spec.id, &format!("line {}", said + 100)).await;
    h.tell(spec.id, "go").await;
    let exit = over(&h.executor, spec.id).await;
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 }, "{exit:?}");
    let said = lines(&h.executor, spec.id).await;
    let (last, counted) = said.split_last().unwrap();
    assert_eq!(last, "last");
    assert_eq!(*counted, (1..=counted.len()).map(|i| format!("line {i}")).collect::<Vec<_>>());
    h.executor.remove(spec.id).await.unwrap();
    drop(h);
}

/// Has an attempt stopped while one of its requests to the daemon takes for ever; what it came to.
async fn stopped_meanwhile(h: &Harness, spec: &AttemptSpec, between: &Between) -> Observed {
    let stop = async {
        between.held.notified().await;
        h.executor.stop(spec.id).await.unwrap();
    };
    let launch = async { tokio::join!(h.executor.launch(spec), stop).0 };
    tokio::time::timeout(PATIENCE, launch).await.expect("the stop is heard").unwrap();
    h.executor.observe(spec.id).await.unwrap()
}

/// The volumes of a harness' data directory.
async fn volumes(h: &Harness, spec: &AttemptSpec) -> Vec<String> {
    let prefix = h.container_name(spec.id).replace(&spec.id.to_string(), "");
    let filters = Some([("name".to_owned(), vec![prefix])].into());
    let VolumeListResponse { volumes, .. } = h.docker.list_volumes(Some(ListVolumesOptions { filters })).await.unwrap();
    volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_heard_while_an_image_is_pulled() {
    let between = Between::start();
    let h = Harness::with(|settings| (settings.address, settings.pull) = (between.address(), Pull::Always)).await;
    between.rule(&["POST ", "/images/create?"], Fate::Held, 1);
    let spec = script("");
    let observed = stopped_meanwhile(&h, &spec, &between).await;
    assert!(matches!(&observed, Observed::Exited(exit) if exit.cause == ExitCause::Stopped), "{observed:?}");
    // It is over for good.
    h.executor.launch(&spec).await.unwrap();
    assert_eq!(h.executor.observe(spec.id).await.unwrap(), observed);
    assert_eq!(containers(&h.docker, &format!("tunesmith.attempt={}", spec.id)).await, Vec::<String>::new());
    drop(h);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_heard_while_a_channel_is_uploaded_and_nothing_of_it_stays() {
    let between = Between::start();
    let h = Harness::with(|settings| settings.address = between.address()).await;
    between.rule(&["PUT ", "/archive?", "tunesmith-channel"], Fate::Held, 1);
    let mut spec = script("cat /opt/ml/input/data/train/data.csv");
    spec.channels.push(channel(h.scratch(), "train", "rows\n"));
    let observed = stopped_meanwhile(&h, &spec, &between).await;
    assert!(matches!(&observed, Observed::Exited(exit) if exit.cause == ExitCause::Stopped), "{observed:?}");
    let half = volumes(&h, &spec).await;
    assert_eq!(half.len(), 1, "what it was filling: {half:?}");
    h.executor.remove(spec.id).await.unwrap();
    h.executor.remove_channels().await.unwrap();
    assert_eq!(volumes(&h, &spec).await, Vec::<String>::new());
    assert_eq!(containers(&h.docker, &format!("tunesmith.fills={}", half[0])).await, Vec::<String>::new());

    let again = AttemptSpec { id: script("").id, ..spec };
    assert_eq!(told(&h, &again).await, ["rows"], "another fills it");
    drop(h);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_makes_that_comes_after_its_stop_is_found() {
    let between = Between::start();
    let h = Harness::with(|settings| settings.address = between.address()).await;
    between.rule(&["POST ", "/containers/create?", "-channel-"], Fate::Late, 1);
    let mut spec = script("");
    spec.channels.push(channel(h.scratch(), "train", "rows\n"));
    let observed = stopped_meanwhile(&h, &spec, &between).await;
    assert!(matches!(&observed, Observed::Exited(exit) if exit.cause == ExitCause::Stopped), "{observed:?}");
    let filled = volumes(&h, &spec).await;
    h.executor.remove(spec.id).await.unwrap();
    h.executor.remove_channels().await.unwrap();
    assert_eq!(volumes(&h, &spec).await, Vec::<String>::new());
    // A container is made to fill a volume that is gone, and with it the volume.
    between.late.notify_one();
    let fillers = async || containers(&h.docker, &format!("tunesmith.fills={}", filled[0])).await;
    let until = Instant::now() + PATIENCE;
    while fillers().await.is_empty() {
        assert!(Instant::now() < until, "the request comes");
    }
    // A daemon that lists it may not have come to its end with it.
    while !(fillers().await.is_empty() && volumes(&h, &spec).await.is_empty()) {
        h.executor.remove_channels().await.unwrap();
        assert!(Instant::now() < until, "{:?} {:?}", fillers().await, volumes(&h, &spec).await);
    }
    drop(h);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_falls_silent_is_given_up_and_asked_again() {
    let between = Between::start();
    let h = Harness::with(|settings| {
        (settings.address, settings.patience) = (between.address(), Duration::from_secs(2));
    })
    .await;
    let spec = script("echo kept > $SM_MODEL_DIR/m");
    told(&h, &spec).await;
    between.rule(&["GET ", "/archive?", "model"], Fate::Held, 1);
    let collected = tokio::time::timeout(PATIENCE, h.executor.outputs(spec.id)).await.expect("it gives up");
    assert!(matches!(&collected, Err(ExecutorError::Infrastructure { .. })), "{collected:?}");
    let outputs = h.executor.outputs(spec.id).await.unwrap();
    assert_eq!(std::fs::read_to_string(outputs.model.join("m")).unwrap(), "kept\n");

    // Nor does an upload wait for ever.
    between.rule(&["PUT ", "/archive?"], Fate::Held, 1);
    let launched = tokio::time::timeout(PATIENCE, h.executor.launch(&script(""))).await.expect("it gives up");
    assert!(matches!(&launched, Err(ExecutorError::Infrastructure { .. })), "{launched:?}");
    drop(h);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_falls_silent_while_a_container_runs_is_out_of_reach() {
    let between = Between::start();
    let h = Harness::with(|settings| {
        (settings.address, settings.patience) = (between.address(), Duration::from_secs(2));
    })
    .await;
    let spec = script("echo ready; until test -e $SM_OUTPUT_DIR/go; do sleep 0.01; done");
    h.executor.launch(&spec).await.unwrap();
    line(&h.executor, spec.id, "ready").await;
    between.rule(&[], Fate::Held, usize::MAX);
    let exit = over(&h.executor, spec.id).await;
    assert!(is_infrastructure(&exit, "was out of reach for 2 s"), "{exit:?}");
    between.rules.lock().unwrap().clear();
    h.executor.remove(spec.id).await.unwrap();
    drop(h);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_come_though_the_daemon_breaks_off_as_the_container_ends() {
    let between = Between::start();
    let h = Harness::with(|settings| settings.address = between.address()).await;
    between.rule(&["/logs?", "follow=true"], Fate::CutAfter(0), usize::MAX);
    between.rule(&["/logs?", "follow=false"], Fate::CutAfter(30_000), 2);
    let said = told(&h, &script("seq 5000; echo warned >&2")).await;
    let (out, err): (Vec<_>, Vec<_>) = said.into_iter().partition(|line| line != "warned");
    assert_eq!((out, err.len()), ((1..=5000).map(|n| n.to_string()).collect::<Vec<_>>(), 1));
    drop(h);
}

/// Nor does it take longer than the daemon may be away to get past what the log has no room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_is_read_to_its_end_though_the_daemon_breaks_off_again_and_again() {
    let between = Between::start();
    let h = Harness::with(|settings| {
        (settings.address, settings.patience) = (between.address(), Duration::from_secs(1));
        settings.max_log_bytes = 1000;
    })
    .await;
    between.rule(&["/logs?", "follow=true"], Fate::CutAfter(0), usize::MAX);
    between.rule(&["/logs?", "follow=false"], Fate::CutSlowly(8_000, Duration::from_millis(500)), 60);
    // Seconds apart, since what a second holds is asked for as a whole.
    let text =
        "for s in 1 2 3 4 5 6; do seq 40 | sed 's/$/ 0123456789/' >&2; sleep 1.1; done; echo the end >&2; exit 3";
    let spec = script(text);
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert_eq!((exit.cause, exit.stderr_tail.ends_with("the end")), (ExitCause::Exited { code: 3 }, true));
    drop(h);
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_an_image_declares_are_bounded_and_leave_with_it() {
    let daemon = Daemon::start(false).await;
    let h = Harness::at(daemon.address(), |settings| settings.network = "none".into()).await;
    let entry = r#"ENTRYPOINT ["/bin/sh", "-c", "eval \"$SM_HP_SCRIPT\"", "job"]"#;
    import(&h.docker, "tunesmith-test/volume:1", &format!("VOLUME /scratch\n{entry}")).await;
    let mut spec = script(
        "cat /opt/ml/input/data/train/data.csv; head -c 60000000 /dev/zero > /scratch/big; echo written; \
         while true; do sleep 0.1; done",
    );
    (spec.image, spec.volume_bytes) = ("tunesmith-test/volume:1".into(), Some(16 << 20));
    spec.channels.push(channel(h.scratch(), "train", "rows\n"));
    h.executor.launch(&spec).await.unwrap();
    let exit = over(&h.executor, spec.id).await;
    assert!(matches!(&exit.cause, ExitCause::OverLimit { message } if message.contains("16777216")), "{exit:?}");
    assert_eq!(lines(&h.executor, spec.id).await[0], "rows");
    h.executor.remove(spec.id).await.unwrap();
    h.executor.remove_channels().await.unwrap();
    let left = h.docker.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes.unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    drop(h);
}
