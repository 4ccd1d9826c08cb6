//! Staging a channel from S3, against the aws CLI's `s3 sync` from the same store.
//!
//! The store is `s3s-fs` (put into `.tools` by `scripts/test`), on this machine: what is compared is what each client
//! makes of a fast store. Ratios carry over to other machines; absolute figures do not.
//!
//!     cargo bench --bench staging
//!     BENCH_OBJECTS=64 BENCH_MIB=8 …       # other sizes

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark"
)]

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tunesmith::config::{Bucket, Channels};
use tunesmith::domain::names::AttemptId;
use tunesmith::objects::{Names, Objects};
use uuid::Uuid;

const KEY: &str = "bench";
const ROUNDS: u32 = 5;

fn main() {
    let setting = |name: &str, otherwise: usize| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (objects, mib) = (setting("BENCH_OBJECTS", 64), setting("BENCH_MIB", 8));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store/lab/in");
    std::fs::create_dir_all(&data).unwrap();
    let mut noise = vec![0; mib << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    for nth in 0..objects {
        std::fs::write(data.join(format!("{nth:05}")), &noise).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut store = serve(&folder.path().join("store"), port);
    println!("{objects} objects of {mib} MiB");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut ratios, mut shared) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        sync(port, &folder.path().join(format!("sync-{round}")));
        let theirs = begun.elapsed().as_secs_f64();
        std::fs::remove_dir_all(folder.path().join(format!("sync-{round}"))).unwrap();
        let root = folder.path().join(format!("root-{round}"));
        let stage = Objects::new(root.clone(), vec![]).unwrap();
        let stage = stage.with_buckets(vec![bucket(port)], "us-east-1", Channels::default()).unwrap();
        let time = |number| {
            let begun = Instant::now();
            let attempt = AttemptId { training_job: Uuid::from_u128(1), number };
            runtime.block_on(stage.stage("s3://lab/in/", &Names::Prefix, attempt, Uuid::from_u128(2))).unwrap();
            begun.elapsed().as_secs_f64()
        };
        let (first, second) = (time(1), time(2));
        println!("s3 sync {theirs:.2} s, the first training job {first:.2} s, the second {:.2} ms", second * 1e3);
        ratios.push(theirs / first);
        shared.push(theirs / second);
        std::fs::remove_dir_all(root).unwrap();
    }
    store.kill().unwrap();
    store.wait().unwrap();
    println!("the first training job stages at {:.2} times the speed of s3 sync (goal: 0.8)", median(ratios));
    println!("the second at {:.0} times (goal: 10)", median(shared));
}

fn serve(folder: &Path, port: u16) -> Child {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/s3s-fs");
    let store = Command::new(binary)
        .args(["--host", "127.0.0.1", "--access-key", KEY, "--secret-key", KEY, "--port", &port.to_string()])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run scripts/test first: it installs the store");
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }
    store
}

fn bucket(port: u16) -> Bucket {
    Bucket {
        name: "lab".into(),
        endpoint: format!("http://127.0.0.1:{port}"),
        region: String::new(),
        access_key_id: KEY.into(),
        secret_access_key: KEY.into(),
        path_style: None,
    }
}

fn sync(port: u16, target: &Path) {
    let aws = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/aws");
    let status = Command::new(aws)
        .args(["--endpoint-url", &format!("http://127.0.0.1:{port}"), "--region", "us-east-1"])
        .args(["s3", "sync", "--only-show-errors", "s3://lab/in"])
        .arg(target)
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", KEY)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .status()
        .unwrap();
    assert!(status.success());
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
