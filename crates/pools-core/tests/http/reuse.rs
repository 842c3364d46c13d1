//! Which connections are used again, and which are not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use pools_core::pool::Pool;
use serde_json::json;
use testkit::{End, Reply};
use tokio::time::Instant;

use crate::support::{BOUND, LIMIT, builder, closed, counts, get, ms, pool, until_idle};

#[tokio::test]
async fn requests_in_a_row_share_one_connection_and_stats_say_so() {
    let server = testkit::upstream(|request| Reply::ok(request.target.clone())).await;
    let http = pool(|_| {});
    for n in 0..5 {
        assert_eq!(get(&http, &format!("{}/{n}?q", server.url())).await.unwrap(), format!("/{n}?q"));
    }
    until_idle(&http, 1).await;
    assert_eq!(server.accepted(), 1);
    let host = server.addr().to_string();
    let stats = serde_json::to_value(http.stats()).unwrap();
    let expected = json!({
        "maxSockets": 50, "maxFreeSockets": 10, "sockets": {}, "freeSockets": {host: 1}, "requests": {},
    });
    assert_eq!(stats, expected);
    assert_eq!(http.snapshot().totals.opened, 1);
}

#[tokio::test]
async fn json_goes_out_and_comes_back() {
    let server = testkit::upstream(|request| Reply::json(request.body.clone())).await;
    let http = pool(|_| {});
    let sent = json!({"jsonrpc": "2.0", "params": [1, "zwei"]});
    let response = http.post(&server.url()).json(&sent).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(response.json::<serde_json::Value>(LIMIT).await.unwrap(), sent);
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.header("content-type"), seen.header("host")),
        (Some("application/json"), Some(&*server.addr().to_string()))
    );
    let error = http.get(&server.url()).send().await.unwrap().json::<u8>(LIMIT).await.unwrap_err();
    assert!(matches!(error, pools_core::http::HttpError::Json { .. }), "{error:?}");
}

#[tokio::test]
async fn http_06_an_idle_connection_that_the_server_closes_leaves_without_a_request() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    get(&http, &server.url()).await.unwrap();
    until_idle(&http, 1).await;
    server.close_idle();
    until_idle(&http, 0).await;
    assert!(http.stats().free_sockets.is_empty());
    assert_eq!(closed(&http, "peer"), 1);
    testkit::until(BOUND, || server.open() == 0).await;
    get(&http, &server.url()).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn http_49_an_idle_connection_is_closed_when_its_time_is_over() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|config| config.keep_alive = ms(100));
    get(&http, &server.url()).await.unwrap();
    assert_eq!(counts(&http).1, 1);
    until_idle(&http, 0).await;
    assert_eq!(closed(&http, "idle"), 1);
    testkit::until(BOUND, || server.open() == 0).await;
}

#[tokio::test]
async fn http_07_a_server_that_stops_writing_but_goes_on_reading_has_closed() {
    let server = testkit::upstream(|_| Reply::ok("a").then(End::HalfClose)).await;
    let http = pool(|_| {});
    get(&http, &server.url()).await.unwrap();
    until_idle(&http, 0).await;
    get(&http, &server.url()).await.unwrap();
    assert_eq!((server.accepted(), server.requests()), (2, 2));
}

#[tokio::test]
async fn http_31_the_servers_keep_alive_hint_is_obeyed_and_rubbish_ignored() {
    let server = testkit::upstream(|_| Reply::ok("a").header("keep-alive", "timeout=1, max=7")).await;
    let http = pool(|_| {});
    let started = Instant::now();
    get(&http, &server.url()).await.unwrap();
    until_idle(&http, 1).await;
    until_idle(&http, 0).await;
    assert!(started.elapsed() < Duration::from_secs(1), "the server closes first");
    assert_eq!(closed(&http, "idle"), 1);

    for rubbish in ["timeout=soon", "timeout", "=", "timeout=-1", ""] {
        let server = testkit::upstream(move |_| Reply::ok("a").header("keep-alive", rubbish)).await;
        let http = pool(|_| {});
        get(&http, &server.url()).await.unwrap();
        get(&http, &server.url()).await.unwrap();
        until_idle(&http, 1).await;
        assert_eq!(server.accepted(), 1, "{rubbish:?}");
    }
    let server = testkit::upstream(|_| Reply::ok("a").header("keep-alive", "timeout=0")).await;
    let http = pool(|_| {});
    get(&http, &server.url()).await.unwrap();
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_32_an_old_connection_is_not_used_again_and_never_cut_and_dns_is_followed() {
    let slow = |_: &testkit::Request| Reply::new(200).chunks(["a"; 6]).slow_body(ms(50));
    let (old, new) = (testkit::upstream(slow).await, testkit::upstream(slow).await);
    let addresses = [old.addr(), new.addr()];
    let asked = AtomicUsize::new(0);
    let http = builder(|_| {}).max_age(ms(100)).resolver(Arc::new(move |_, _| {
        let address = addresses[asked.fetch_add(1, Ordering::SeqCst).min(1)];
        Box::pin(async move { Ok(vec![address]) })
    }));
    let http = http.build();
    // Longer than the age.
    assert_eq!(get(&http, "http://name/").await.unwrap(), "aaaaaa");
    until_idle(&http, 0).await;
    assert_eq!(closed(&http, "recycled"), 1);
    get(&http, "http://name/").await.unwrap();
    assert_eq!((old.accepted(), new.accepted()), (1, 1));
}

#[tokio::test]
async fn http_32_connections_that_were_opened_together_do_not_retire_together() {
    const OPENED: u32 = 40;
    let server = testkit::upstream(|_| Reply::ok("a").delay(ms(50))).await;
    let age = Duration::from_secs(600);
    // Nothing else than their age closes them.
    let http = pool(|config| {
        (config.max_age, config.keep_alive, config.max_free_sockets) = (age, 6 * age, OPENED);
    });
    join_all((0..OPENED).map(|_| get(&http, &server.url()))).await;
    until_idle(&http, OPENED).await;
    // Nobody waits for a socket from here on, so that the clock moves only when it is told to.
    tokio::time::pause();
    let mut left = Vec::new();
    for percent in 1..=111 {
        tokio::time::advance(age / 100).await;
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        left.push((percent, counts(&http).1));
    }
    tokio::time::resume();
    let at = |percent: u32| left[percent as usize - 1].1;
    assert_eq!((at(89), at(111)), (OPENED, 0), "{left:?}");
    // Forty spread over a fifth of ten minutes: 1 % of it holds two on the average.
    let mut steps: Vec<_> = left.iter().map(|(_, idle)| *idle).collect();
    steps.dedup();
    assert!(steps.len() > 10, "{left:?}");
    let most = left.windows(2).map(|pair| pair[0].1 - pair[1].1).max().unwrap();
    assert!(most <= OPENED / 4, "{most} at once: {left:?}");
}
