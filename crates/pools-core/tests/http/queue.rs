//! Caps, order, and what becomes of those who wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use pools_core::{
    http::{HttpError, HttpPool},
    pool::Pool,
};
use testkit::{Reply, Upstream};
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{BOUND, builder, closed, counts, get, kernel_sockets, ms, pool, until_idle};

#[expect(clippy::disallowed_methods, reason = "a caller of the pool, awaited by the test")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

fn spawn_get(http: &HttpPool, url: String) -> JoinHandle<Result<String, HttpError>> {
    let http = http.clone();
    spawn(async move { get(&http, &url).await })
}

/// Starts requests one by one, so that their order in the queue is known; they record when they are answered.
async fn queue_up(
    http: &HttpPool,
    server: &Upstream,
    count: u32,
) -> Vec<JoinHandle<Result<String, HttpError>>> {
    let mut requests = Vec::new();
    for n in 0..count {
        let before = counts(http).3;
        requests.push(spawn_get(http, format!("{}/{n}", server.url())));
        testkit::until(BOUND, || counts(http).3 == before + 1).await;
    }
    requests
}

#[tokio::test]
async fn http_25_a_waiter_who_goes_away_leaves_the_order_of_the_others() {
    let server = testkit::upstream(|request| Reply::ok("").header("path", &request.target)).await;
    let http = pool(|config| config.max_sockets = 1);
    let held = http.get(&server.url()).send().await.unwrap();
    drop(held);
    let slow = testkit::upstream(|request| match &*request.target {
        "/held" => Reply::ok("held").delay(ms(300)),
        _ => Reply::ok("x"),
    })
    .await;
    let held = spawn_get(&http, format!("{}/held", slow.url()));
    testkit::until(BOUND, || slow.in_flight() == 1).await;
    let mut requests = queue_up(&http, &slow, 5).await;
    for cancelled in [3, 1] {
        let request = requests.remove(cancelled);
        request.abort();
        assert!(request.await.is_err());
    }
    assert_eq!(counts(&http).3, 3, "who has gone still takes a place in the queue");
    held.await.unwrap().unwrap();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    let order: Vec<_> = slow.seen().iter().map(|request| request.target.clone()).collect();
    assert_eq!(order, ["/held", "/0", "/2", "/4"]);
    assert_eq!((slow.accepted(), counts(&http).3), (1, 0));
}

