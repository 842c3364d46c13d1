//! Many callers of one key: in this process, in two, failing, cancelled, panicking.

use std::convert::Infallible;

use pools_core::{
    cache::{Cache, CacheConfig, LOADS, LoadError, Policy, Source},
    redis::RedisPool,
};
use testkit::until;
use tokio::time::Instant;

use crate::support::{BOUND, Upstream, cache, config, connected, key, ms, sample};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_14_a_thousand_concurrent_misses_of_one_key_are_one_load() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let (cache, policy, upstream) = (cache(&pool), Policy::new(BOUND), Upstream::default());
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, load) = (cache.clone(), upstream.load(ms(100)));
            tokio::spawn(async move { cache.get_or_load(&key("a"), &policy, load).await.unwrap().value })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 1);
    }
    assert_eq!(upstream.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_14_without_redis_as_well() {
    let nowhere = format!("redis://127.0.0.1:{}", testkit::free_port());
    let pool = RedisPool::open(config(&nowhere)).unwrap();
    let (cache, policy, upstream) = (cache(&pool), Policy::new(BOUND), Upstream::default());
    let callers = (0..1_000).map(|_| {
        let (cache, load) = (cache.clone(), upstream.load(ms(100)));
        tokio::spawn(async move { cache.get_or_load(&key("a"), &policy, load).await.unwrap().value })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), 1);
    }
    assert_eq!(upstream.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_14_in_two_processes_as_well() {
    let redis = testkit::redis().await;
    // Two pools with a cache each share nothing but Redis, as two processes do.
    let caches = [cache(&connected(&redis).await), cache(&connected(&redis).await)];
    let (policy, upstream) = (Policy::new(BOUND), Upstream::default());
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let (cache, load) = (caches[number % 2].clone(), upstream.load(ms(200)));
            tokio::spawn(async move { cache.get_or_load(&key("a"), &policy, load).await.unwrap() })
        })
        .collect();
    let mut from_redis = 0;
    for caller in callers {
        let cached = caller.await.unwrap();
        assert_eq!(cached.value, 1);
        from_redis += u32::from(cached.source == Source::Redis);
    }
    assert_eq!(upstream.loads(), 1);
    assert_eq!(from_redis, 100, "the other process did not wait for Redis");
}

#[tokio::test]
async fn a_process_that_dies_with_the_lock_delays_the_others_no_longer_than_they_would_wait() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let cache = Cache::new(pool, CacheConfig { lock_wait: ms(200), ..CacheConfig::default() });
    redis.cli(&["SET", "kind:a:lock", "of somebody who is no more"]).await;
    let (policy, upstream) = (Policy::new(BOUND), Upstream::default());
    let loaded = cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!(loaded.source, Source::Loaded);
    assert_eq!(redis.cli(&["EXISTS", "kind:a:lock"]).await, "1", "another's lock was deleted");
}

#[tokio::test]
async fn redis_15_a_failed_load_is_an_error_for_all_callers_and_is_not_cached() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let (cache, policy, upstream) = (cache(&pool), Policy::new(BOUND), Upstream::default());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, load) = (cache.clone(), upstream.fail(ms(50)));
            tokio::spawn(async move { cache.get_or_load(&key("a"), &policy, load).await })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        let LoadError::Failed(cause) = error else { panic!("{error:?}") };
        assert_eq!(cause.to_string(), "the upstream is away");
    }
    assert_eq!(upstream.loads(), 1);
    assert_eq!(redis.cli(&["EXISTS", "kind:a"]).await, "0");

    let loaded = cache.get_or_load(&key("a"), &policy, upstream.load(ms(0))).await.unwrap();
    assert_eq!((loaded.value, loaded.source), (2, Source::Loaded));
}

#[tokio::test]
async fn redis_16_when_the_loading_caller_is_cancelled_another_takes_over() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    // A lock that is not given back would outlast the test.
    let config = CacheConfig { lock_ttl: 10 * BOUND, lock_wait: 10 * BOUND, ..CacheConfig::default() };
    let (cache, policy, upstream) = (Cache::new(pool, config), Policy::new(BOUND), Upstream::default());
    let caller = |load| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get_or_load(&key("a"), &policy, load).await.unwrap().value })
    };
    let leader = caller(upstream.load(100 * BOUND));
    until(BOUND, || upstream.loads() == 1).await;
    let others: Vec<_> = (0..10).map(|_| caller(upstream.load(ms(10)))).collect();
    let started = Instant::now();

    leader.abort();

    for other in others {
        assert_eq!(other.await.unwrap(), 2);
    }
    assert!(started.elapsed() < BOUND);
    assert_eq!(sample(&cache.samples(), LOADS, "cancelled"), 1.0);
}

#[tokio::test]
async fn redis_17_a_panicking_load_is_an_error_for_its_callers_only() {
    let redis = testkit::redis().await;
    let pool = connected(&redis).await;
    let (cache, policy) = (cache(&pool), Policy::new(BOUND));
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let cache = cache.clone();
            let load = async {
                tokio::time::sleep(ms(50)).await;
                panic!("on purpose")
            };
            tokio::spawn(
                async move { cache.get_or_load::<u32, Infallible, _>(&key("a"), &policy, load).await },
            )
        })
        .collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(LoadError::Panicked)));
    }
    let loaded = cache.get_or_load(&key("a"), &policy, async { Ok::<_, Infallible>(7_u32) }).await.unwrap();
    assert_eq!(loaded.value, 7);
    assert_eq!(sample(&cache.samples(), LOADS, "panicked"), 1.0);
}
