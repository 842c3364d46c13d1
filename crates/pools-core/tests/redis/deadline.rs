//! Commands of an incoming request get what is left of its time.

use std::time::Duration;

use pools_core::{
    redis::{RedisConfig, RedisError},
    resilience::deadline,
};
use tokio::time::Instant;

use crate::support::{BOUND, config, get, ms, open, set};

#[tokio::test]
async fn a_command_ends_with_its_request_and_an_impatient_request_is_no_silence_of_the_server() {
    let redis = testkit::redis().await;
    let pool = open(RedisConfig { command_timeout: ms(10_000), ..config(&redis.url()) }).await;
    redis.freeze();
    for _ in 0..5 {
        let sent = Instant::now();
        let error = deadline::scope(sent + ms(100), pool.run::<()>(&get("key"))).await.unwrap_err();
        assert!(matches!(error, RedisError::Timeout { after } if after <= ms(100)), "{error:?}");
        assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
    }
    assert!(pool.is_up(), "five impatient requests took the server for dead");
    redis.thaw();
    testkit::until_async(BOUND, async || pool.run::<()>(&set("key", 1)).await.is_ok()).await;
}
