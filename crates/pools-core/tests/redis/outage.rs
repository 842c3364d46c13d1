//! Redis away, frozen or cut off, and back.

use std::convert::Infallible;

use pools_core::{
    cache::{Cache, CacheConfig, Policy, Source},
    health::HealthState,
    redis::{Reason, RedisConfig, RedisError, RedisPool, Standing, cmd},
};
use testkit::{Mode, until, until_async};
use tokio::{net::TcpListener, time::Instant};

use crate::support::{BOUND, Upstream, cache, config, connected, get, key, ms, open, sample, set};

#[tokio::test]
async fn redis_01_absent_at_start_is_told_at_once_works_without_and_is_connected_when_it_appears() {
    let redis = testkit::redis().await;
    redis.stop().await;
    let pool = RedisPool::open(config(&redis.url())).unwrap();

    assert_eq!(pool.first_attempt().await, Err(Reason::ConnectionRefused));
    let down = pool.run::<()>(&get("key")).await.unwrap_err();
    assert!(matches!(down, RedisError::Down { last_error: Reason::ConnectionRefused, .. }), "{down:?}");
    assert!(matches!(pool.acquire().await, Err(RedisError::Down { .. })));
    assert_eq!(pool.health().state, HealthState::Down);
    let stats = serde_json::to_value(pool.stats()).unwrap();
    assert_eq!((&stats["connected"], &stats["lastError"]), (&false.into(), &"connection refused".into()));
    let upstream = Upstream::default();
    let loaded =
        cache(&pool).get_or_load(&key("a"), &Policy::new(BOUND), upstream.load(ms(0))).await.unwrap();
    assert_eq!((loaded.value, loaded.source), (1, Source::Loaded));

    redis.start().await;
    let appeared = Instant::now();
    until(BOUND, || pool.is_up()).await;
    // Promised are 2 s; the rest is for a machine that does other things.
    assert!(appeared.elapsed() < ms(6_000), "connected after {:?}", appeared.elapsed());
    pool.run::<()>(&set("key", 1)).await.unwrap();
    assert_eq!(pool.health().state, HealthState::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_02_a_restart_under_load_fails_no_request_and_hits_come_back() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let policy = Policy::new(BOUND);
    // Believing level 1 for no time at all, every request asks Redis.
    let asking = CacheConfig { level1_ttl: ms(0), ..CacheConfig::default() };
    let cache = Cache::new(pool.clone(), asking);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let requests: Vec<_> = (0..20)
        .map(|task| {
            let (cache, stopped) = (cache.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !*stopped.borrow() {
                    for number in 0..10 {
                        let key = key(&format!("{}", (number + task) % 10));
                        let load = async move { Ok::<_, Infallible>(number) };
                        cache.get_or_load(&key, &policy, load).await.unwrap();
                        served += 1;
                    }
                }
                served
            })
        })
        .collect();
    let hits = |cache: &Cache| sample(&cache.samples(), pools_core::cache::REQUESTS, "hit_redis");
    until(BOUND, || hits(&cache) > 100.0).await;

    redis.stop().await;
    until(BOUND, || !pool.is_up()).await;
    redis.start().await;
    until(BOUND, || pool.is_up()).await;
    let before = hits(&cache);
    until(BOUND, || hits(&cache) > before + 100.0).await;

    stop.send_replace(true);
    for task in requests {
        assert!(task.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn redis_03_an_outage_of_more_than_all_retries_is_survived() {
    let redis = testkit::redis().await;
    // 10 retries by default, spent after about 7 s; with 2 the outage need not last a minute.
    let pool = open(RedisConfig { max_retries: 2, ..config(&redis.url()) }).await;
    redis.stop().await;
    until(BOUND, || pool.snapshot().totals.open_failures >= 5).await;
    assert!(!pool.is_up());

    redis.start().await;
    until(BOUND, || pool.is_up()).await;
    pool.run::<()>(&set("key", 1)).await.unwrap();
}

#[tokio::test]
async fn redis_04_a_frozen_server_costs_two_deadlines_then_nothing_and_is_used_again_after() {
    let redis = testkit::redis().await;
    let pool = open(RedisConfig { command_timeout: ms(200), ..config(&redis.url()) }).await;
    redis.freeze();
    for _ in 0..2 {
        let sent = Instant::now();
        let error = pool.run::<()>(&get("key")).await.unwrap_err();
        assert!(matches!(error, RedisError::Timeout { .. }), "{error:?}");
        assert!(sent.elapsed() < ms(2_000), "{:?}", sent.elapsed());
    }
    let down = pool.run::<()>(&get("key")).await.unwrap_err();
    assert!(matches!(down, RedisError::Down { last_error: Reason::Silent(_), .. }), "{down:?}");
    let calls = Instant::now();
    for _ in 0..1_000 {
        pool.run::<()>(&get("key")).await.unwrap_err();
    }
    assert!(calls.elapsed() < ms(1_000), "1,000 calls took {:?}", calls.elapsed());
    assert_eq!(pool.stats().state, Standing::Down);

    redis.thaw();
    until(BOUND, || pool.is_up()).await;
    pool.run::<()>(&set("key", 1)).await.unwrap();
}

#[tokio::test]
async fn redis_04_one_silence_is_followed_by_a_ping_not_by_another_callers_loss() {
    let redis = testkit::redis().await;
    let pool = open(RedisConfig { command_timeout: ms(200), ..config(&redis.url()) }).await;
    redis.freeze();
    assert!(matches!(pool.run::<()>(&get("key")).await, Err(RedisError::Timeout { .. })));
    until(BOUND, || pool.stats().state == Standing::Down).await;
    redis.thaw();
}

#[tokio::test]
async fn redis_05_a_half_open_connection_is_found_by_traffic_and_by_pings_without_it() {
    let redis = testkit::redis().await;
    let proxy = testkit::proxy(redis.port()).await;
    let config = RedisConfig { command_timeout: ms(200), ..config(&proxy.through(&redis.url())) };
    let busy = open(config.clone()).await;
    let idle = open(RedisConfig { ping_interval: ms(300), ..config }).await;

    proxy.set(Mode::BlackHole);
    let found = busy.run::<()>(&get("key")).await.unwrap_err();
    assert!(matches!(found, RedisError::Timeout { .. }), "{found:?}");
    until(BOUND, || !busy.is_up() && !idle.is_up()).await;

    proxy.set(Mode::Pass);
    until(BOUND, || busy.is_up() && idle.is_up()).await;
}

#[tokio::test]
async fn a_reset_is_noticed_without_traffic_and_mended_at_once() {
    let redis = testkit::redis().await;
    let proxy = testkit::proxy(redis.port()).await;
    let pool = open(config(&proxy.through(&redis.url()))).await;
    proxy.reset_all();
    until(BOUND, || pool.stats().connects >= 2 && pool.is_up()).await;
    pool.run::<()>(&set("key", 1)).await.unwrap();
}

#[tokio::test]
async fn redis_07_read_only_leads_to_one_reconnect_and_reads_go_on() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    pool.run::<()>(&set("key", 1)).await.unwrap();
    let nobody = testkit::free_port().to_string();
    redis.cli(&["REPLICAOF", "127.0.0.1", &nobody]).await;

    let refused = pool.run::<()>(&set("key", 2)).await.unwrap_err();
    assert!(matches!(&refused, RedisError::Refused { code, .. } if **code == *"READONLY"), "{refused:?}");
    until(BOUND, || pool.stats().connects == 2 && pool.is_up()).await;
    pool.run::<()>(&set("key", 2)).await.unwrap_err();
    assert_eq!(pool.run::<u32>(&get("key")).await.unwrap(), 1);
    assert_eq!(pool.stats().connects, 2);

    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    until_async(BOUND, async || pool.run::<()>(&set("key", 2)).await.is_ok()).await;
}

#[tokio::test]
async fn redis_25_a_server_that_never_answers_ends_the_attempt_by_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = testkit::black_hole().await;
    for port in [silent.local_addr().unwrap().port(), hanging.port()] {
        // 10 s by default.
        let limit = ms(300);
        let config = RedisConfig { connect_timeout: limit, ..config(&format!("redis://127.0.0.1:{port}")) };
        let started = Instant::now();
        let pool = RedisPool::open(config).unwrap();
        assert_eq!(pool.first_attempt().await, Err(Reason::ConnectTimeout(limit)));
        assert!(started.elapsed() < 10 * limit, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_dead_dedicated_connection_is_not_handed_out() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    drop(pool.acquire().await.unwrap());
    redis.kill_clients().await;
    until(BOUND, || pool.stats().connects == 2 && pool.is_up()).await;

    let mut lease = pool.acquire().await.unwrap();

    lease.run::<()>(cmd("PING").arg("hello")).await.unwrap();
}
