//! What `/api/pools/stats` shows while the pool works.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use futures_util::{StreamExt, future::join_all, stream};
use pools_core::{http::HttpError, pool::Pool};
use testkit::Reply;

use crate::support::{BOUND, builder, closed, counts, get, ms, until_idle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_43_stats_under_load_are_as_right_as_at_rest() {
    const CAP: u32 = 4;
    const CALLERS: u32 = 12;
    let (one, two) = tokio::join!(
        testkit::upstream(|_| Reply::ok("a").delay(ms(2))),
        testkit::upstream(|_| Reply::ok(vec![b'x'; 50_000])),
    );
    let http = builder(|config| config.max_sockets = CAP).build();
    let load = join_all([&one, &two].map(|server| {
        let (http, url) = (http.clone(), server.url());
        async move {
            join_all((0..CALLERS).map(|_| async {
                for _ in 0..50 {
                    get(&http, &url).await.unwrap();
                }
            }))
            .await
        }
    }));
    let names = [one.addr().to_string(), two.addr().to_string()];
    let mut samples = 0;
    tokio::pin!(load);
    loop {
        let stats = http.stats();
        let of = |map: &BTreeMap<String, u32>, name: &String| map.get(name).copied().unwrap_or(0);
        for name in &names {
            let (used, free) = (of(&stats.sockets, name), of(&stats.free_sockets, name));
            let waiting = of(&stats.requests, name);
            assert!(used + free <= CAP, "{stats:?}");
            // Nobody waits beside a free connection or a place for one, and no caller is counted twice.
            assert!(waiting == 0 || (used == CAP && free == 0), "{stats:?}");
            assert!(used + waiting <= CALLERS + CAP, "{stats:?}");
        }
        let shown = [&stats.sockets, &stats.free_sockets, &stats.requests];
        assert!(shown.iter().all(|map| map.keys().all(|name| names.contains(name))), "{stats:?}");
        assert!(shown.iter().all(|map| map.values().all(|count| *count > 0)), "{stats:?}");
        samples += 1;
        tokio::select! {
            _ = &mut load => break,
            () = tokio::time::sleep(ms(1)) => {}
        }
    }
    assert!(samples > 10, "{samples}");
    until_idle(&http, 2 * CAP).await;
    assert_eq!(http.stats().free_sockets.into_values().sum::<u32>(), 2 * CAP);
    assert!(http.drain(tokio::time::Instant::now() + BOUND).await.cut.is_empty());
    let (stats, snapshot) = (http.stats(), http.snapshot());
    assert!([stats.sockets, stats.free_sockets, stats.requests].iter().all(BTreeMap::is_empty));
    assert!(snapshot.targets.is_empty() && snapshot.holders.is_empty() && snapshot.live() == 0);
    assert_eq!(snapshot.totals.opened, snapshot.totals.closed.iter().map(|(_, count)| count).sum::<u64>());
    testkit::until(BOUND, || one.open() + two.open() == 0).await;
}

#[tokio::test]
async fn http_43_the_hosts_shown_are_bounded_and_the_busiest_are_among_them() {
    let server = testkit::upstream(|request| match &*request.target {
        "/slow" => Reply::ok("a").delay(ms(1_000)),
        _ => Reply::ok("a"),
    })
    .await;
    let address = server.addr();
    let http = builder(|_| {}).resolver(Arc::new(move |_, _| {
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], address.port()))]) })
    }));
    let http = http.build();
    for answer in join_all((0..150).map(|n| get(&http, &format!("http://host{n}.example/")))).await {
        answer.unwrap();
    }
    until_idle(&http, 150).await;
    let busy = join_all((0..3).map(|_| get(&http, "http://busy.example/slow")));
    let shown = async {
        testkit::until(BOUND, || server.in_flight() == 3).await;
        http.stats()
    };
    let (_, stats) = tokio::join!(busy, shown);
    assert_eq!(stats.sockets, BTreeMap::from([("busy.example:80".to_owned(), 3)]));
    assert_eq!(stats.sockets.len() + stats.free_sockets.len(), 100);
}

#[tokio::test]
async fn http_43_ten_thousand_hosts_that_have_no_address_leave_no_entry_behind() {
    let http = builder(|config| config.max_total_sockets = 64)
        .resolver(Arc::new(|_, _| Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })));
    let http = http.build();
    let all = (0..10_000).map(|n| {
        let http = http.clone();
        async move { get(&http, &format!("http://host{n}.example/")).await }
    });
    let answers = join_all(all).await;
    assert!(
        answers.iter().all(|answer| answer.as_ref().is_err_and(HttpError::is_connect)),
        "{:?}",
        answers[0]
    );
    let snapshot = http.snapshot();
    assert!(snapshot.targets.is_empty() && snapshot.live() == 0);
    assert_eq!(snapshot.totals.open_failures, 10_000);
}

#[tokio::test]
async fn http_43_ten_thousand_hosts_that_were_connected_to_leave_no_entry_behind() {
    const HOSTS: u64 = 10_000;
    let server = testkit::upstream(|_| Reply::ok("a")).await;
    let address = server.addr();
    let http = builder(|config| (config.max_total_sockets, config.keep_alive) = (64, ms(500)))
        .resolver(Arc::new(move |_, _| Box::pin(async move { Ok(vec![address]) })));
    let http = http.build();
    // Four times as many at once as have a place; all at once would wait longer than `timeout` on a busy machine.
    let all = stream::iter(0..HOSTS).map(|n| {
        let http = http.clone();
        async move {
            get(&http, &format!("http://host{n}.example/")).await.unwrap();
            assert!(n % 100 > 0 || http.snapshot().live() <= 64, "{:?}", counts(&http));
        }
    });
    all.buffer_unordered(256).collect::<Vec<()>>().await;
    assert_eq!((server.accepted(), server.requests()), (HOSTS, HOSTS));
    // Most made room for others, the last go when their time is over.
    until_idle(&http, 0).await;
    let (stats, snapshot) = (http.stats(), http.snapshot());
    assert!(snapshot.targets.is_empty() && snapshot.live() == 0);
    assert!([stats.sockets, stats.free_sockets, stats.requests].iter().all(BTreeMap::is_empty));
    assert_eq!(closed(&http, "evicted") + closed(&http, "idle"), HOSTS);
    testkit::until(BOUND, || server.open() == 0).await;
}
