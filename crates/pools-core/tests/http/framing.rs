//! Where an answer ends, and answers that are wrong about it.

use ::http::Method;
use pools_core::http::HttpError;
use testkit::{End, Reply, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::support::{LIMIT, get, ms, pool, until_idle};

/// Sends two requests; returns the answers and the number of connections it took.
async fn twice(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (String, String, u64) {
    let server = testkit::upstream(script).await;
    let http = pool(|_| {});
    let first = get(&http, &server.url()).await.unwrap();
    let second = get(&http, &server.url()).await.unwrap();
    testkit::until(crate::support::BOUND, || crate::support::counts(&http).0 == 0).await;
    (first, second, server.accepted())
}

/// The error of one request, after which nothing is left of its connection.
async fn refused(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> HttpError {
    let server = testkit::upstream(script).await;
    let http = pool(|config| config.timeout = ms(10_000));
    let error = get(&http, &server.url()).await.unwrap_err();
    until_idle(&http, 0).await;
    assert_eq!((server.accepted(), server.requests()), (1, 1));
    testkit::until(crate::support::BOUND, || server.open() == 0).await;
    error
}

#[tokio::test]
async fn http_08_rst_in_the_body_is_an_error_and_never_a_short_body() {
    let error = refused(|_| Reply::ok("0123456789").cut_at(4, End::Reset)).await;
    assert!(matches!(error, HttpError::Reset { .. }), "{error:?}");
}

#[tokio::test]
async fn http_09_a_close_in_a_chunk_is_an_error_and_never_a_short_body() {
    let error = refused(|_| Reply::new(200).chunks(["abcdef", "ghi"]).cut_at(6, End::Close)).await;
    assert!(matches!(error, HttpError::Truncated { .. }), "{error:?}");
    // After a whole chunk, but without the last one.
    let error = refused(|_| Reply::new(200).chunks(["abc", "def"]).cut_at(8, End::Close)).await;
    assert!(matches!(error, HttpError::Truncated { .. }), "{error:?}");
}

#[tokio::test]
async fn http_13_huge_headers_are_refused() {
    let error = refused(|_| Reply::ok("a").huge_header(10 << 20)).await;
    assert!(matches!(error, HttpError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn http_13_a_head_that_is_too_long_is_refused_as_soon_as_it_is_and_not_collected() {
    // Its end never comes: whoever waited for it would wait until the time-out of ten seconds.
    let head = |bytes| format!("HTTP/1.1 200 OK\r\nx-huge: {}", "h".repeat(bytes));
    let (long, short) = (head(80 << 10), format!("{}\r\ncontent-length: 1\r\n\r\na", head(48 << 10)));
    let error = refused(move |_| Reply::raw(long.clone()).then(End::Hang)).await;
    assert!(matches!(error, HttpError::Protocol { .. }), "{error:?}");
    let (first, second, connections) = twice(move |_| Reply::raw(short.clone())).await;
    assert_eq!((&*first, &*second, connections), ("a", "a", 1));
    // Without end, it is read no further: the server gets rid of what fits into the kernel's buffers, at most.
    let (url, written) = endless_head().await;
    let http = pool(|_| {});
    let error = get(&http, &url).await.unwrap_err();
    assert!(matches!(error, HttpError::Protocol { .. }), "{error:?}");
    until_idle(&http, 0).await;
    let written =
        tokio::time::timeout(crate::support::BOUND, written).await.expect("it is still read").unwrap();
    assert!(written < ENDLESS, "all of it was read");
}

/// More than the kernel buffers on both sides take: 4 MB to send, and 128 kB to receive, which grow only when they are read.
const ENDLESS: usize = 16 << 20;

/// Where to find a server of one connection, and how much of a head it could send, up to [`ENDLESS`].
async fn endless_head() -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "a server of the test, awaited by it")]
    let written = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 1_000]).await.unwrap() > 0);
        socket.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        let mut written = 0;
        while written < ENDLESS && socket.write_all(b"x-more: and more\r\n").await.is_ok() {
            written += 18;
        }
        written
    });
    (url, written)
}

