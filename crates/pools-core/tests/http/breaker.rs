//! Bursts of failures: what they cost the upstream, and how it is found again.

#![allow(clippy::disallowed_methods, reason = "tests own their tasks")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use pools_core::http::{BreakerPolicy, HttpError, Policy, Upstream};
use testkit::{End, Reply};
use tokio::time::Instant;

use crate::{
    policy::{answer, quick, sample, upstream},
    support::{BOUND, ms, pool, until_idle},
};

/// Answers 503 while told so, else 200.
async fn moody() -> (testkit::Upstream, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(true));
    let mood = Arc::clone(&ill);
    let server = testkit::upstream(move |_| match mood.load(SeqCst) {
        true => Reply::new(503).delay(ms(2)),
        false => Reply::ok("well").delay(ms(2)),
    });
    (server.await, ill)
}

/// `calls` requests, twenty at a time.
async fn calls(peer: &Upstream, calls: usize) -> Vec<Result<(u16, String), HttpError>> {
    stream::iter((0..calls).map(|_| answer(peer.get("/")))).buffered(20).collect().await
}

fn breaks(pause: Duration) -> Policy {
    let breaker = BreakerPolicy { failures: 5, pause, ..BreakerPolicy::default() };
    Policy { breaker: Some(breaker), ..quick() }
}

#[tokio::test]
async fn http_40_a_burst_of_503_costs_the_upstream_a_fifth_more_at_the_most() {
    let (server, ill) = moody().await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), quick());
    let answers = calls(&peer, 500).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().0 == 503));
    let seen = server.requests();
    assert!((510..=600).contains(&seen), "500 calls made {seen} requests");
    assert_eq!(sample(&http, "pools_http_retries_total"), f64::from(u32::try_from(seen).unwrap() - 500));
    assert!(sample(&http, "pools_http_retries_refused_total") > 0.0);
    ill.store(false, SeqCst);
    assert!(calls(&peer, 50).await.iter().all(|answer| answer.as_ref().unwrap().0 == 200));
    assert_eq!(server.requests(), seen + 50);
    until_idle(&http, http.stats().free_sockets.values().sum()).await;
}

#[tokio::test]
async fn http_40_the_breaker_opens_lets_one_request_try_and_closes_again() {
    let (server, ill) = moody().await;
    let http = pool(|_| {});
    let pause = ms(500);
    let peer = upstream(&http, &server.url(), breaks(pause));
    let state = || sample(&http, "pools_http_breaker_state");

    let answers = calls(&peer, 200).await;
    // Those already under way when the fifth failed, at twenty at a time.
    assert!(server.requests() <= 5 + 20, "{} requests", server.requests());
    let kept_back = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(kept_back >= 170, "{kept_back}");
    let counted = sample(&http, "pools_http_breaker_refused_total");
    assert_eq!(counted, f64::from(u32::try_from(kept_back).unwrap()));
    let error = answers.into_iter().find_map(Result::err).unwrap();
    let HttpError::BreakerOpen { upstream: "peer", until, .. } = &error else { panic!("{error:?}") };
    assert!(error.is_open_breaker() && error.retry_after().unwrap() <= pause);
    assert_eq!((state(), sample(&http, "pools_http_breaker_opened_total")), (2.0, 1.0));

    // Still ill: of fifty who come when the pause is over, one is sent and the rest learn from it.
    tokio::time::sleep_until(*until + ms(1)).await;
    let before = server.requests();
    assert_eq!(calls(&peer, 50).await.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!((server.requests() - before, state()), (1, 2.0));

    ill.store(false, SeqCst);
    testkit::until_async(BOUND, async || answer(peer.get("/")).await.is_ok()).await;
    assert_eq!(state(), 0.0);
    assert!(calls(&peer, 50).await.iter().all(|answer| answer.as_ref().unwrap().0 == 200));
    assert_eq!(sample(&http, "pools_http_breaker_opened_total"), 1.0);
}

#[tokio::test]
async fn a_probe_that_is_dropped_lets_the_next_caller_try() {
    let frozen = Arc::new(AtomicBool::new(true));
    let is_frozen = Arc::clone(&frozen);
    let server = testkit::upstream(move |request| match &*request.target {
        "/ill" => Reply::new(503),
        _ if is_frozen.load(SeqCst) => Reply::never(),
        _ => Reply::ok("well"),
    })
    .await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), breaks(ms(50)));
    while answer(peer.get("/ill")).await.is_ok() {}
    let probe = tokio::spawn({
        let peer = peer.clone();
        async move {
            while !matches!(answer(peer.get("/")).await, Ok((200, _))) {
                tokio::time::sleep(ms(5)).await;
            }
        }
    });
    testkit::until(BOUND, || server.in_flight() == 1).await;
    frozen.store(false, SeqCst);
    probe.abort();
    assert!(probe.await.unwrap_err().is_cancelled());
    assert_eq!(answer(peer.get("/")).await.unwrap().0, 200, "the lost probe kept the breaker half-open");
    assert_eq!(sample(&http, "pools_http_breaker_state"), 0.0);
}

#[tokio::test]
async fn a_dead_server_opens_the_breaker_and_a_callers_impatience_does_not() {
    let server = testkit::upstream(|request| match &*request.target {
        "/silent" => Reply::never(),
        _ => Reply::none(End::Reset),
    })
    .await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), Policy { max_retries: 0, ..breaks(BOUND) });
    for _ in 0..10 {
        let soon = Instant::now() + ms(10);
        let error = answer(peer.get("/silent").deadline(soon)).await.unwrap_err();
        // On a busy machine, some of them do not even get a connection in time.
        assert!(matches!(error, HttpError::Deadline { .. } | HttpError::Wait { .. }), "{error:?}");
    }
    for _ in 0..5 {
        let error = answer(peer.get("/reset")).await.unwrap_err();
        assert!(matches!(error, HttpError::Reset { .. } | HttpError::Truncated { .. }), "{error:?}");
    }
    let error = answer(peer.get("/reset")).await.unwrap_err();
    assert!(matches!(error, HttpError::BreakerOpen { .. }), "{error:?}");
    assert_eq!(server.seen().iter().filter(|request| request.target == "/reset").count(), 5);
    until_idle(&http, 0).await;
}
