//! The Redis of the kit.

use std::time::Duration;

use testkit::{RedisOptions, until_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn clients_are_found_by_their_name_until_they_go() {
    let redis = testkit::redis().await;
    let mut client = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    client.write_all(b"CLIENT SETNAME pool\r\n").await.unwrap();
    until_async(BOUND, async || redis.clients("pool").await.len() == 1).await;

    assert_eq!(redis.kill_clients().await, 1);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();

    assert_eq!(rest, b"+OK\r\n");
    assert!(redis.clients("pool").await.is_empty());
}

#[tokio::test]
async fn a_password_is_asked_for_and_used() {
    let options = RedisOptions { password: Some("sesame".into()), ..RedisOptions::default() };
    let redis = testkit::redis_with(options).await;

    assert_eq!(redis.cli(&["PING"]).await, "PONG");
    assert_eq!(redis.url(), format!("redis://:sesame@127.0.0.1:{}", redis.port()));
    let mut stranger = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    stranger.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    stranger.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"-NOAUTH");
}

#[tokio::test]
async fn stop_start_freeze_and_thaw_keep_the_port() {
    let redis = testkit::redis().await;
    redis.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).await.is_err());
    redis.start().await;

    redis.freeze();
    let mut client = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    client.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    assert!(timeout(Duration::from_millis(100), client.read_exact(&mut answer)).await.is_err());
    redis.thaw();

    timeout(BOUND, client.read_exact(&mut answer)).await.expect("still frozen").unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_panics_leaves_no_server() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let redis = testkit::redis().await;
        tell.send(redis.port()).unwrap();
        panic!("on purpose");
    });
    let port = told.await.unwrap();

    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());

    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
