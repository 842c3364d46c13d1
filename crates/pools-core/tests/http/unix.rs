//! Servers on unix sockets.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pools_core::http::{HttpError, OpenError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::{JoinHandle, JoinSet},
};

use crate::support::{BOUND, builder, get, post, until_idle};

/// Answers every request with its own head.
struct UnixServer {
    path: PathBuf,
    accepted: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl UnixServer {
    fn url(&self, path: &str) -> String {
        format!("http+unix://{}{path}", self.path.to_str().unwrap().replace('/', "%2F"))
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        self.accepting.abort();
        // Nobody else knows the path.
        let _gone = std::fs::remove_file(&self.path);
    }
}

fn unix_server() -> UnixServer {
    let name = format!("pools-http-{}-{:x}.sock", std::process::id(), fastrand::u64(..));
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let (accepted, open) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (accepts, opens) = (Arc::clone(&accepted), Arc::clone(&open));
    #[expect(clippy::disallowed_methods, reason = "a server of the test, aborted with it")]
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            accepts.fetch_add(1, Ordering::SeqCst);
            opens.fetch_add(1, Ordering::SeqCst);
            let opens = Arc::clone(&opens);
            connections.spawn(async move {
                let mut seen = Vec::new();
                while matches!(socket.read_buf(&mut seen).await, Ok(1..)) {
                    if seen.windows(4).any(|window| window == b"\r\n\r\n") {
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", seen.len());
                        let answer = [head.as_bytes(), &seen].concat();
                        if socket.write_all(&answer).await.is_err() {
                            break;
                        }
                        seen.clear();
                    }
                }
                opens.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    UnixServer { path, accepted, open, accepting }
}

#[tokio::test]
async fn http_46_a_server_on_a_unix_socket_works_and_is_counted_like_any_host() {
    let server = unix_server();
    let http = builder(|config| config.max_sockets = 2).build();
    for _ in 0..3 {
        let head = get(&http, &server.url("/path?query=1")).await.unwrap();
        assert!(head.starts_with("GET /path?query=1 HTTP/1.1\r\nhost: localhost\r\n"), "{head}");
    }
    until_idle(&http, 1).await;
    let name = format!("unix:{}", server.path.display());
    assert_eq!(http.stats().free_sockets.get(&name), Some(&1), "{:?}", http.stats());
    let held = http.get(&server.url("/")).send().await.unwrap();
    drop(held);
    let (one, two, three) = tokio::join!(
        get(&http, &server.url("/1")),
        get(&http, &server.url("/2")),
        get(&http, &server.url("/3")),
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    until_idle(&http, 2).await;
    assert_eq!(server.accepted.load(Ordering::SeqCst), 2);
    drop(http);
    testkit::until(BOUND, || server.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn http_46_a_unix_socket_that_is_not_there_is_refused_and_leaves_no_entry() {
    let http = builder(|_| {}).build();
    let error = post(&http, "http+unix://%2Fnonexistent%2Fa.sock/").await.unwrap_err();
    let HttpError::Open { host, cause: OpenError::Refused(_), .. } = &error else { panic!("{error:?}") };
    assert_eq!(&**host, "unix:/nonexistent/a.sock");
    until_idle(&http, 0).await;
    assert!(http.stats().sockets.is_empty());
}
