//! What ends a request that does not end by itself.

use pools_core::http::HttpError;
use testkit::{End, Reply};
use tokio::time::Instant;

use crate::support::{BOUND, LIMIT, get, ms, pool, until_idle};

#[tokio::test]
async fn http_10_a_server_that_never_answers_is_a_head_time_out_and_its_place_is_free() {
    let server = testkit::upstream(|_| Reply::never()).await;
    let http = pool(|config| config.max_sockets = 1);
    for _ in 0..2 {
        let error = http.get(&server.url()).head_timeout(ms(50)).send().await.unwrap_err();
        assert!(matches!(error, HttpError::Head { .. }) && error.is_timeout(), "{error:?}");
    }
    until_idle(&http, 0).await;
    testkit::until(BOUND, || server.open() == 0).await;
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn http_11_a_head_that_trickles_in_is_late_all_the_same() {
    let server = testkit::upstream(|_| Reply::ok("a").slow_head(ms(20))).await;
    let http = pool(|_| {});
    let started = Instant::now();
    let error = http.get(&server.url()).head_timeout(ms(200)).send().await.unwrap_err();
    assert!(matches!(error, HttpError::Head { .. }), "{error:?}");
    assert!(started.elapsed() >= ms(200));
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_12_a_stalled_body_is_an_error_and_a_slow_steady_one_is_not() {
    let server = testkit::upstream(|request| match &*request.target {
        "/stalled" => Reply::new(200).chunks(["abc", "def"]).cut_at(8, End::Hang),
        _ => Reply::new(200).chunks(["a"; 8]).slow_body(ms(60)),
    })
    .await;
    let http = pool(|config| config.timeout = ms(300));
    let response = http.get(&format!("{}/stalled", server.url())).send().await.unwrap();
    let error = response.bytes(LIMIT).await.unwrap_err();
    assert!(matches!(error, HttpError::BodyIdle { .. }), "{error:?}");
    until_idle(&http, 0).await;
    // Eight pieces, 60 ms each: longer than the limit in all, never in between.
    assert_eq!(get(&http, &server.url()).await.unwrap(), "aaaaaaaa");
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_50_silence_in_both_directions_ends_the_request() {
    let server = testkit::upstream(|_| Reply::never()).await;
    let http = pool(|config| config.timeout = ms(100));
    let error = get(&http, &server.url()).await.unwrap_err();
    assert!(matches!(error, HttpError::Head { .. }) && error.is_timeout(), "{error:?}");
    until_idle(&http, 0).await;
    // A head that trickles is not silence.
    let slow = testkit::upstream(|_| Reply::ok("a").slow_head(ms(10))).await;
    assert_eq!(get(&http, &slow.url()).await.unwrap(), "a");
}

#[tokio::test]
async fn the_callers_deadline_ends_the_wait_the_head_and_the_body() {
    let server = testkit::upstream(|request| match &*request.target {
        "/head" => Reply::never(),
        _ => Reply::new(200).chunks(["a"; 100]).slow_body(ms(20)),
    })
    .await;
    let http = pool(|config| config.max_sockets = 1);
    let soon = || Instant::now() + ms(100);
    let url = |path: &str| format!("{}{path}", server.url());

    let error = http.get(&url("/head")).deadline(soon()).send().await.unwrap_err();
    assert!(matches!(error, HttpError::Deadline { phase: "head", .. }), "{error:?}");
    let held = http.get(&url("/body")).send().await.unwrap();
    let error = http.get(&url("/body")).deadline(soon()).send().await.unwrap_err();
    let HttpError::Wait { busy: 1, opening: 0, longest: Some(longest), .. } = &error else {
        panic!("{error:?}")
    };
    assert!(longest.site.contains("time.rs") && error.is_busy() && error.is_timeout(), "{longest}");
    drop(held);
    let response = http.get(&url("/body")).deadline(soon()).send().await.unwrap();
    let error = response.bytes(LIMIT).await.unwrap_err();
    assert!(matches!(error, HttpError::Deadline { phase: "body", .. }), "{error:?}");
    until_idle(&http, 0).await;
}
