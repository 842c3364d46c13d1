//! Rates, as the server sees them.

#![allow(clippy::disallowed_methods, reason = "tests own their tasks")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use pools_core::{
    http::{HttpError, Policy},
    resilience::Rate,
};
use testkit::{End, Reply};
use tokio::time::Instant;

use crate::{
    policy::{answer, quick, sample, upstream},
    support::{BOUND, ms, pool, until_idle},
};

const SECOND: Duration = Duration::from_secs(1);

fn three() -> Policy {
    Policy { rate: Some(Rate::per_second(3)), total_timeout: BOUND, ..quick() }
}

/// A server that notes when a request was read, and which.
async fn noting(
    reply: impl Fn(u64) -> Reply + Send + Sync + 'static,
) -> (testkit::Upstream, Arc<Mutex<Vec<(Instant, String)>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let server = testkit::upstream(move |request| {
        notes.lock().unwrap().push((Instant::now(), request.target.clone()));
        reply(request.number)
    });
    (server.await, seen)
}

/// The most requests in any second.
fn busiest(seen: &Mutex<Vec<(Instant, String)>>) -> usize {
    let times: Vec<_> = seen.lock().unwrap().iter().map(|(at, _)| *at).collect();
    let within = |from: Instant| times.iter().filter(|at| (from..from + SECOND).contains(*at)).count();
    times.iter().map(|from| within(*from)).max().unwrap_or(0)
}

#[tokio::test]
async fn http_44_three_a_second_hold_in_any_second_and_callers_are_served_in_order() {
    // Now and then the answer is late, or the connection is gone.
    let (server, seen) = noting(|number| match number % 5 {
        2 => Reply::ok("late").delay(ms(400)),
        4 => Reply::ok("last").then(End::Close),
        _ => Reply::ok("on time"),
    })
    .await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), three());
    let began = Instant::now();
    let answers = join_all((0..12).map(|number| answer(peer.get(&format!("/{number:02}"))))).await;
    let took = began.elapsed();
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().0 == 200), "{answers:?}");
    assert_eq!(busiest(&seen), 3, "{seen:?}");
    let order: Vec<_> = seen.lock().unwrap().iter().map(|(_, path)| path.clone()).collect();
    // Those of one second travel on connections of their own and may change places.
    for (second, expected) in order.chunks(3).zip(["/00/01/02", "/03/04/05", "/06/07/08", "/09/10/11"]) {
        let mut second = second.to_vec();
        second.sort();
        assert_eq!(second.concat(), expected, "{order:?}");
    }
    assert!(took >= 3 * SECOND, "{took:?}");
    assert_eq!(sample(&http, "pools_http_rate_waits_total"), 9.0);
}

#[tokio::test]
async fn http_44_one_at_a_time_the_order_is_exact() {
    let (server, seen) = noting(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    let rate = Some(Rate { per_second: 20, burst: 1 });
    let peer = upstream(&http, &server.url(), Policy { rate, ..three() });
    join_all((0..30).map(|number| answer(peer.get(&format!("/{number:02}"))))).await;
    let order: Vec<_> = seen.lock().unwrap().iter().map(|(_, path)| path.clone()).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(busiest(&seen) <= 20);
}

#[tokio::test]
async fn http_44_who_cannot_be_served_in_time_is_told_at_once() {
    let (server, _seen) = noting(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), three());
    join_all((0..3).map(|_| answer(peer.get("/")))).await;
    let patient: Vec<_> = (0..3).map(|_| tokio::spawn(answer(peer.get("/")))).collect();
    testkit::until(BOUND, || sample(&http, "pools_http_rate_waiting") == 3.0).await;
    let began = Instant::now();
    let error = answer(peer.get("/").deadline(began + ms(1_000))).await.unwrap_err();
    let HttpError::RateLimited { upstream: "peer", waiting: 3, turn_in, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(error.is_busy() && *turn_in > ms(1_000) && error.retry_after() == Some(*turn_in));
    assert!(began.elapsed() < ms(500), "it waited {:?}", began.elapsed());
    for caller in patient {
        assert_eq!(caller.await.unwrap().unwrap().0, 200);
    }
    assert_eq!(server.requests(), 6);
    assert_eq!(sample(&http, "pools_http_rate_refused_total"), 1.0);
}

#[tokio::test]
async fn http_44_retries_and_stale_connections_take_turns_like_any_call() {
    // Every third request meets a connection that the server closes, every fourth a 503.
    let (server, seen) = noting(|number| match number {
        n if n % 3 == 0 => Reply::none(End::Close),
        n if n % 4 == 0 => Reply::new(503),
        _ => Reply::ok("a"),
    })
    .await;
    let http = pool(|_| {});
    let policy = Policy { max_retries: 5, retry_budget: 1_000, ..three() };
    let peer = upstream(&http, &server.url(), policy);
    let answers = join_all((0..6).map(|_| answer(peer.get("/")))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().0 == 200), "{answers:?}");
    assert!(server.requests() > 6);
    assert!(busiest(&seen) <= 3, "{seen:?}");
}

#[tokio::test]
async fn http_44_a_caller_who_leaves_the_queue_costs_nobody_a_turn() {
    let (server, seen) = noting(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    let peer = upstream(&http, &server.url(), three());
    join_all((0..3).map(|_| answer(peer.get("/")))).await;
    let leavers: Vec<_> = (0..9).map(|_| tokio::spawn(answer(peer.get("/left")))).collect();
    testkit::until(BOUND, || sample(&http, "pools_http_rate_waiting") == 9.0).await;
    leavers.iter().for_each(tokio::task::JoinHandle::abort);
    let began = Instant::now();
    let answers = join_all((0..3).map(|_| answer(peer.get("/stayed").deadline(began + BOUND)))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(began.elapsed() < 3 * SECOND, "{:?}: the leavers' turns were kept", began.elapsed());
    assert_eq!((server.requests(), busiest(&seen)), (6, 3));
    until_idle(&http, http.stats().free_sockets.values().sum()).await;
}
