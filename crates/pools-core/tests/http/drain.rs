//! The end of the pool.

use pools_core::{http::HttpError, pool::Pool};
use testkit::Reply;
use tokio::time::Instant;

use crate::support::{BOUND, LIMIT, closed, counts, get, ms, pool, until_idle};

#[tokio::test]
async fn http_42_a_drain_closes_idle_connections_at_once_and_lets_requests_finish() {
    let server = testkit::upstream(|request| match &*request.target {
        "/slow" => Reply::new(200).chunks(["a"; 5]).slow_body(ms(50)),
        _ => Reply::ok("a").delay(ms(20)),
    })
    .await;
    let http = pool(|config| config.max_sockets = 2);
    let (one, two) = tokio::join!(get(&http, &server.url()), get(&http, &server.url()));
    assert!(one.is_ok() && two.is_ok());
    until_idle(&http, 2).await;
    let slow = http.get(&format!("{}/slow", server.url())).send().await.unwrap();
    let reading = async {
        // The idle one leaves while the other is in use.
        testkit::until(BOUND, || counts(&http) == (1, 0, 0, 0)).await;
        let refused = get(&http, &server.url()).await.unwrap_err();
        assert!(matches!(refused, HttpError::Closed { .. }), "{refused:?}");
        slow.bytes(LIMIT).await
    };
    let (drained, body) = tokio::join!(http.drain(Instant::now() + BOUND), reading);
    assert_eq!((drained.cut.len(), body.unwrap().as_ref()), (0, &b"aaaaa"[..]));
    until_idle(&http, 0).await;
    assert_eq!(closed(&http, "drained"), 2);
    testkit::until(BOUND, || server.open() == 0).await;
    assert!(http.drain(Instant::now()).await.cut.is_empty(), "a second drain is harmless");
}

#[tokio::test]
async fn http_42_what_does_not_finish_is_cut_and_named_and_no_socket_is_left() {
    let server = testkit::upstream(|request| match &*request.target {
        "/body" => Reply::new(200).chunks(["a"; 500]).slow_body(ms(20)),
        _ => Reply::never(),
    })
    .await;
    let http = pool(|config| config.max_sockets = 2);
    let response = http.get(&format!("{}/body", server.url())).send().await.unwrap();
    let (drained, body, head, waiting) = tokio::join!(
        async {
            testkit::until(BOUND, || counts(&http) == (2, 0, 0, 1)).await;
            http.drain(Instant::now() + ms(50)).await
        },
        response.bytes(LIMIT),
        get(&http, &server.url()),
        get(&http, &server.url()),
    );
    assert_eq!(drained.cut.len(), 3, "{drained:?}");
    assert!(drained.cut.iter().any(|line| line.starts_with("request of ") && line.contains("drain.rs:")));
    assert!(drained.cut.iter().any(|line| line.starts_with("waiting request of ")), "{drained:?}");
    for error in [body.map(drop), head.map(drop), waiting.map(drop)].map(Result::unwrap_err) {
        assert!(matches!(error, HttpError::Closed { .. }), "{error:?}");
    }
    assert_eq!(counts(&http), (0, 0, 0, 0));
    testkit::until(BOUND, || server.open() == 0).await;
}

#[tokio::test]
async fn dropping_the_pool_closes_its_idle_connections() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    get(&http, &server.url()).await.unwrap();
    assert_eq!(server.open(), 1);
    drop(http);
    testkit::until(BOUND, || server.open() == 0).await;
}