#[tokio::test]
async fn http_26_the_dial_of_a_caller_who_went_away_serves_the_next() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let address = server.addr();
    let dials = Arc::new(AtomicUsize::new(0));
    let (go, dialled) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::clone(&dials));
    let gate = Arc::clone(&go);
    let http = builder(|config| config.max_sockets = 1).resolver(Arc::new(move |_, _| {
        dialled.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            drop(gate.acquire().await);
            Ok(vec![address])
        })
    }));
    let http = http.build();
    let first = spawn_get(&http, "http://name/".to_owned());
    testkit::until(BOUND, || counts(&http) == (0, 0, 1, 1)).await;
    let second = spawn_get(&http, "http://name/".to_owned());
    testkit::until(BOUND, || counts(&http).3 == 2).await;
    first.abort();
    assert!(first.await.is_err());
    go.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap(), "a");
    until_idle(&http, 1).await;
    assert_eq!((dials.load(Ordering::SeqCst), server.accepted()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_27_ten_thousand_random_cancels_lose_no_place_and_no_waiter() {
    const CAP: u32 = 8;
    let server = testkit::upstream(|request| match request.number % 4 {
        0 => Reply::ok("a").delay(ms(1)),
        1 => Reply::ok(vec![b'x'; 100_000]),
        2 => Reply::new(200).chunks(["ab", "cd"]),
        _ => Reply::ok("a"),
    })
    .await;
    let http = pool(|config| config.max_sockets = CAP);
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (http, over, port) = (http.clone(), Arc::clone(&over), server.addr().port());
        spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let (in_use, idle, opening, _) = counts(&http);
                assert!(in_use + idle + opening <= CAP, "{in_use} + {idle} + {opening}");
                // The kernel's table is not read in one instant: with connections coming and going, one row too many
                // may be a socket that closed while it was read. One that is still there the next times is not.
                let over_cap = (0..5).all(|_| kernel_sockets(port) > CAP as usize);
                assert!(!over_cap, "more sockets than places");
                tokio::time::sleep(ms(1)).await;
            }
        })
    };
    let callers = (0..40).map(|_| {
        let (http, url) = (http.clone(), server.url());
        spawn(async move {
            for _ in 0..250 {
                let patience = Duration::from_micros(fastrand::u64(0..3_000));
                let _cancelled_or_not = tokio::time::timeout(patience, get(&http, &url)).await;
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    watch.await.unwrap();

    let parallel = (0..50).map(|_| get(&http, &server.url()));
    for answer in tokio::time::timeout(BOUND, join_all(parallel)).await.expect("a place or a waiter was lost")
    {
        answer.unwrap();
    }
    testkit::until(BOUND, || matches!(counts(&http), (0, _, 0, 0))).await;
    assert!(http.snapshot().holders.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_28_three_hundred_requests_never_open_more_than_fifty_connections() {
    let server = testkit::upstream(|_| Reply::ok("a").delay(ms(5))).await;
    let http = pool(|_| {});
    let requests: Vec<_> = (0..300).map(|_| spawn_get(&http, server.url())).collect();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert!(server.peak_open() <= 50, "{}", server.peak_open());
    assert!(server.accepted() <= 50, "{}", server.accepted());
    assert_eq!(server.requests(), 300);
    testkit::until(BOUND, || matches!(counts(&http), (0, 1..=50, 0, 0))).await;
    let snapshot = http.snapshot();
    assert!(snapshot.holders.is_empty() && http.stats().requests.is_empty(), "{:?}", http.stats());
    assert!(snapshot.totals.opened <= 50, "{}", snapshot.totals.opened);
    assert!(http.drain(Instant::now() + BOUND).await.cut.is_empty());
    assert_eq!((counts(&http), http.snapshot().targets.len()), ((0, 0, 0, 0), 0));
    testkit::until(BOUND, || server.open() == 0).await;
}

#[tokio::test]
async fn http_28_waiters_are_answered_in_order() {
    let server = testkit::upstream(|_| Reply::ok("a").delay(ms(5))).await;
    let http = pool(|config| config.max_sockets = 1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut requests = Vec::new();
    for n in 0..30 {
        let (order, http, url) = (Arc::clone(&order), http.clone(), server.url());
        requests.push(spawn(async move {
            get(&http, &url).await.unwrap();
            order.lock().push(n);
        }));
        // Polled once, it stands in the queue.
        tokio::task::yield_now().await;
    }
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(*order.lock(), (0..30).collect::<Vec<_>>());
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn http_28_a_host_that_hangs_does_not_hold_up_another() {
    let stuck = testkit::upstream(|_| Reply::never()).await;
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|config| config.max_sockets = 2);
    let stuck_requests: Vec<_> = (0..10).map(|_| spawn_get(&http, stuck.url())).collect();
    testkit::until(BOUND, || stuck.in_flight() == 2).await;
    for _ in 0..5 {
        get(&http, &server.url()).await.unwrap();
    }
    assert_eq!(http.stats().requests, [(stuck.addr().to_string(), 8)].into());
    stuck_requests.iter().for_each(JoinHandle::abort);
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_28_the_cap_over_all_hosts_holds_and_is_shared_fairly() {
    let script = |_: &testkit::Request| Reply::ok("a").delay(ms(2));
    let (busy, late) = (testkit::upstream(script).await, testkit::upstream(script).await);
    let http = pool(|config| config.max_total_sockets = 4);
    let over = Arc::new(AtomicBool::new(false));
    let crowd: Vec<_> = (0..40)
        .map(|_| {
            let (http, url, over) = (http.clone(), busy.url(), Arc::clone(&over));
            spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    get(&http, &url).await.unwrap();
                }
            })
        })
        .collect();
    testkit::until(BOUND, || busy.open() == 4).await;
    // The crowd always has waiters, and yet a newcomer gets its share, and keeps it.
    let newcomers: Vec<_> = (0..20)
        .map(|_| {
            let (http, url) = (http.clone(), late.url());
            spawn(async move {
                for _ in 0..10 {
                    get(&http, &url).await.unwrap();
                }
            })
        })
        .collect();
    let all = join_all(newcomers);
    for newcomer in tokio::time::timeout(BOUND, all).await.expect("the newcomer starved") {
        newcomer.unwrap();
    }
    assert!(late.accepted() <= 8, "the shares oscillate: {} connections", late.accepted());
    over.store(true, Ordering::SeqCst);
    for caller in crowd {
        caller.await.unwrap();
    }
    testkit::until(BOUND, || busy.open() + late.open() <= 4).await;
    assert!(http.snapshot().live() <= 4);
}

#[tokio::test]
async fn http_28_one_place_for_all_hosts_goes_round() {
    let script = |_: &testkit::Request| Reply::ok("a");
    let servers =
        [testkit::upstream(script).await, testkit::upstream(script).await, testkit::upstream(script).await];
    let http = pool(|config| config.max_total_sockets = 1);
    let requests: Vec<_> = (0..60).map(|n| spawn_get(&http, servers[n % 3].url())).collect();
    let all = join_all(requests);
    for request in tokio::time::timeout(BOUND, all).await.expect("a host starved") {
        request.unwrap().unwrap();
    }
    until_idle(&http, 1).await;
}

#[tokio::test]
async fn http_29_a_full_queue_refuses_at_once() {
    let server = testkit::upstream(|_| Reply::never()).await;
    let http = builder(|config| config.max_sockets = 1).max_queue(3).build();
    let waiting: Vec<_> = (0..4).map(|_| spawn_get(&http, server.url())).collect();
    testkit::until(BOUND, || counts(&http) == (1, 0, 0, 3)).await;
    let started = Instant::now();
    let error = get(&http, &server.url()).await.unwrap_err();
    assert!(matches!(error, HttpError::QueueFull { waiting: 3, .. }), "{error:?}");
    assert!(error.is_busy() && !error.is_timeout() && started.elapsed() < Duration::from_secs(1));
    waiting.iter().for_each(JoinHandle::abort);
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_30_low_load_uses_one_connection_and_the_rest_vanish() {
    let server = testkit::upstream(|_| Reply::ok("a").delay(ms(20))).await;
    let http = pool(|config| {
        config.max_free_sockets = 2;
        config.keep_alive = ms(400);
        config.free_linger = Duration::from_secs(1);
    });
    join_all((0..8).map(|_| get(&http, &server.url()))).await;
    until_idle(&http, 8).await;
    // One caller keeps one alive by taking the newest; the others time out beside it.
    testkit::until_async(BOUND, async || {
        get(&http, &server.url()).await.unwrap();
        counts(&http).1 == 1
    })
    .await;
    assert_eq!(server.accepted(), 8);
}

#[tokio::test]
async fn http_30_free_connections_above_the_limit_linger_or_close_on_return() {
    for linger in [0, 1] {
        let server = testkit::upstream(|_| Reply::ok("a").delay(ms(50))).await;
        let http = pool(|config| {
            config.max_free_sockets = 3;
            config.free_linger = Duration::from_secs(linger);
        });
        join_all((0..10).map(|_| get(&http, &server.url()))).await;
        if linger > 0 {
            until_idle(&http, 10).await;
            assert_eq!(closed(&http, "max_free"), 0);
        }
        until_idle(&http, 3).await;
        assert_eq!(closed(&http, "max_free"), 7);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_30_callers_who_think_between_requests_do_not_dial_again_and_again() {
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let http = pool(|_| {});
    let end = Instant::now() + ms(2_500);
    let callers = (0..50).map(|_| {
        let (http, url) = (http.clone(), server.url());
        spawn(async move {
            while Instant::now() < end {
                get(&http, &url).await.unwrap();
                tokio::time::sleep(ms(2)).await;
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    // 50, and what was not needed for a second and then was; 1,800 and more without the linger.
    assert!(server.accepted() <= 200, "{}", server.accepted());
}
