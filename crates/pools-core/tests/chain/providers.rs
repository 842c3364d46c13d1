//! Which providers exist, what of them is shown, and how they end.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use pools_core::{
    chain::{ChainConfig, ChainError},
    pool::Pool,
};
use serde_json::json;
use testkit::{Fault, Reply, RpcError};
use tokio::time::Instant;

use crate::support::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything that is logged while the guard lives, down to `trace`.
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while logging")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while logging").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn chain_28_a_hundred_askers_of_a_url_get_one_provider_and_it_is_announced_once() {
    let (log, _guard) = Log::capture();
    let node = node().await;
    let pool = pool(&node.url());
    let spellings = [node.url(), format!("{}/", node.url()), format!(" {}#x", node.url())];
    let askers = (0..100).map(|n| {
        let (pool, url) = (pool.clone(), spellings[n % 3].clone());
        tokio::spawn(async move { read(&pool.provider_for(&url).unwrap(), 7).await.unwrap() })
    });
    for asker in futures_util::future::join_all(askers).await {
        assert_eq!(asker.unwrap(), 7);
    }
    let stats = serde_json::to_value(pool.stats()).unwrap();
    assert_eq!(stats, json!({"activeProviders": 1, "providers": [node.url()]}));
    let announced = format!("Created pooled blockchain provider for {}", node.url());
    assert_eq!(log.text().matches(&announced).count(), 1, "{}", log.text());
    assert_eq!(node.calls("eth_chainId"), 1);
}

#[tokio::test]
async fn chain_28_an_idle_provider_leaves_after_its_time_but_never_while_it_is_in_use() {
    let (main, other) = (node().await, node().await);
    let pool = pool_with(ChainConfig { provider_ttl: Duration::from_secs(1), ..config(&main.url()) });
    let provider = pool.provider_for(&other.url()).unwrap();
    read(&provider, 1).await.unwrap();
    let held_until = Instant::now() + Duration::from_millis(1_500);
    testkit::until(Duration::from_secs(10), || Instant::now() > held_until).await;
    assert_eq!(pool.stats().active_providers, 2, "dropped while it was held");
    drop(provider);
    testkit::until(Duration::from_secs(10), || pool.stats().active_providers == 1).await;
    assert_eq!(pool.stats().providers, [main.url()]);
    assert_eq!(read(&pool.provider_for(&other.url()).unwrap(), 2).await.unwrap(), 2, "it cannot come back");
}

#[tokio::test]
async fn chain_27_a_key_in_path_query_or_userinfo_appears_nowhere() {
    let (log, _guard) = Log::capture();
    let node = testkit::rpc_node(|method, params| match method {
        "eth_chainId" => Ok(json!(CHAIN)),
        _ if params[0] == 1 => Err(RpcError::new(-32000, "no access for PATHSECRET with QUERYSECRET")),
        _ => honest(method, params),
    })
    .await;
    let host = node.url().replace("http://", "");
    let url = format!("http://USERSECRET:PASSSECRET@{host}/v3/PATHSECRET?key=QUERYSECRET");
    let pool = pool(&url);
    let provider = ready(&pool).await;
    let mut shown = String::new();
    for n in [1, 2] {
        shown += &read(&provider, n).await.map_or_else(|error| everything(&error), |n| n.to_string());
    }
    assert!(node.seen().iter().all(|request| request.target == "/v3/PATHSECRET?key=QUERYSECRET"));
    assert!(node.seen().iter().all(|request| request.header("authorization").is_some()));
    for fault in [
        Fault::Answer(Reply::new(500).body("at /v3/PATHSECRET?key=QUERYSECRET for USERSECRET:PASSSECRET")),
        Fault::Answer(Reply::new(401).body("PATHSECRET")),
        Fault::Html { status: 200 },
        Fault::Answer(Reply::none(testkit::End::Reset)),
    ] {
        node.misbehave(move |_| fault.clone());
        shown += &everything(&read(&provider, 3).await.unwrap_err());
    }
    node.stop().await;
    testkit::until(Duration::from_secs(20), || !pool.is_up()).await;
    shown += &everything(&read(&provider, 4).await.unwrap_err());
    shown += &format!("{pool:?} {provider:?} {:?} {:?} {:?}", pool.stats(), pool.snapshot(), pool.health());
    shown += &serde_json::to_string(&pool.stats()).unwrap();
    shown += &log.text();
    assert!(shown.contains(&format!("http://{host}/...")), "the endpoint is not shown at all");
    for secret in ["USERSECRET", "PASSSECRET", "PATHSECRET", "QUERYSECRET"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let error = pool.provider_for("ftp://host/PATHSECRET").unwrap_err();
    assert!(!everything(&error).contains("PATHSECRET"));
}

#[tokio::test]
async fn a_bad_rpc_url_takes_away_the_chain_and_nothing_else() {
    let pool = pool("my secret");
    let error = read(&pool.provider(), 1).await.unwrap_err();
    assert!(matches!(error, ChainError::BadUrl { .. }), "{error:?}");
    assert!(error.is_unavailable() && !pool.is_up());
    assert!(!format!("{:?}", pool.health()).contains("secret"));
}

#[tokio::test]
async fn drain_lets_calls_finish_refuses_new_ones_and_names_what_it_cuts() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::Late(Duration::from_millis(300))));
    let under_way = tokio::spawn({
        let provider = provider.clone();
        async move { futures_util::future::join_all((0..100).map(|n| read(&provider, n))).await }
    });
    testkit::until(Duration::from_secs(5), || node.requests() > 1).await;
    let drained = pool.drain(Instant::now() + Duration::from_secs(10)).await;
    assert_eq!(drained.cut, Vec::<String>::new());
    assert!(under_way.await.unwrap().iter().all(Result::is_ok));
    assert!(matches!(read(&provider, 1).await, Err(ChainError::Closed)));
    assert!(pool.drain(Instant::now()).await.cut.is_empty(), "draining twice is harmless");
}

#[tokio::test]
async fn drain_cuts_at_its_deadline() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    node.misbehave(calls(|_| Fault::Answer(Reply::never())));
    let stuck = tokio::spawn(async move { read(&provider, 1).await });
    testkit::until(Duration::from_secs(5), || node.calls("eth_getBalance") == 1).await;
    let drained = pool.drain(Instant::now() + Duration::from_millis(100)).await;
    assert_eq!(drained.cut, ["eth_getBalance"]);
    assert!(matches!(stuck.await.unwrap(), Err(ChainError::Closed)));
    testkit::until(Duration::from_secs(5), || node.in_flight() == 0).await;
}

#[tokio::test]
async fn dropping_the_pool_ends_its_tasks_and_closes_its_sockets() {
    let node = node().await;
    let pool = pool(&node.url());
    let provider = ready(&pool).await;
    read_all(&provider, 0..100).await;
    assert!(node.open() > 0);
    drop(pool);
    assert!(matches!(read(&provider, 1).await, Err(ChainError::Closed)));
    drop(provider);
    testkit::until(Duration::from_secs(10), || node.open() == 0).await;
}
