//! What the tests share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use pools_core::{
    cache::{Cache, CacheConfig, CacheKey, Namespace},
    redis::{Cmd, RedisConfig, RedisPool, cmd},
};
use testkit::Redis;

/// A hang guard: ten times what anything here is expected to take.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) const KIND: Namespace = Namespace::new("kind", 1);

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Settings for `url`, otherwise the defaults but for a command deadline that a loaded machine keeps.
pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig { url: url.into(), command_timeout: ms(1_000), ..RedisConfig::default() }
}

/// A pool that is connected.
pub(crate) async fn connected(redis: &Redis) -> RedisPool {
    open(config(&redis.url())).await
}

pub(crate) async fn open(config: RedisConfig) -> RedisPool {
    let pool = RedisPool::open(config).unwrap();
    pool.first_attempt().await.unwrap();
    pool
}

pub(crate) fn get(key: &str) -> Cmd {
    let mut command = cmd("GET");
    command.arg(key);
    command
}

pub(crate) fn set(key: &str, value: impl pools_core::redis::ToRedisArgs) -> Cmd {
    let mut command = cmd("SET");
    command.arg(key).arg(value);
    command
}

pub(crate) fn key(name: &str) -> CacheKey {
    CacheKey::new(KIND).part(name)
}

pub(crate) fn cache(pool: &RedisPool) -> Cache {
    Cache::new(pool.clone(), CacheConfig::default())
}

/// Counts the loads it makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream(Arc<AtomicU32>);

impl Upstream {
    pub(crate) fn loads(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Takes `time` to answer with the number of this load, from 1.
    pub(crate) fn load(
        &self,
        time: Duration,
    ) -> impl Future<Output = Result<u32, std::io::Error>> + Send + use<> {
        let this = self.clone();
        async move {
            let number = this.0.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(time).await;
            Ok(number)
        }
    }

    /// Counts, takes `time`, and fails.
    pub(crate) fn fail(
        &self,
        time: Duration,
    ) -> impl Future<Output = Result<u32, std::io::Error>> + Send + use<> {
        let load = self.load(time);
        async move {
            load.await?;
            Err(std::io::Error::other("the upstream is away"))
        }
    }
}

/// The value of one metric of a cache or a pool.
pub(crate) fn sample(samples: &[pools_core::stats::Sample], name: &str, label: &str) -> f64 {
    let of_name = samples.iter().filter(|sample| sample.name == name);
    of_name.filter(|sample| sample.labels.iter().any(|(_, value)| *value == label)).map(|s| s.value).sum()
}
