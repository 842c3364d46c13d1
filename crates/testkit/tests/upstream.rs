//! The scripted HTTP server: what it sends, what it counts, how it ends connections.

use std::io::ErrorKind;
use std::time::Duration;

use testkit::{Accept, End, Reply, Upstream, UpstreamOptions, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BOUND: Duration = Duration::from_secs(10);
const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n";

async fn connect(upstream: &Upstream) -> TcpStream {
    TcpStream::connect(upstream.addr()).await.expect("the upstream listens")
}

/// Sends a request and reads to the end of the connection.
async fn ask(socket: &mut TcpStream, request: &[u8]) -> (String, std::io::Result<usize>) {
    let mut answer = Vec::new();
    socket.write_all(request).await.expect("the connection is open");
    let end = socket.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

#[tokio::test]
async fn connections_and_requests_are_counted_and_remembered() {
    let upstream =
        testkit::upstream(|request| Reply::ok(format!("{}/{}", request.connection, request.nth))).await;
    let mut first = connect(&upstream).await;
    let body = b"POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n";
    first.write_all(body).await.unwrap();
    let closing = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let (both, _) = ask(&mut first, closing).await;
    let second = connect(&upstream).await;

    assert!(both.contains("1/1HTTP/1.1 200") && both.ends_with("1/2"), "{both}");
    until(BOUND, || (upstream.accepted(), upstream.open(), upstream.requests()) == (2, 1, 2)).await;
    drop(second);
    until(BOUND, || upstream.open() == 0).await;
    let seen = &upstream.seen()[0];
    assert_eq!(
        (seen.target.as_str(), &seen.body[..], seen.header("host")),
        ("/a?b", &b"abcde"[..], Some("a"))
    );
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_close_is_a_fin() {
    let upstream = testkit::upstream(|request| match request.number {
        1 => Reply::none(End::Reset),
        2 => Reply::new(200).chunks(["abcdef"]).cut_at(5, End::Close),
        _ => Reply::ok("late").delay(Duration::from_millis(1)).slow_head(Duration::from_millis(1)),
    })
    .await;

    let (_, end) = ask(&mut connect(&upstream).await, GET).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (text, end) = ask(&mut connect(&upstream).await, GET).await;
    assert!(end.is_ok() && text.ends_with("\r\n\r\n6\r\nab"), "{text}");
    let mut socket = connect(&upstream).await;
    socket.write_all(GET).await.unwrap();
    until(BOUND, || upstream.in_flight() == 1).await;
    upstream.end_all(End::Reset);
    assert!(ask(&mut socket, b"").await.1.is_err());
}

#[tokio::test]
async fn chunks_trailers_and_bodies_until_close_are_well_formed() {
    let upstream = testkit::upstream(|request| match request.number {
        1 => Reply::new(200).chunks(["ab", "c"]).trailer("t", "1").extra("junk").then(End::Close),
        _ => Reply::ok("all").until_close(),
    })
    .await;

    let (text, _) = ask(&mut connect(&upstream).await, GET).await;
    assert!(text.ends_with("\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nt: 1\r\n\r\njunk"), "{text}");
    let (text, _) = ask(&mut connect(&upstream).await, GET).await;
    assert_eq!(text, "HTTP/1.1 200 Scripted\r\n\r\nall");
}

#[tokio::test]
async fn idle_connections_are_closed_by_time_and_by_order() {
    let options =
        UpstreamOptions { idle_close: Some(Duration::from_millis(30)), ..UpstreamOptions::default() };
    let upstream = testkit::upstream_with(options, |_| Reply::ok("x")).await;
    assert!(ask(&mut connect(&upstream).await, GET).await.0.ends_with("x"));

    let upstream = testkit::upstream(|_| Reply::never()).await;
    let (mut idle, mut busy) = (connect(&upstream).await, connect(&upstream).await);
    busy.write_all(GET).await.unwrap();
    until(BOUND, || upstream.in_flight() == 1 && upstream.open() == 2).await;
    upstream.close_idle();
    assert_eq!(ask(&mut idle, b"").await.0, "");
    assert_eq!(upstream.open(), 1);
    drop(busy);
    until(BOUND, || upstream.open() == 0).await;
}

#[tokio::test]
async fn a_stopped_upstream_refuses_and_a_started_one_serves_again() {
    let upstream = testkit::upstream(|_| Reply::ok("x")).await;
    let mut open = connect(&upstream).await;
    until(BOUND, || upstream.open() == 1).await;

    upstream.stop().await;
    assert!(ask(&mut open, b"").await.0.is_empty());
    assert!(TcpStream::connect(upstream.addr()).await.is_err());
    upstream.start().await;
    upstream.set_accept(Accept::Reset);

    assert!(connect(&upstream).await.read(&mut [0]).await.is_err());
}

#[tokio::test]
async fn a_stopped_reader_takes_nothing_more_and_keeps_the_connection() {
    const PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];
    for end in [End::Hang, End::Stop] {
        let options = UpstreamOptions { answer_early: true, ..UpstreamOptions::default() };
        let upstream = testkit::upstream_with(options, move |_| Reply::ok("early").then(end)).await;
        let mut socket = connect(&upstream).await;
        socket.write_all(b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n").await.unwrap();
        socket.read_exact(&mut [0; 40]).await.unwrap();
        let mut sent = 0;
        while let Ok(bytes) = socket.try_write(&PIECE) {
            sent += bytes as u64;
        }
        if end == End::Hang {
            until(BOUND, || upstream.received() > sent).await;
            continue;
        }
        assert!(upstream.received() < 1_000 && sent > 100_000, "{} of {sent}", upstream.received());
        drop(socket);
        assert_eq!(upstream.open(), 1);
        upstream.end_all(End::Close);
        until(BOUND, || upstream.open() == 0).await;
    }
}
