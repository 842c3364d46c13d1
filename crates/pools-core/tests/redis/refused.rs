//! A Redis that does not want us, and secrets that stay secret.

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, Mutex},
};

use pools_core::{
    pool::Pool,
    redis::{Reason, RedisConfig, RedisError, RedisPool},
};
use testkit::{RedisOptions, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{BOUND, config, get, ms, open};

async fn first_reason(config: RedisConfig) -> (RedisPool, Reason) {
    let pool = RedisPool::open(config).unwrap();
    let reason = pool.first_attempt().await.unwrap_err();
    (pool, reason)
}

#[tokio::test]
async fn redis_06_a_refused_login_is_told_by_its_reason_and_not_retried_quickly() {
    let options = RedisOptions { password: Some("sesame".into()), ..RedisOptions::default() };
    let redis = testkit::redis_with(options).await;
    let port = redis.port();
    let cases = [
        (format!("redis://:wrong@127.0.0.1:{port}"), Reason::WrongPassword),
        (format!("redis://127.0.0.1:{port}"), Reason::LoginRequired),
        (format!("redis://:sesame@127.0.0.1:{port}/99"), Reason::WrongDatabase(99)),
    ];
    let mut pools = Vec::new();
    for (url, expected) in cases {
        let (pool, reason) = first_reason(config(&url)).await;
        assert_eq!(reason, expected);
        assert_eq!(pool.stats().last_error, Some(expected.to_string()));
        assert_eq!(pool.health().reason, Some(expected.to_string()));
        pools.push(pool);
    }
    // Nothing should happen for 30 s; an ordinary backoff would have made three attempts by now.
    tokio::time::sleep(ms(800)).await;
    for pool in pools {
        assert_eq!(pool.snapshot().totals.open_failures, 1);
    }
}

#[tokio::test]
async fn redis_06_maxclients_is_told_by_its_reason_and_ends_when_there_is_room() {
    let redis = testkit::redis_with(RedisOptions { max_clients: Some(1), ..RedisOptions::default() }).await;
    let holder = open(config(&redis.url())).await;

    let (pool, reason) = first_reason(config(&redis.url())).await;

    assert_eq!(reason, Reason::TooManyClients);
    drop(holder);
    until(BOUND, || pool.is_up()).await;
}

#[tokio::test]
async fn a_url_that_can_never_work_is_refused_at_once_without_being_shown() {
    for url in
        ["", "http://:hunter2@localhost", "redis://:hunter2@localhost/x", "hunter2", "rediss://h/#insecure"]
    {
        let error = RedisPool::open(config(url)).unwrap_err();
        assert!(matches!(error, RedisError::Url(_)), "{url}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Log lines of this test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers like a Redis 5: repeats the login it was sent.
async fn redis_5() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut login = [0; 512];
            let _read = socket.read(&mut login).await;
            let refusal =
                "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `bob`, `hunter2`,\r\n";
            let _written = socket.write_all(refusal.repeat(4).as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn redis_24_secrets_of_the_url_appear_nowhere() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    let subscriber = subscriber.with_writer(move || lines.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let redis = testkit::redis().await;
    let mut seen = String::new();
    for port in [redis.port(), redis_5().await, testkit::free_port()] {
        let config = config(&format!("redis://bob:hunter2@127.0.0.1:{port}/3?token=hunter2"));
        let (pool, reason) = first_reason(config.clone()).await;
        let run = pool.run::<()>(&get("key")).await.unwrap_err();
        let lease = pool.acquire().await.unwrap_err();
        let drained = pool.drain(tokio::time::Instant::now() + BOUND).await;
        let stats = serde_json::to_string(&pool.stats()).unwrap();
        let shown = (&config, &pool, &reason, &run, &lease, &drained, pool.health(), pool.snapshot());
        writeln!(seen, "{shown:?} {reason} {run} {lease} {stats}").unwrap();
    }
    seen.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(seen.contains("cannot connect"), "the log was not captured");
    assert!(seen.contains("older than Redis 6"), "{seen}");
    for secret in ["hunter2", "bob"] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}
