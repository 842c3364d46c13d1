//! Retries and places of an upstream.

#![allow(clippy::disallowed_methods, reason = "tests own their tasks")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use pools_core::{
    health::HealthState,
    http::{HttpError, HttpPool, Policy, RequestBuilder, Upstream},
    pool::Pool,
};
use testkit::Reply;
use tokio::time::Instant;

use crate::support::{BOUND, LIMIT, ms, pool, until_idle};

/// Pauses that a test can sit through; no breaker.
pub(crate) fn quick() -> Policy {
    Policy { backoff: ms(1), max_backoff: ms(5), breaker: None, ..Policy::default() }
}

pub(crate) fn upstream(http: &HttpPool, url: &str, policy: Policy) -> Upstream {
    Upstream::new(http.clone(), "peer", url, policy).unwrap()
}

/// Status and body.
pub(crate) async fn answer(request: RequestBuilder) -> Result<(u16, String), HttpError> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok((status, String::from_utf8(response.bytes(LIMIT).await?.to_vec()).unwrap()))
}

/// The sum of a metric over all upstreams.
pub(crate) fn sample(http: &HttpPool, name: &str) -> f64 {
    let samples = http.snapshot().samples;
    let values: Vec<_> = samples.iter().filter(|sample| sample.name == name).collect();
    assert!(!values.is_empty(), "{name} is missing");
    values.iter().map(|sample| sample.value).sum()
}

/// Answers 429 with this `Retry-After` to the first request, and 200 to the others.
async fn asks_to_wait(value: impl Fn() -> String + Send + Sync + 'static) -> testkit::Upstream {
    testkit::upstream(move |request| match request.number {
        1 => Reply::new(429).header("retry-after", &value()).body("wait"),
        _ => Reply::ok("served"),
    })
    .await
}

#[tokio::test]
async fn http_39_retry_after_in_seconds_or_as_a_date_is_waited_for() {
    let seconds = asks_to_wait(|| "1".to_owned()).await;
    // A date has whole seconds: three from now are more than two.
    let date = asks_to_wait(|| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3))).await;
    let http = pool(|_| {});
    for (server, least) in [(seconds, 1), (date, 2)] {
        let peer = upstream(&http, &server.url(), quick());
        let began = Instant::now();
        assert_eq!(answer(peer.get("/")).await.unwrap(), (200, "served".to_owned()));
        assert!(began.elapsed() >= Duration::from_secs(least), "{:?}", began.elapsed());
        assert_eq!(server.requests(), 2);
        until_idle(&http, 1).await;
    }
}

#[tokio::test]
async fn http_39_retry_after_in_the_past_is_now_and_beyond_the_deadline_is_never() {
    let past = asks_to_wait(|| "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()).await;
    let http = pool(|_| {});
    // A pause of its own would take it past the deadline.
    let patient = Policy { backoff: BOUND, max_backoff: BOUND, ..quick() };
    let peer = upstream(&http, &past.url(), patient.clone());
    assert_eq!(answer(peer.get("/")).await.unwrap().0, 200);
    assert_eq!(past.requests(), 2);

    for (wait, total, deadline) in [
        ("1000000000", Duration::from_secs(3600), None),
        ("99999999999999999999", Duration::from_secs(3600), None),
        ("60", Duration::from_secs(30), None),
        ("60", Duration::from_secs(3600), Some(Duration::from_secs(50))),
    ] {
        let server = asks_to_wait(|| wait.to_owned()).await;
        let policy = Policy { total_timeout: total, ..patient.clone() };
        let request = upstream(&http, &server.url(), policy).get("/");
        let request = deadline.into_iter().fold(request, |r, after| r.deadline(Instant::now() + after));
        let began = Instant::now();
        assert_eq!(answer(request).await.unwrap(), (429, "wait".to_owned()), "the answer itself is given");
        assert!(began.elapsed() < BOUND, "{wait}");
        assert_eq!(server.requests(), 1, "{wait}");
    }
}

#[tokio::test]
async fn only_what_does_no_harm_twice_is_retried() {
    let server = testkit::upstream(|_| Reply::new(503)).await;
    let http = pool(|_| {});
    let pieces = || stream::iter([Ok(Bytes::from_static(b"once"))]);
    let put = |peer: &Upstream| peer.request(http::Method::PUT, "/");
    type Request = fn(&Upstream) -> RequestBuilder;
    let cases: [(&str, u64, Request); 6] = [
        ("GET", 3, |peer| peer.get("/")),
        ("POST", 1, |peer| peer.post("/").body("sent")),
        ("POST with a key", 3, |peer| peer.post("/").body("sent").header("idempotency-key", "7")),
        ("POST that says so", 3, |peer| peer.post("/").body("sent").idempotent(true)),
        ("GET that must not", 1, |peer| peer.get("/").no_retry()),
        ("GET with another body", 3, |peer| peer.get("/").body("sent")),
    ];
    for (name, expected, request) in cases {
        let peer = upstream(&http, &server.url(), quick());
        let before = server.requests();
        assert_eq!(answer(request(&peer)).await.unwrap().0, 503, "{name}");
        assert_eq!(server.requests() - before, expected, "{name}");
    }
    let peer = upstream(&http, &server.url(), quick());
    let before = server.requests();
    assert_eq!(answer(put(&peer).stream(4, pieces())).await.unwrap().0, 503);
    assert_eq!(server.requests() - before, 1, "a body that cannot be sent twice was");
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn a_refused_connection_is_retried_and_a_restart_goes_unnoticed() {
    let server = testkit::upstream(|_| Reply::ok("back")).await;
    let http = pool(|_| {});
    let policy = Policy { max_retries: 1_000, retry_budget: 100_000, max_backoff: ms(50), ..quick() };
    let peer = upstream(&http, &server.url(), policy);
    server.stop().await;
    let (answered, ()) = tokio::join!(answer(peer.get("/")), async {
        testkit::until(BOUND, || sample(&http, "pools_http_retries_total") >= 1.0).await;
        assert_eq!(peer.health(), HealthState::Down);
        server.start().await;
    });
    assert_eq!(answered.unwrap(), (200, "back".to_owned()));
    assert_eq!(peer.health(), HealthState::Up);
}

#[tokio::test]
async fn a_slow_upstream_never_takes_anothers_connections() {
    let slow = testkit::upstream(|_| Reply::never()).await;
    let fast = testkit::upstream(|_| Reply::ok("fast")).await;
    let http = pool(|config| config.max_total_sockets = 4);
    let narrow = Policy { max_in_flight: 2, max_retries: 0, ..quick() };
    let slow_peer = upstream(&http, &slow.url(), narrow);
    let fast_peer = upstream(&http, &fast.url(), quick());
    let stuck: Vec<_> = (0..20).map(|_| tokio::spawn(answer(slow_peer.get("/")))).collect();
    testkit::until(BOUND, || slow.in_flight() == 2).await;

    let answers = join_all((0..50).map(|_| answer(fast_peer.get("/")))).await;

    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().1 == "fast"));
    assert_eq!((slow.peak_open(), slow.peak_in_flight()), (2, 2));
    assert_eq!(sample(&http, "pools_http_upstream_waiting"), 18.0);
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
    testkit::until(BOUND, || sample(&http, "pools_http_upstream_in_flight") == 0.0).await;
    assert_eq!(sample(&http, "pools_http_upstream_waiting"), 0.0, "cancelled callers stayed in the queue");
    testkit::until(BOUND, || slow.open() == 0).await;
}

