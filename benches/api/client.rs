//! A client that costs little: requests are made beforehand, answers are only counted through.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The bytes of a request for an operation, with a signature as clients send it.
pub fn request(operation: &str, region: &str, body: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nx-amz-target: SageMaker.{operation}\r\n\
         content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AKEXAMPLE/20260101/{region}/sagemaker/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature={:064}\r\n\r\n{body}",
        body.len(),
        0
    )
    .into_bytes()
}

/// A keep-alive connection.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::with_capacity(64 << 10) }
    }

    /// Sends a request and returns the answer's body.
    pub async fn call(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).await.unwrap();
        self.read.clear();
        loop {
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the server hung up");
            let Some(head) = self.read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.read[..head]).unwrap();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().unwrap();
            if self.read.len() >= head + 4 + length {
                let body = &self.read[head + 4..];
                assert!(text.starts_with("HTTP/1.1 200"), "{text}\n{}", String::from_utf8_lossy(body));
                return &self.read[head + 4..];
            }
        }
    }
}

/// What one round of requests took.
pub struct Round {
    pub per_second: f64,
    /// Each request, in milliseconds.
    pub latencies: Vec<f64>,
    /// Bytes of the last answer.
    pub answer: usize,
}

/// Sends all requests over so many connections, each as soon as the one before it is answered.
pub async fn round(address: std::net::SocketAddr, connections: usize, requests: Vec<Vec<u8>>) -> Round {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(address).await);
    }
    let count = requests.len();
    let shares: Vec<Vec<Vec<u8>>> =
        (0..connections).map(|i| requests.iter().skip(i).step_by(connections).cloned().collect()).collect();
    let begun = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .zip(shares)
        .map(|(mut client, share)| {
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(share.len());
                let mut answer = 0;
                for request in &share {
                    let begun = Instant::now();
                    answer = client.call(request).await.len();
                    latencies.push(begun.elapsed().as_secs_f64() * 1e3);
                }
                (latencies, answer)
            })
        })
        .collect();
    let (mut latencies, mut answer) = (Vec::with_capacity(count), 0);
    for task in tasks {
        let (mine, last) = task.await.unwrap();
        latencies.extend(mine);
        answer = last;
    }
    Round { per_second: count as f64 / begun.elapsed().as_secs_f64(), latencies, answer }
}