#[tokio::test]
async fn http_14_connection_close_and_http_1_0_are_not_reused_unless_it_says_so() {
    let (.., connections) = twice(|_| Reply::ok("a").header("connection", "close")).await;
    assert_eq!(connections, 2);
    let (.., connections) = twice(|_| Reply::ok("a").header("connection", "foo, Close")).await;
    assert_eq!(connections, 2);
    let (.., connections) = twice(|_| Reply::raw("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na")).await;
    assert_eq!(connections, 2);
    let kept = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na";
    let (.., connections) = twice(move |_| Reply::raw(kept)).await;
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn http_15_a_body_until_close_is_delivered_and_its_connection_not_reused() {
    let (first, _, connections) = twice(|_| Reply::ok("until close").until_close()).await;
    assert_eq!((&*first, connections), ("until close", 2));
}

#[tokio::test]
async fn http_16_extra_bytes_after_a_body_never_reach_the_next_request() {
    for _ in 0..50 {
        let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
        let (_, second, _) = twice(move |request| match request.number {
            1 => Reply::ok("a").extra(forged),
            _ => Reply::ok("right"),
        })
        .await;
        assert_eq!(second, "right");
    }
}

#[tokio::test]
async fn http_17_a_body_shorter_than_its_length_is_truncated() {
    let error = refused(|_| Reply::ok("0123456789").cut_at(4, End::Close)).await;
    assert!(matches!(error, HttpError::Truncated { .. }), "{error:?}");
}

#[tokio::test]
async fn http_18_two_lengths_or_a_length_beside_chunks_are_refused() {
    let error = refused(|_| Reply::new(200).chunks(["abc"]).header("content-length", "3")).await;
    assert!(matches!(error, HttpError::Protocol { .. }), "{error:?}");
    let error = refused(|_| Reply::ok("abc").header("content-length", "4")).await;
    assert!(matches!(error, HttpError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn http_19_trailers_reach_the_caller_and_the_connection_is_reused() {
    let server = testkit::upstream(|_| {
        Reply::new(200).chunks(["abc", "def"]).header("trailer", "x-sum").trailer("x-sum", "6")
    })
    .await;
    let http = pool(|_| {});
    for _ in 0..2 {
        let mut response = http.get(&server.url()).send().await.unwrap();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.unwrap() {
            body.extend_from_slice(&chunk);
        }
        assert_eq!((&*body, response.trailers().unwrap()["x-sum"].as_bytes()), (&b"abcdef"[..], &b"6"[..]));
    }
    until_idle(&http, 1).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn http_20_informational_answers_are_skipped() {
    let answers = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                   HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";
    let (first, second, connections) = twice(move |_| Reply::raw(answers)).await;
    assert_eq!((&*first, &*second, connections), ("final", "final", 1));
}

#[tokio::test]
async fn http_22_answers_without_a_body_free_their_connection_at_once() {
    let server = testkit::upstream(|request| match &*request.target {
        "/304" => Reply::new(304).header("content-length", "7"),
        "/204" => Reply::new(204),
        _ => Reply::ok("not sent for HEAD"),
    })
    .await;
    let http = pool(|_| {});
    for (method, path) in [(Method::HEAD, "/"), (Method::GET, "/204"), (Method::GET, "/304")] {
        let response = http.request(method, &format!("{}{path}", server.url())).send().await.unwrap();
        // The response is still held.
        until_idle(&http, 1).await;
        assert!(response.bytes(LIMIT).await.unwrap().is_empty());
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn http_47_cr_lf_cannot_be_put_into_a_request() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    let error = http.get(&server.url()).header("x", "a\r\ny: b").send().await.unwrap_err();
    assert!(matches!(error, HttpError::Request { what: "header", .. }), "{error:?}");
    let error = http.get(&server.url()).header("x\r\ny", "b").send().await.unwrap_err();
    assert!(matches!(error, HttpError::Request { what: "header", .. }), "{error:?}");
    let error = http.get(&format!("{}/\r\nx: y", server.url())).send().await.unwrap_err();
    assert!(matches!(error, HttpError::Url { .. }), "{error:?}");
    let forged =
        http.post(&server.url()).header("content-length", "1").header("transfer-encoding", "chunked");
    forged.body("whole").send().await.unwrap();
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[0].body[..]), (1, &b"whole"[..]));
    assert!(seen[0].header("transfer-encoding").is_none());
}

#[tokio::test]
async fn a_body_longer_than_the_callers_limit_is_an_error() {
    for chunked in [true, false] {
        let server = testkit::upstream(move |_| match chunked {
            true => Reply::new(200).chunks(["12345", "67890"]),
            false => Reply::ok("1234567890"),
        })
        .await;
        let http = pool(|_| {});
        let error = http.get(&server.url()).send().await.unwrap().bytes(9).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { limit: 9, .. }), "{error:?}");
        until_idle(&http, 1).await;
        assert_eq!(http.get(&server.url()).send().await.unwrap().bytes(10).await.unwrap(), "1234567890");
        until_idle(&http, 1).await;
    }
}