#[tokio::test]
async fn a_queued_request_ends_by_its_own_deadline_and_by_the_policys_wait() {
    let server = testkit::upstream(|_| Reply::ok("long").slow_body(Duration::from_secs(60)).chunks(["a"; 9]));
    let server = server.await;
    let http = pool(|_| {});
    let policy = Policy { max_in_flight: 1, max_queue: 1, wait_timeout: ms(400), ..quick() };
    let peer = upstream(&http, &server.url(), policy);
    // A place is taken until the body has ended, not only until the head came.
    let held = peer.get("/").send().await.unwrap();

    for (deadline, least) in [(Some(ms(100)), ms(100)), (None, ms(400))] {
        let began = Instant::now();
        let request = peer.get("/");
        let request = deadline.into_iter().fold(request, |r, after| r.deadline(began + after));
        let (queued, overflow) = tokio::join!(answer(request), answer(peer.get("/")));
        let error = queued.unwrap_err();
        assert!(matches!(error, HttpError::Bulkhead { upstream: "peer", in_flight: 1, .. }), "{error:?}");
        assert!(error.is_busy() && error.is_timeout());
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        let error = overflow.unwrap_err();
        assert!(matches!(error, HttpError::QueueFull { waiting: 1, .. }), "{error:?}");
    }
    assert_eq!(server.requests(), 1);
    drop(held);
    until_idle(&http, 0).await;
    assert_eq!(sample(&http, "pools_http_upstream_in_flight"), 0.0);
    assert_eq!(sample(&http, "pools_http_upstream_refused_total"), 4.0);
}

#[tokio::test]
async fn the_incoming_requests_deadline_bounds_the_call_and_its_retries() {
    let server = testkit::upstream(|request| match &*request.target {
        "/silent" => Reply::never(),
        _ => Reply::new(503),
    })
    .await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), Policy { backoff: BOUND, max_backoff: BOUND, ..quick() });
    let soon = Instant::now() + ms(200);
    pools_core::resilience::deadline::scope(soon, async {
        let late = answer(peer.get("/silent").deadline(soon + BOUND)).await.unwrap_err();
        assert!(matches!(late, HttpError::Deadline { phase: "head", .. }), "{late:?}");
        let late = answer(http.get(&server.url())).await.unwrap_err();
        assert!(late.is_timeout(), "{late:?}");
    })
    .await;
    let soon = Instant::now() + Duration::from_secs(2);
    pools_core::resilience::deadline::scope(soon, async {
        assert_eq!(answer(peer.get("/busy")).await.unwrap().0, 503, "a pause past the deadline was begun");
    })
    .await;
}

#[tokio::test]
async fn paths_are_joined_to_the_base_whatever_their_slashes() {
    let server = testkit::upstream(|request| Reply::ok(request.target.clone())).await;
    let http = pool(|_| {});
    for (base, path, expected) in [
        ("", "/a?b=c", "/a?b=c"),
        ("/", "a", "/a"),
        ("/v2/api", "?chainid=1", "/v2/api?chainid=1"),
        ("/v2/api/", "", "/v2/api"),
        ("", "", "/"),
        // It cannot leave the host.
        ("", ".example.com/", "/.example.com/"),
        ("", "@127.0.0.2/", "/@127.0.0.2/"),
    ] {
        let peer = upstream(&http, &format!("{}{base}", server.url()), quick());
        assert_eq!(answer(peer.get(path)).await.unwrap().1, expected, "{base} {path}");
    }
    let refused = Upstream::new(http, "peer", "ftp://a/", quick()).unwrap_err();
    assert!(matches!(refused, HttpError::Url { .. }), "{refused:?}");
}
