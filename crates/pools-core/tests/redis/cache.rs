//! The two levels of the cache: ages, coherence, limits, trouble.

use std::{convert::Infallible, time::Duration};

use pools_core::{
    cache::{Cache, CacheConfig, CacheKey, Namespace, Policy, REQUESTS, Source, TROUBLES},
    redis::{RedisPool, cmd},
};
use testkit::{until, until_async};
use tokio::time::Instant;

use crate::support::{BOUND, KIND, Upstream, cache, config, connected, key, ms, sample, set};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_value_is_loaded_once_then_comes_from_level_1_and_from_redis_elsewhere() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let (here, elsewhere) = (cache(&pool), cache(&pool));
    let (policy, upstream) = (Policy::new(HOUR), Upstream::default());
    let mut sources = Vec::new();
    for cache in [&here, &here, &elsewhere, &elsewhere] {
        let cached = cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
        assert_eq!(cached.value, 1);
        sources.push(cached.source);
    }
    assert_eq!(sources, [Source::Loaded, Source::Level1, Source::Redis, Source::Level1]);
    assert_eq!(sample(&here.samples(), REQUESTS, "hit_l1"), 1.0);
    assert_eq!(sample(&elsewhere.samples(), REQUESTS, "hit_redis"), 1.0);
    assert_eq!(redis.cli(&["KEYS", "*"]).await, "kind:a", "a lock was left behind");
}

#[tokio::test]
async fn with_redis_down_level_1_goes_on_alone_and_publishes_what_it_has_when_redis_is_back() {
    let redis = testkit::redis().await;
    redis.stop().await;
    let pool = RedisPool::open(config(&redis.url())).unwrap();
    // Believed for no time: only because Redis is down, level 1 answers.
    let cache = Cache::new(pool.clone(), CacheConfig { level1_ttl: ms(0), ..CacheConfig::default() });
    let (policy, upstream) = (Policy::new(HOUR), Upstream::default());
    for _ in 0..10 {
        cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    }
    assert_eq!(upstream.loads(), 1);

    redis.start().await;
    until(BOUND, || pool.is_up()).await;
    let again = cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!((again.value, upstream.loads()), (1, 1));
    assert!(redis.cli(&["GET", "kind:a"]).await.ends_with("\n1"));
}

#[tokio::test]
async fn a_redis_that_lost_its_memory_is_given_the_values_again_and_nothing_is_loaded() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = Cache::new(pool.clone(), CacheConfig { level1_ttl: ms(0), ..CacheConfig::default() });
    let (policy, upstream) = (Policy::new(HOUR), Upstream::default());
    cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    redis.stop().await;
    redis.start().await;
    until(BOUND, || pool.stats().connects == 2 && pool.is_up()).await;

    cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!(upstream.loads(), 1);
    assert_eq!(redis.cli(&["EXISTS", "kind:a"]).await, "1");

    // Gone under the same connection, it was deleted by somebody: that is to be respected.
    redis.cli(&["DEL", "kind:a"]).await;
    cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!(upstream.loads(), 2);
}

#[tokio::test]
async fn redis_15_with_a_stale_value_a_failed_load_serves_that_and_marks_it() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = cache(&pool);
    let policy = Policy { stale_for: ms(0), stale_on_error: HOUR, ..Policy::new(ms(50)) };
    let upstream = Upstream::default();
    cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    until_async(BOUND, async || {
        let cached = cache.get_or_load(&key("a"), &policy, upstream.fail(ms(0))).await.unwrap();
        assert_eq!(cached.value, 1);
        cached.source == Source::Stale
    })
    .await;
    let renewed = cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!(renewed.source, Source::Loaded, "the upstream is back, its value is not");
}

