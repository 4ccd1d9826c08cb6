//! Accepts connections and serves the router on them, with bounds on what a client may hold up.
//!
//! Invariant: a connection that sends nothing ends by itself, so clients that stall cannot hold the server's connections
//! for ever. When the server stops, requests under way are answered first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How long a request's head may take, and how long a connection may idle between requests. Longer than clients poll.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest head of a request, give or take one read.
const HEAD_BYTES: usize = 64 << 10;
/// Most headers of a request.
const HEADERS: usize = 100;
/// Most connections at once; more wait to be accepted.
const CONNECTIONS: usize = 1024;
/// A rest after the system would give no connection, for example because it has no file descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// Serves until `shutdown` resolves and the requests then under way are answered; how long that may take is the caller's
/// to bound.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, stopped) = watch::channel(());
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        if let Some((stream, slot)) = accepted {
            tokio::spawn(connection(stream, router.clone(), stopped.clone(), slot));
        }
    }
    drop(listener);
    drop(stopped);
    let _ = stop.send(());
    // Each connection holds a receiver until it is over.
    stop.closed().await;
    Ok(())
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small and whole; waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            Some((stream, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_REST).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>, _slot: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    async fn listen() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Sends the bytes and returns all that comes back until the server closes the connection.
    async fn exchange(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_no_whole_head_is_closed() {
        let (listener, address) = listen().await;
        tokio::spawn(serve(listener, Router::new(), pending()));
        for head in ["", "GET / HTTP/1.1\r\nhost: local"] {
            let before = tokio::time::Instant::now();
            exchange(address, head.as_bytes()).await;
            assert!(before.elapsed() >= HEAD_TIMEOUT);
        }
    }

    #[tokio::test]
    async fn a_head_beyond_its_bounds_is_refused() {
        let (listener, address) = listen().await;
        tokio::spawn(serve(listener, Router::new(), pending()));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert!(exchange(address, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(4 * HEAD_BYTES));
        assert!(exchange(address, large.as_bytes()).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_before_the_server_stops() {
        let (listener, address) = listen().await;
        let (begun, has_begun) = oneshot::channel();
        let (go_on, may_go_on) = oneshot::channel::<()>();
        let channels = Arc::new(tokio::sync::Mutex::new(Some((begun, may_go_on))));
        let slow = move || async move {
            let (begun, may_go_on) = channels.lock().await.take().unwrap();
            begun.send(()).unwrap();
            may_go_on.await.unwrap();
            "done"
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(slow));
        let server = tokio::spawn(serve(listener, router, async move { stopped.await.unwrap() }));
        let client = tokio::spawn(exchange(address, REQUEST));
        has_begun.await.unwrap();
        stop.send(()).unwrap();
        go_on.send(()).unwrap();
        assert!(client.await.unwrap().ends_with("done"));
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
