//! What stands before the routes: rate limits, client addresses, shedding, deadlines, CORS; and what happens when clients leave.

use http::Method;
use serde_json::json;
use testkit::Reply;
use tokio::time::Instant;

use crate::stack::{ADMIN, Answer, BOUND, Backend};

const LIMITED: [(&str, &str); 4] = [
    ("RATE_LIMIT", "on"),
    ("RATE_LIMIT_REQUESTS", "3"),
    ("RATE_LIMIT_COSTLY_REQUESTS", "2"),
    ("RATE_LIMIT_HEALTH_REQUESTS", "4"),
];

async fn limited(more: &[(&str, &str)]) -> Backend {
    Backend::start(&[&LIMITED[..], more].concat()).await
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// Status, limit and what remains.
fn standing(answer: &Answer) -> (u16, u32, u32) {
    let number = |name| header(answer, name).unwrap().parse().unwrap();
    (answer.status, number("ratelimit-limit"), number("ratelimit-remaining"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_group_of_routes_has_its_own_limit_and_says_so() {
    let backend = limited(&[("RATE_LIMIT_WINDOW", "600")]).await;
    let ordinary = "/api/loan-analytics/tokens";
    for remaining in [2, 1, 0] {
        assert_eq!(standing(&backend.must_get(ordinary).await), (503, 3, remaining));
    }
    let refused = backend.must_get("/api/loan-analytics/active").await;
    assert_eq!(standing(&refused), (429, 3, 0));
    assert_eq!(refused.body["code"], "rate_limited");
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert_eq!(header(&refused, "ratelimit-policy").unwrap(), "3;w=600");
    let reset = header(&refused, "retry-after").unwrap();
    assert_eq!(header(&refused, "ratelimit-reset").unwrap(), reset);
    assert!((1..=600).contains(&reset.parse::<u32>().unwrap()), "{reset}");

    // The others are untouched by that, and the costly ones by each other.
    assert_eq!(standing(&backend.must_get("/api/ml/health").await).1, 2);
    assert_eq!(standing(&backend.must_command("/api/liquidation/stop").await), (503, 2, 1));
    assert_eq!(standing(&backend.must_get("/health").await).1, 4);
    for _ in 0..4 {
        backend.must_get("/health").await;
    }
    assert_eq!(backend.must_get("/health").await.status, 429);
    for exempt in ["/health/live", "/health/ready", "/metrics", "/api/pools/stats"] {
        for _ in 0..20 {
            let answer = backend.must_get(exempt).await;
            assert_eq!((answer.status, header(&answer, "ratelimit-limit")), (200, None), "{exempt}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_the_limit_is_told_first_what_is_wrong_and_costs_nothing() {
    let upstream = testkit::ml_api().await;
    let backend = limited(&[("ML_SERVICE_URL", &upstream.url())]).await;
    for _ in 0..2 {
        assert_eq!(backend.must_post("/api/ml/predict", &json!({})).await.status, 200);
    }
    let asked = || upstream.asked("/predict");
    assert_eq!(asked(), 2);

    let predict = || backend.request(Method::POST, "/api/ml/predict");
    let json = "application/json";
    let cases = [
        (backend.request(Method::GET, "/api/ml/nothing"), 404),
        (backend.request(Method::DELETE, "/api/ml/predict"), 405),
        (predict().header("content-type", "text/plain").body("{}"), 415),
        (predict().header("content-type", json).body(vec![b' '; 11 << 20]), 413),
        (predict().header("content-type", json).body("{"), 400),
        (predict().json(&json!({})), 429),
    ];
    for (request, status) in cases {
        let answer = backend.send(request).await.unwrap_or_else(|| panic!("no answer, expected {status}"));
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    for _ in 0..3 {
        let answer = backend.send(backend.request(Method::POST, "/api/liquidation/start")).await.unwrap();
        assert_eq!(answer.status, 401, "{}", answer.text);
    }
    assert_eq!(backend.must_command("/api/liquidation/start").await.status, 429);
    assert_eq!(asked(), 2, "a refused request reached its upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_x_forwarded_for_changes_nothing() {
    let backend = limited(&[]).await;
    let from = |address: String| {
        let request = backend.request(Method::GET, "/api/loan-analytics/tokens");
        backend.send(request.header("x-forwarded-for", address))
    };
    for number in 0..3 {
        assert_ne!(from(format!("192.0.2.{number}")).await.unwrap().status, 429);
    }
    for made_up in ["192.0.2.9", "127.0.0.1, 10.0.0.1", "::1", "unknown", ""] {
        assert_eq!(from(made_up.to_owned()).await.unwrap().status, 429, "{made_up:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_client_counts_for_itself() {
    let backend = limited(&[("TRUSTED_PROXIES", "127.0.0.0/8, fd00::/8")]).await;
    let from = |address: &'static str| {
        let request = backend.request(Method::GET, "/api/loan-analytics/tokens");
        let request = request.header("x-forwarded-for", address);
        async { backend.send(request).await.unwrap().status }
    };
    for client in ["192.0.2.1", "2001:db8::1"] {
        for _ in 0..3 {
            assert_ne!(from(client).await, 429);
        }
        assert_eq!(from(client).await, 429);
    }
    // What the client itself wrote before its proxy; a neighbour of its IPv6 network; a second proxy of ours.
    assert_eq!(from("203.0.113.5, 192.0.2.1").await, 429);
    assert_eq!(from("2001:db8::ffff").await, 429);
    assert_eq!(from("192.0.2.1, fd00::7").await, 429);
    assert_ne!(from("192.0.2.2").await, 429);
    let line = backend.process.lines().into_iter().find(|line| line.contains("2001:db8::ffff"));
    assert!(line.is_some_and(|line| line.contains("\"client\"")), "the access log names the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_list_stops_the_start_and_off_is_off() {
    for (variable, bad) in [("TRUSTED_PROXIES", "10.0.0.0/40"), ("CORS_ORIGINS", "https://a.example/")] {
        let backend = Backend::launch(&[(variable, bad)]);
        assert_eq!(backend.process.wait(BOUND).await, 2);
        let line = backend.process.line_with(variable).unwrap();
        assert!(line.contains(bad), "{line}");
    }
    let backend = Backend::start(&[("RATE_LIMIT", "off"), ("RATE_LIMIT_REQUESTS", "1")]).await;
    for _ in 0..3 {
        let answer = backend.must_get("/api/loan-analytics/tokens").await;
        assert_eq!((answer.status, header(&answer, "ratelimit-limit")), (503, None));
    }
}

/// A backend whose ml-api never answers predictions, with the upstream's count of predictions under way.
async fn stuck(more: &[(&str, &str)]) -> (testkit::Upstream, Backend) {
    let upstream = testkit::upstream(|request| match &*request.target {
        "/predict" => Reply::never(),
        _ => Reply::json("{}"),
    })
    .await;
    let backend = Backend::start(&[&[("ML_SERVICE_URL", &*upstream.url())], more].concat()).await;
    (upstream, backend)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_may_take_is_what_is_left_of_the_request() {
    let (upstream, backend) = stuck(&[("REQUEST_TIMEOUT", "1")]).await;
    let began = Instant::now();
    let answer = backend.must_post("/api/ml/predict", &json!({})).await;
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (504, Some("upstream_timeout")),
        "{}",
        answer.text
    );
    assert!(began.elapsed() < BOUND / 2, "{:?}", began.elapsed());
    testkit::until(BOUND, || upstream.in_flight() == 0).await;
    let stats = backend.must_get("/api/pools/stats").await.body;
    assert_eq!((&stats["http"]["requests"], &stats["http"]["sockets"]), (&json!({}), &json!({})), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_client_goes_away_the_work_stops() {
    let (upstream, backend) = stuck(&[("REQUEST_TIMEOUT", "600")]).await;
    for leaves in ["closed", "half closed", "reset"] {
        let body = "POST /api/ml/predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        let mut client = tokio::net::TcpStream::connect(("127.0.0.1", backend.port)).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, body.as_bytes()).await.unwrap();
        testkit::until(BOUND, || upstream.in_flight() == 1).await;
        match leaves {
            "half closed" => tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap(),
            "reset" => client.set_zero_linger().unwrap(),
            _ => {}
        }
        if leaves != "half closed" {
            drop(client);
        }
        testkit::until(BOUND, || upstream.in_flight() == 0).await;
        testkit::until_async(BOUND, async || {
            backend.must_get("/api/pools/stats").await.body["http"]["sockets"] == json!({})
        })
        .await;
    }
    let metrics = backend.must_get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.contains("status=\"499\"")).expect("counted as gone");
    assert!(line.ends_with(" 3"), "{line}");
    backend.process.wait_for_line(BOUND, "the client went away").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_it_can_do_is_shed_and_the_operators_still_see_it() {
    let (upstream, backend) = stuck(&[("MAX_REQUESTS", "2")]).await;
    let stuck =
        async { backend.send(backend.request(Method::POST, "/api/ml/predict").json(&json!({}))).await };
    let asked = futures_util::future::join(stuck, async {
        testkit::until(BOUND, || upstream.in_flight() == 1).await;
        let second = backend.send(backend.request(Method::POST, "/api/ml/predict").json(&json!({})));
        let third = async {
            testkit::until(BOUND, || upstream.in_flight() == 2).await;
            let shed = backend.must_get("/api/loan-analytics/tokens").await;
            assert_eq!((shed.status, shed.body["code"].as_str()), (503, Some("overloaded")), "{}", shed.text);
            assert_eq!(header(&shed, "retry-after").unwrap(), "1");
            for exempt in ["/health", "/health/live", "/health/ready", "/metrics", "/api/pools/stats"] {
                assert_eq!(backend.must_get(exempt).await.status, 200, "{exempt}");
            }
            upstream.end_all(testkit::End::Close);
        };
        futures_util::future::join(second, third).await;
    });
    asked.await;
    testkit::until_async(BOUND, async || {
        backend.must_get("/api/loan-analytics/tokens").await.body["code"] == "upstream_not_configured"
    })
    .await;
    let metrics = backend.must_get("/metrics").await.text;
    assert!(metrics.contains("http_server_shed_total 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_named_origins_may_read_answers_and_every_answer_is_hardened() {
    let backend = Backend::start(&[("CORS_ORIGINS", "https://app.example, http://localhost:5173")]).await;
    let from = |method: Method, path: &str, origin: &'static str| {
        backend.request(method, path).header("origin", origin)
    };
    let allowed = "access-control-allow-origin";
    for (path, status) in [("/health", 200), ("/nowhere", 404), ("/api/loan-analytics/tokens", 503)] {
        let answer = backend.send(from(Method::GET, path, "http://localhost:5173")).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(header(&answer, allowed).as_deref(), Some("http://localhost:5173"), "{path}");
        let answer = backend.send(from(Method::GET, path, "https://evil.example")).await.unwrap();
        assert_eq!((answer.status, header(&answer, allowed)), (status, None), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("vary", "Origin"),
        ] {
            assert_eq!(header(&answer, name).as_deref(), Some(value), "{path}");
        }
        assert!(
            header(&answer, "content-security-policy").is_some() && header(&answer, "x-request-id").is_some()
        );
        assert_eq!(header(&answer, "server"), None);
    }
    let asks = from(Method::OPTIONS, "/api/ml/predict", "https://app.example");
    let asks = asks.header("access-control-request-method", "POST");
    let answer = backend.send(asks.header("access-control-request-headers", "content-type")).await.unwrap();
    assert_eq!(answer.status, 204);
    assert!(header(&answer, "access-control-allow-headers").unwrap().contains("Content-Type"));
    assert!(header(&answer, "access-control-allow-methods").unwrap().contains("POST"));
    assert_eq!(
        backend.must_command("/api/liquidation/stop").await.status,
        503,
        "{ADMIN} works without an origin"
    );
}
