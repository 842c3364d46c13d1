//! Names, asked of a DNS server on loopback by a pool with its settings.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use pools_core::{
    http::{HttpConfig, HttpError, HttpPool, OpenError},
    pool::Pool,
};
use testkit::{Dns, DnsAnswer, Reply, Upstream, UpstreamOptions, free_port};
use tokio::time::Instant;

use crate::support::{BOUND, builder, get, ms, pool, until_idle};

const HERE: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];

/// The same port on two addresses, each server saying which it is, and never twice on one connection.
async fn two_servers() -> (u16, [Upstream; 2]) {
    let port = free_port();
    let server = |number: usize| {
        let options = UpstreamOptions { host: HERE[number], port: Some(port), ..Default::default() };
        testkit::upstream_with(options, move |_| Reply::ok(number.to_string()).header("connection", "close"))
    };
    (port, [server(0).await, server(1).await])
}

fn asks(server: &Dns) -> impl FnOnce(&mut HttpConfig) {
    let addr = server.addr();
    move |config| config.dns_servers = vec![addr]
}

fn at(number: usize, ttl: u32) -> DnsAnswer {
    DnsAnswer::Addresses(vec![IpAddr::from(HERE[number])], ttl)
}

fn lookups(http: &HttpPool, outcome: &str) -> f64 {
    let samples = http.snapshot().samples;
    let is_it = |sample: &&pools_core::stats::Sample| {
        sample.name == "pools_http_dns_lookups_total" && sample.labels == [("outcome", outcome)]
    };
    samples.iter().find(is_it).map_or(0.0, |sample| sample.value)
}

#[tokio::test]
async fn http_32_a_name_is_asked_for_again_once_its_ttl_has_passed() {
    let dns = testkit::dns().await;
    let (port, _servers) = two_servers().await;
    dns.set("short.test", at(0, 1));
    dns.set("long.test", at(0, 3_600));
    let http = pool(asks(&dns));
    let (short, long) = (format!("http://short.test:{port}/"), format!("http://LONG.test:{port}/"));
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(get(&http, &long).await.unwrap(), "0");
    }
    assert_eq!(get(&http, &short).await.unwrap(), "0");
    assert_eq!((dns.asked("short.test"), dns.asked("long.test")), (1, 1));
    assert_eq!((lookups(&http, "answered"), lookups(&http, "cached")), (2.0, 4.0));

    dns.set("short.test", at(1, 1));
    dns.set("long.test", at(1, 1));
    testkit::until_async(BOUND, async || get(&http, &short).await.unwrap() == "1").await;
    assert!(started.elapsed() >= Duration::from_secs(1), "it was asked for before its time was over");
    assert_eq!(get(&http, &long).await.unwrap(), "0", "its hour is not over");
    assert_eq!(dns.asked("long.test"), 1);
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_32_fifty_cold_dials_ask_once() {
    let dns = testkit::dns().await;
    let (port, servers) = two_servers().await;
    dns.set("cold.test", at(0, 3_600));
    let http = pool(asks(&dns));
    let url = format!("http://cold.test:{port}/");
    let answers = futures_util::future::join_all((0..50).map(|_| get(&http, &url))).await;
    assert!(answers.iter().all(|answer| answer.as_deref().is_ok_and(|body| body == "0")));
    assert_eq!((servers[0].accepted(), dns.names()), (50, vec!["cold.test".to_owned()]));
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_32_a_silent_dns_server_is_told_from_a_silent_host_within_the_connect_time_out() {
    let dns = testkit::dns().await;
    dns.set_all(Some(DnsAnswer::Silence));
    let http = builder(asks(&dns)).connect_timeout(ms(600)).build();
    let error = get(&http, "http://mute.test/").await.unwrap_err();
    let HttpError::Open { cause: OpenError::Dns(cause), .. } = &error else { panic!("{error:?}") };
    assert!(cause.to_string().contains("DNS servers have not answered"), "{cause}");
    assert!(error.is_connect() && error.is_timeout(), "{error:?}");
    until_idle(&http, 0).await;

    dns.set_all(Some(DnsAnswer::Code(2)));
    let error = get(&http, "http://ill.test/").await.unwrap_err();
    assert!(matches!(&error, HttpError::Open { cause: OpenError::Dns(_), .. }), "{error:?}");
    assert!(!error.is_timeout());
    assert_eq!(lookups(&http, "failed"), 2.0);
    until_idle(&http, 0).await;
}

#[tokio::test]
async fn http_32_the_pool_outlives_its_dns_server() {
    let dns = testkit::dns().await;
    let (port, _servers) = two_servers().await;
    dns.set("alive.test", at(0, 1));
    let url = format!("http://alive.test:{port}/");
    let (http, strict) = (
        pool(asks(&dns)),
        pool(|config| {
            asks(&dns)(config);
            config.dns_stale = Duration::ZERO;
        }),
    );
    assert_eq!(get(&http, &url).await.unwrap(), "0");
    assert_eq!(get(&strict, &url).await.unwrap(), "0");
    dns.set_all(Some(DnsAnswer::Code(2)));
    testkit::until_async(BOUND, async || {
        assert_eq!(get(&http, &url).await.unwrap(), "0");
        lookups(&http, "stale") >= 3.0
    })
    .await;
    testkit::until_async(BOUND, async || get(&strict, &url).await.is_err()).await;
}

#[tokio::test]
async fn http_32_the_systems_resolver_is_asked_for_each_dial_where_that_is_set() {
    let dns = testkit::dns().await;
    let (port, servers) = two_servers().await;
    let http = pool(|config| {
        asks(&dns)(config);
        config.dns = "system";
    });
    // Of IPv6 and IPv4, whichever the system prefers: the second is tried when the first is refused.
    assert_eq!(get(&http, &format!("http://localhost:{port}/")).await.unwrap(), "0");
    assert_eq!((servers[0].accepted(), dns.names().len()), (1, 0));
    assert!(!http.snapshot().samples.iter().any(|sample| sample.name.contains("dns")));
}
