//! Bodies that nobody reads to the end.

use bytes::Bytes;
use testkit::{End, Reply, UpstreamOptions};

use crate::support::{closed, counts, get, kernel_sockets, ms, pool, until_idle};

/// Takes the head of `/body`, maybe a piece of it, drops the rest and sends another request.
async fn abandoned(reply: Reply, read_some: bool) -> (u64, u64) {
    let server = testkit::upstream(move |request| match &*request.target {
        "/body" => reply.clone(),
        _ => Reply::ok("next"),
    })
    .await;
    let http = pool(|config| config.max_sockets = 1);
    let mut response = http.get(&format!("{}/body", server.url())).send().await.unwrap();
    if read_some {
        assert!(response.chunk().await.unwrap().is_some());
    }
    drop(response);
    assert_eq!(get(&http, &server.url()).await.unwrap(), "next");
    until_idle(&http, 1).await;
    (server.accepted(), closed(&http, "unfinished"))
}

#[tokio::test]
async fn http_23_a_small_rest_is_drained_and_a_big_or_slow_one_closes_the_connection() {
    let small = || vec![Bytes::from(vec![b'x'; 4_000]); 2];
    assert_eq!(abandoned(Reply::new(200).chunks(small()), true).await, (1, 0));
    let big = vec![Bytes::from(vec![b'x'; 20_000]); 10];
    assert_eq!(abandoned(Reply::new(200).chunks(big), true).await, (2, 1));
    assert_eq!(abandoned(Reply::new(200).chunks(small()).slow_body(ms(200)), true).await, (2, 1));
    assert_eq!(abandoned(Reply::new(200).chunks(small()).cut_at(4_010, End::Hang), true).await, (2, 1));
}

#[tokio::test]
async fn http_24_a_response_dropped_unread_is_drained_or_closed() {
    assert_eq!(abandoned(Reply::ok(vec![b'x'; 8_000]), false).await, (1, 0));
    assert_eq!(abandoned(Reply::ok(vec![b'x'; 1 << 20]), false).await, (2, 1));
    assert_eq!(abandoned(Reply::ok("until close").until_close(), false).await, (2, 1));
}

#[test]
fn http_24_a_response_may_be_dropped_outside_the_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (http, server, response) = runtime.block_on(async {
        let server = testkit::upstream(|_| Reply::ok(vec![b'x'; 8_000])).await;
        let http = pool(|_| {});
        let response = http.get(&server.url()).send().await.unwrap();
        (http, server, response)
    });
    drop(response);
    runtime.block_on(async {
        until_idle(&http, 1).await;
        assert_eq!(server.accepted(), 1);
    });
}

#[tokio::test]
async fn http_21_a_large_upload_that_is_refused_early_sees_the_refusal() {
    for end in [End::Close, End::Hang, End::Stop, End::HalfClose, End::KeepAlive] {
        let options = UpstreamOptions { answer_early: true, ..Default::default() };
        let server = testkit::upstream_with(options, move |request| match &*request.target {
            "/upload" => Reply::new(413).body("too much").then(end),
            _ => Reply::ok("next"),
        })
        .await;
        let http = pool(|config| config.max_sockets = 1);
        for _ in 0..5 {
            let body = Bytes::from(vec![b'x'; 10 << 20]);
            let response = http.post(&format!("{}/upload", server.url())).body(body).send().await;
            let response = response.unwrap_or_else(|error| panic!("{end:?}: {error:?}"));
            assert_eq!(response.status().as_u16(), 413, "{end:?}");
            assert_eq!(response.bytes(9).await.unwrap(), "too much", "{end:?}");
            // At once: long before anything is late.
            testkit::until(ms(2_000), || counts(&http).0 == 0).await;
            if end == End::Stop {
                until_idle(&http, 0).await;
                assert_eq!(
                    kernel_sockets(server.addr().port()),
                    0,
                    "the place was free before its socket was closed"
                );
            }
            assert_eq!(get(&http, &server.url()).await.unwrap(), "next", "{end:?}");
        }
        until_idle(&http, 1).await;
        assert_eq!(server.requests(), 10, "{end:?}");
        if end == End::Stop {
            // Each upload costs its connection, and nobody tells the server so.
            assert_eq!((server.accepted(), server.open(), closed(&http, "unfinished")), (6, 6, 5));
        }
    }
}