#[tokio::test]
async fn redis_18_a_hot_key_is_refreshed_behind_its_readers() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = cache(&pool);
    let policy = Policy { stale_for: HOUR, ..Policy::new(ms(50)) };
    let (upstream, slow) = (Upstream::default(), ms(500));
    cache.get_or_load(&key("hot"), &policy, upstream.load(ms(0))).await.unwrap();
    let (mut times, mut newest) = (Vec::new(), 0);
    let started = Instant::now();
    while newest < 3 {
        let asked = Instant::now();
        newest = cache.get_or_load(&key("hot"), &policy, upstream.load(slow)).await.unwrap().value;
        times.push(asked.elapsed());
        assert!(started.elapsed() < BOUND, "never refreshed");
        tokio::time::sleep(ms(1)).await;
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < slow / 2, "p99 {p99:?} of {} includes a load", times.len());
    assert!(upstream.loads() <= 4, "{} loads for 3 values", upstream.loads());
}

#[tokio::test]
async fn a_failing_refresh_is_not_repeated_at_every_request() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = cache(&pool);
    let policy = Policy { stale_for: HOUR, ..Policy::new(ms(20)) };
    let upstream = Upstream::default();
    cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    let end = Instant::now() + ms(500);
    while Instant::now() < end {
        cache.get_or_load(&key("a"), &policy, upstream.fail(ms(0))).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!((2..=3).contains(&upstream.loads()), "{} loads in half a second", upstream.loads());
}

#[tokio::test]
async fn redis_19_ttls_of_10_000_keys_set_at_once_are_spread_by_the_jitter() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = cache(&pool);
    let policy = Policy { stale_for: ms(0), stale_on_error: ms(0), jitter: 0.2, ..Policy::new(HOUR) };
    let mut lives = Vec::new();
    for number in 0..10_000_u32 {
        let key = key(&number.to_string());
        cache.get_or_load(&key, &policy, async move { Ok::<_, Infallible>(number) }).await.unwrap();
        lives.push(pool.run::<u64>(cmd("PTTL").arg(key.as_str())).await.unwrap());
    }
    let hour = 3_600_000;
    assert!(lives.iter().all(|life| *life <= hour && *life > hour * 79 / 100), "outside the jitter");
    // Ten equal slices of the jitter: evenly spread, each gets about 1,000.
    for slice in 0..10 {
        let from = hour * 8 / 10 + slice * hour * 2 / 100;
        let within = lives.iter().filter(|life| (from..from + hour * 2 / 100).contains(*life)).count();
        assert!((500..1_500).contains(&within), "{within} of 10,000 expire in one tenth");
    }
}

#[tokio::test]
async fn redis_20_what_another_process_wrote_is_seen_after_the_level_1_ttl() {
    let redis = testkit::redis().await;
    let (ours, theirs) = (connected(&redis).await, connected(&redis).await);
    let here = Cache::new(ours, CacheConfig { level1_ttl: ms(100), ..CacheConfig::default() });
    let there = cache(&theirs);
    let (policy, upstream) = (Policy::new(HOUR), Upstream::default());
    for cache in [&here, &there] {
        cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    }
    there.remove(&key("a")).await.unwrap();
    let new = there.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!(new.value, 2);

    until_async(BOUND, async || {
        here.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap().value == 2
    })
    .await;
    assert_eq!(upstream.loads(), 2);
}

