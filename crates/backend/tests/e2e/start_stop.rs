//! From the first line to the exit code.

use std::time::Duration;

use serde_json::json;
use testkit::{Reply, Signal};
use tokio::time::Instant;

use crate::stack::{BOUND, Backend, seeded_chain};

/// Hang guard, ten times the second that is expected; what was measured is printed.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn with_every_server_absent_it_is_live_at_once_and_says_what_is_missing() {
    let started = Instant::now();
    let backend = Backend::launch(&[]);
    testkit::until_async(SOON, async || backend.get("/health/live").await.is_some_and(|a| a.status == 200))
        .await;
    println!("live after {:?}", started.elapsed());

    let health = backend.must_get("/health").await.body;
    assert_eq!(health["status"], "degraded");
    for service in ["redis", "chain", "ml"] {
        assert_eq!(health["services"][service], "down", "{health}");
    }
    for service in ["liquidation", "etherscan", "pinata", "gemini"] {
        assert_eq!(health["services"][service], "not_configured", "{health}");
    }
    for line in
        ["Initializing connection pools...", "Connection pools initialized", "Running without Redis cache"]
    {
        backend.process.wait_for_line(BOUND, line).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_is_picked_up_when_it_appears() {
    let (redis, anvil) = (testkit::redis().await, testkit::anvil().await);
    let ml = testkit::upstream(|_| Reply::json(json!({ "status": "live" }).to_string())).await;
    redis.stop().await;
    anvil.stop().await;
    ml.stop().await;
    let backend = Backend::start(&[
        ("REDIS_URL", &redis.url()),
        ("RPC_URL", &anvil.url()),
        ("ML_SERVICE_URL", &ml.url()),
    ])
    .await;
    testkit::until_async(BOUND, async || backend.health_of("redis").await == "down").await;

    for service in ["redis", "chain", "ml"] {
        match service {
            "redis" => redis.start().await,
            "chain" => anvil.start().await,
            _ => ml.start().await,
        };
        let appeared = Instant::now();
        testkit::until_async(2 * SOON, async || backend.health_of(service).await == "up").await;
        println!("{service} picked up after {:?}", appeared.elapsed());
    }
    assert_eq!(backend.must_get("/health").await.body["status"], "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_messages_appear_word_for_word() {
    let redis = testkit::redis().await;
    let (anvil, chain) = seeded_chain().await;
    let backend = Backend::start(&[
        ("REDIS_URL", &redis.url()),
        ("RPC_URL", &anvil.url()),
        ("LOANVERSE_CONTRACT_ADDRESS", &chain.contract),
    ])
    .await;
    let provider = format!("Created pooled blockchain provider for {}", anvil.url().trim_end_matches('/'));
    let expected = [
        "Initializing connection pools...",
        "Redis connection pool ready",
        &provider,
        "Connection pools initialized",
    ];
    for text in expected {
        let line = backend.process.wait_for_line(BOUND, text).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON when not on a terminal");
        assert_eq!(line["message"], text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_in_flight_are_answered_and_nothing_is_left() {
    for signal in [Signal::Term, Signal::Int] {
        let redis = testkit::redis().await;
        let anvil = testkit::anvil().await;
        let upstream = testkit::upstream(|request| {
            let reply = Reply::json(json!({ "success": true, "prediction": {}, "model": "m" }).to_string());
            let slow = request.method == "POST";
            reply.delay(Duration::from_millis(if slow { 1_000 } else { 0 }))
        })
        .await;
        let backend = Backend::start(&[
            ("REDIS_URL", &redis.url()),
            ("RPC_URL", &anvil.url()),
            ("ML_SERVICE_URL", &upstream.url()),
        ])
        .await;
        testkit::until_async(BOUND, async || backend.must_get("/health").await.body["status"] == "healthy")
            .await;

        let asked = (0..100).map(|_| async { backend.must_post("/api/ml/predict", &json!({})).await.status });
        let (answers, ()) = tokio::join!(futures_util::future::join_all(asked), async {
            // 50 are at the upstream and 50 wait in the pool: all 100 have been accepted.
            testkit::until_async(BOUND, async || {
                let stats = backend.must_get("/metrics").await.text;
                stats.lines().any(|line| line == "http_server_active_requests 101")
            })
            .await;
            backend.process.signal(signal);
        });

        assert!(answers.iter().all(|status| *status == 200), "{signal:?}: {answers:?}");
        assert_eq!(
            backend.process.wait(BOUND).await,
            0,
            "{signal:?}: {}",
            backend.process.lines().join("\n")
        );
        testkit::until_async(BOUND, async || redis.clients("pools-core").await.is_empty()).await;
        testkit::until(BOUND, || upstream.open() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_cut_and_the_exit_code_says_so() {
    let upstream = testkit::upstream(|request| {
        if request.method == "POST" { Reply::never() } else { Reply::json(json!({}).to_string()) }
    })
    .await;
    let backend = Backend::start(&[("ML_SERVICE_URL", &upstream.url()), ("SHUTDOWN_TIMEOUT", "1")]).await;
    let body = json!({});
    let asked = backend.request(http::Method::POST, "/api/ml/predict").json(&body);
    let (_cut, ()) = tokio::join!(backend.send(asked), async {
        testkit::until(BOUND, || upstream.seen().iter().any(|request| request.method == "POST")).await;
        backend.process.signal(Signal::Term);
        assert_eq!(backend.process.wait(BOUND).await, 1);
    });
    assert!(backend.process.line_with("1 requests").is_some(), "{}", backend.process.lines().join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_ends_with_the_signal_while_accepted_connections_go_on() {
    let backend = Backend::start(&[("SHUTDOWN_DELAY", "3")]).await;
    backend.process.signal(Signal::Term);
    testkit::until_async(SOON, async || {
        backend.get("/health/ready").await.is_some_and(|answer| answer.status == 503)
    })
    .await;
    assert_eq!(backend.must_get("/health/live").await.status, 200);
    assert_eq!(backend.process.wait(BOUND).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_exits_at_once() {
    let backend = Backend::start(&[("SHUTDOWN_DELAY", "600")]).await;
    backend.process.signal(Signal::Term);
    backend.process.wait_for_line(BOUND, "shutting down").await;
    backend.process.signal(Signal::Term);
    assert_eq!(backend.process.wait(SOON).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_stops_the_start_and_is_named() {
    for (name, value, expected) in [
        ("HTTP_MAX_SOCKET", "5", "did you mean HTTP_MAX_SOCKETS?"),
        ("HTTP_MAX_SOCKETS", "0", "HTTP_MAX_SOCKETS: \"0\" is not in 1..=10000 connections"),
        ("PORT", "http", "PORT: \"http\""),
        ("REDIS_URL", "http://x:SECRET@y", "REDIS_URL"),
        ("LOANVERSE_CONTRACT_ADDRESS", "0x12", "LOANVERSE_CONTRACT_ADDRESS"),
        ("LOG_LEVEL", "loud=very=much", "LOG_LEVEL"),
    ] {
        let backend = Backend::launch(&[(name, value)]);
        assert_eq!(backend.process.wait(SOON).await, 2, "{name}={value}");
        let lines = backend.process.lines().join("\n");
        assert!(lines.contains(expected) && !lines.contains("SECRET"), "{name}={value}: {lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_next_step() {
    let first = Backend::start(&[]).await;
    let port = first.port.to_string();
    let second = Backend::launch(&[("PORT", &port)]);
    assert_eq!(second.process.wait(SOON).await, 2);
    assert!(second.process.line_with("free it or set PORT").is_some(), "{:?}", second.process.lines());
}
