//! The server closes a connection just when a request goes out on it.

use pools_core::http::HttpError;
use testkit::{End, Reply, Request, Upstream};

use crate::support::{BOUND, closed, counts, get, pool, post, stale_retries, until_idle};

/// The second request of the first connection meets `end` instead of an answer.
async fn server(end: End) -> Upstream {
    testkit::upstream(move |request: &Request| match (request.connection, request.nth) {
        (1, 2) => Reply::none(end),
        _ => Reply::ok(format!("{}/{}", request.connection, request.nth))
            .header("connection-number", &request.connection.to_string()),
    })
    .await
}

async fn get_is_sent_again(end: End) {
    let server = server(end).await;
    let http = pool(|_| {});
    assert_eq!(get(&http, &server.url()).await.unwrap(), "1/1");
    assert_eq!(get(&http, &server.url()).await.unwrap(), "2/1");
    until_idle(&http, 1).await;
    assert_eq!((server.accepted(), server.requests(), stale_retries(&http)), (2, 3, 1));
}

async fn post_is_not(end: End) {
    let server = server(end).await;
    let http = pool(|_| {});
    post(&http, &server.url()).await.unwrap();
    let error = post(&http, &server.url()).await.unwrap_err();
    let HttpError::Stale { at, .. } = &error else { panic!("{error:?}") };
    assert_eq!((&*at.host, at.attempt, at.reused), (&*server.addr().to_string(), 1, true));
    until_idle(&http, 0).await;
    assert_eq!((server.accepted(), server.requests(), stale_retries(&http)), (1, 2, 0));
    assert_eq!(post(&http, &server.url()).await.unwrap(), "2/1", "the pool has not recovered");
}

#[tokio::test]
async fn http_01_a_get_that_meets_fin_on_a_reused_connection_is_sent_again_on_a_fresh_one() {
    get_is_sent_again(End::Close).await;
}

#[tokio::test]
async fn http_02_a_post_that_meets_fin_on_a_reused_connection_is_a_stale_error_and_not_sent_again() {
    post_is_not(End::Close).await;
}

#[tokio::test]
async fn http_03_a_post_that_says_it_may_be_repeated_is_sent_again_with_its_body() {
    for by_header in [true, false] {
        let server = server(End::Close).await;
        let http = pool(|_| {});
        post(&http, &server.url()).await.unwrap();
        let request = http.post(&server.url()).body("the body");
        let request =
            if by_header { request.header("idempotency-key", "1") } else { request.idempotent(true) };
        assert_eq!(request.send().await.unwrap().bytes(9).await.unwrap(), "2/1");
        until_idle(&http, 1).await;
        assert_eq!((server.accepted(), server.requests(), stale_retries(&http)), (2, 3, 1));
        assert_eq!(server.seen()[2].body, "the body");
    }
}

#[tokio::test]
async fn http_03_a_get_that_must_not_be_repeated_is_not() {
    for by_retry in [true, false] {
        let server = server(End::Close).await;
        let http = pool(|_| {});
        get(&http, &server.url()).await.unwrap();
        let request = http.get(&server.url());
        let request = if by_retry { request.no_retry() } else { request.idempotent(false) };
        assert!(matches!(request.send().await, Err(HttpError::Stale { .. })));
        until_idle(&http, 0).await;
        assert_eq!((server.accepted(), server.requests(), stale_retries(&http)), (1, 2, 0));
    }
}

#[tokio::test]
async fn http_04_rst_on_a_reused_connection_is_as_fin() {
    get_is_sent_again(End::Reset).await;
    post_is_not(End::Reset).await;
}

#[tokio::test]
async fn http_04_rst_seen_while_a_large_body_is_written_is_as_fin() {
    for may_be_repeated in [true, false] {
        let options = testkit::UpstreamOptions { answer_early: true, ..Default::default() };
        let server = testkit::upstream_with(options, |request| match (request.connection, request.nth) {
            (1, 2) => Reply::none(End::Reset),
            _ => Reply::ok("a"),
        })
        .await;
        let http = pool(|_| {});
        let body = bytes::Bytes::from(vec![b'x'; 8 << 20]);
        get(&http, &server.url()).await.unwrap();
        let sent = http.post(&server.url()).body(body).idempotent(may_be_repeated).send().await;
        if may_be_repeated {
            assert_eq!(sent.unwrap().bytes(1).await.unwrap(), "a");
            // Answered before the upload was read, the second connection may be closed or kept.
            testkit::until(BOUND, || matches!(counts(&http), (0, 0 | 1, 0, 0))).await;
            assert_eq!((server.accepted(), server.requests(), stale_retries(&http)), (2, 3, 1));
        } else {
            let error = sent.unwrap_err();
            let HttpError::Stale { at, .. } = &error else { panic!("{error:?}") };
            assert_eq!((at.attempt, at.reused), (1, true));
            until_idle(&http, 0).await;
            assert_eq!((server.accepted(), server.requests(), stale_retries(&http)), (1, 2, 0));
        }
        assert_eq!(get(&http, &server.url()).await.unwrap(), "a", "the pool has not recovered");
    }
}

#[tokio::test]
async fn http_05_fin_on_a_fresh_connection_is_an_error_and_not_retried() {
    let server = testkit::upstream(|_| Reply::none(End::Close)).await;
    let http = pool(|_| {});
    let error = get(&http, &server.url()).await.unwrap_err();
    let HttpError::Truncated { at, .. } = &error else { panic!("{error:?}") };
    assert!(!at.reused);
    until_idle(&http, 0).await;
    assert_eq!((server.accepted(), server.requests()), (1, 1));
}

#[tokio::test]
async fn http_01_a_stale_connection_condemns_those_that_were_idle_for_longer() {
    let server = server(End::Close).await;
    let http = pool(|_| {});
    let url = server.url();
    let both = tokio::join!(http.get(&url).send(), http.get(&url).send());
    let (mut below, mut above) = (both.0.unwrap(), both.1.unwrap());
    if below.headers()["connection-number"] == "1" {
        std::mem::swap(&mut below, &mut above);
    }
    // Read last, the connection that will be dead is on top.
    below.bytes(9).await.unwrap();
    above.bytes(9).await.unwrap();
    until_idle(&http, 2).await;
    assert_eq!(get(&http, &url).await.unwrap(), "3/1");
    until_idle(&http, 1).await;
    assert_eq!((stale_retries(&http), closed(&http, "invalidated")), (1, 1));
}