#[tokio::test]
async fn redis_21_a_poisoned_value_is_a_miss_and_is_counted() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let (policy, upstream) = (Policy::new(HOUR), Upstream::default());
    let old = Cache::new(pool.clone(), CacheConfig::default());
    let old_key = CacheKey::new(Namespace::new("kind", 0)).part("old version");
    old.get_or_load(&old_key, &policy, upstream.load(ms(0))).await.unwrap();
    let other = key("other type");
    old.get_or_load(&other, &policy, async { Ok::<_, Infallible>("text".to_owned()) }).await.unwrap();
    pool.run::<()>(&set("kind:garbage", b"\xff\xfe\n{}".as_slice())).await.unwrap();
    pool.run::<()>(cmd("RPUSH").arg("kind:list").arg("x")).await.unwrap();

    let cache = cache(&pool);
    for name in ["old version", "other type", "garbage", "list"] {
        let before = upstream.loads();
        let loaded = cache.get_or_load(&key(name), &policy, upstream.load(ms(0))).await.unwrap();
        assert_eq!((loaded.source, upstream.loads()), (Source::Loaded, before + 1), "{name}");
    }
    assert_eq!(sample(&cache.samples(), TROUBLES, "undecodable"), 3.0);
    // Overwritten: the next process finds a good value.
    let next = Cache::new(pool, CacheConfig::default());
    let healed = next.get_or_load(&key("garbage"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!(healed.source, Source::Redis);
    assert_eq!(KIND.version(), 1);
}

#[tokio::test]
async fn redis_22_level_1_stays_under_its_bound() {
    // Without Redis, and with 50,000 keys instead of a million: 50 MB of values against a bound of 2 MB.
    let pool = RedisPool::open(config(&format!("redis://127.0.0.1:{}", testkit::free_port()))).unwrap();
    let bound = 2 << 20;
    let cache = Cache::new(pool, CacheConfig { level1_bytes: bound, ..CacheConfig::default() });
    let policy = Policy::new(HOUR);
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let (mut most, mut largest) = (0, 0);
    for number in 0..50_000 {
        let load = async { Ok::<_, Infallible>("x".repeat(1_000)) };
        cache.get_or_load(&key(&format!("{number}")), &policy, load).await.unwrap();
        if number % 1_000 == 0 {
            most = most.max(cache.level1_bytes());
            largest = largest.max(resident() - before);
        }
    }
    assert!(most <= bound + bound / 10, "{most} bytes");
    assert!(largest < 8 * bound, "the process grew by {largest} bytes");
}

#[tokio::test]
async fn redis_23_at_maxmemory_writes_fail_quietly_and_are_counted_and_reads_go_on() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let (policy, upstream) = (Policy::new(HOUR), Upstream::default());
    cache(&pool).get_or_load(&key("early"), &policy, upstream.load(ms(0))).await.unwrap();
    // One byte, so that the server is full: `noeviction` is its default.
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let cache = cache(&pool);
    let late = cache.get_or_load(&key("late"), &policy, upstream.load(ms(0))).await.unwrap();
    let early = cache.get_or_load(&key("early"), &policy, upstream.load(ms(0))).await.unwrap();

    assert_eq!((late.source, early.source), (Source::Loaded, Source::Redis));
    assert_eq!(sample(&cache.samples(), TROUBLES, "write"), 1.0);
    assert!(pool.is_up());
}

#[tokio::test]
async fn a_value_over_the_limit_is_returned_and_not_stored() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = Cache::new(pool, CacheConfig { value_limit: 1_000, ..CacheConfig::default() });
    let policy = Policy::new(HOUR);
    for _ in 0..2 {
        let load = async { Ok::<_, Infallible>("x".repeat(2_000)) };
        let cached = cache.get_or_load(&key("large"), &policy, load).await.unwrap();
        assert_eq!((cached.value.len(), cached.source), (2_000, Source::Loaded));
    }
    assert_eq!(redis.cli(&["EXISTS", "kind:large"]).await, "0");
    assert_eq!(sample(&cache.samples(), TROUBLES, "not_stored"), 2.0);
}

#[tokio::test]
async fn nothing_there_is_believed_for_its_own_shorter_time() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let policy = Policy {
        stale_for: ms(0),
        stale_on_error: ms(0),
        negative_ttl: Duration::from_secs(10),
        ..Policy::new(HOUR)
    };
    let load = async { Ok::<_, Infallible>(None::<u32>) };
    let cached = cache(&pool).get_or_load(&key("nobody"), &policy, load).await.unwrap();
    assert_eq!(cached.value, None);
    let left = pool.run::<u64>(cmd("PTTL").arg("kind:nobody")).await.unwrap();
    assert!((1..=10_000).contains(&left), "{left} ms");
}
