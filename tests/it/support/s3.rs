//! A server of S3's protocol that this project did not write, over a folder of its own.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tunesmith::config::Bucket;

pub const ACCESS_KEY: &str = "tests";
pub const SECRET_KEY: &str = "not-so-secret";

/// How long it may take to listen.
const BOUND: Duration = Duration::from_secs(30);

pub struct S3Server {
    pub endpoint: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl S3Server {
    pub fn start() -> Self {
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/s3s-fs");
        assert!(binary.is_file(), "{} is missing: run scripts/test, which installs it", binary.display());
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Free a moment ago; another process that takes it first makes the test fail, loudly.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let child = Command::new(binary)
            .args(["--host", "127.0.0.1", "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg("--port")
            .arg(port.to_string())
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the S3 server starts");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < BOUND, "the S3 server does not listen");
            std::thread::yield_now();
        }
        Self { endpoint: format!("http://127.0.0.1:{port}"), folder, child }
    }

    /// The folder of a bucket, made where it is missing.
    pub fn bucket(&self, name: &str) -> PathBuf {
        let bucket = self.folder.path().join(name);
        std::fs::create_dir_all(&bucket).expect("a bucket");
        bucket
    }

    /// Puts an object there, past the server.
    pub fn put(&self, bucket: &str, key: &str, text: &str) {
        let path = self.bucket(bucket).join(key);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes())).expect("an object");
    }

    /// The settings by which a bucket of it is reached.
    pub fn settings(&self, name: &str) -> Bucket {
        Bucket {
            name: name.into(),
            endpoint: self.endpoint.clone(),
            region: String::new(),
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: SECRET_KEY.into(),
            path_style: None,
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
