//! `/api/matching/*` on the real ml-api with a real database.

use serde_json::{Value, json};
use testkit::{Postgres, Reply, Service};

use crate::stack::{Answer, BOUND, Backend, program};

const DAY: u64 = 86_400;
const BORROWER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const LENDER: &str = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc";

struct Stack {
    backend: Backend,
    _ml: Service,
    _postgres: Postgres,
}

async fn stack() -> Stack {
    let (postgres, port) = (testkit::postgres().await, testkit::free_port());
    let variables =
        [("ML_PORT", port.to_string()), ("DATABASE_URL", postgres.url()), ("RATE_LIMIT", "off".to_owned())];
    let ml = testkit::service(
        program("ml-api"),
        &[],
        &variables.each_ref().map(|(name, value)| (*name, value.as_str())),
    );
    let url = format!("http://127.0.0.1:{port}");
    let backend = Backend::start(&[("ML_SERVICE_URL", &url), ("RATE_LIMIT", "off")]).await;
    testkit::until_async(BOUND, async || backend.must_get("/api/matching/market-stats").await.status == 200)
        .await;
    Stack { backend, _ml: ml, _postgres: postgres }
}

impl Stack {
    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.backend.must_post(&format!("/api/matching/{path}"), body).await
    }
}

fn request(id: &str, risk: u32, amount: &str, most: u32) -> Value {
    json!({
        "loanId": id, "borrower": BORROWER, "tokenType": "ETH", "amount": amount,
        "maxInterestRate": most, "duration": 30 * DAY, "riskScore": risk,
    })
}

fn offer(id: &str, amount: &str, low: u32, high: u32) -> Value {
    json!({
        "offerId": id, "lender": LENDER, "tokenType": "ETH", "amount": amount,
        "minInterestRate": low, "maxInterestRate": high, "minDuration": DAY, "maxDuration": 365 * DAY,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_finds_its_other_side_at_a_rate_both_accept() {
    let stack = stack().await;
    let waiting = stack.post("loan-request", &request("loan/1 ?", 900, "5", 2_000)).await;
    assert_eq!((waiting.status, &waiting.body["success"]), (200, &json!(true)), "{}", waiting.text);
    assert_eq!(waiting.body["loanId"], "loan/1 ?");
    assert!(waiting.body["message"].is_string() && waiting.body.get("match").is_none(), "{}", waiting.text);
    let safer = stack.post("loan-request", &request("loan-2", 100, "5", 2_000)).await;
    assert!(safer.body.get("match").is_none(), "{}", safer.text);

    let found = stack.post("lending-offer", &offer("offer-1", "7", 200, 900)).await;

    let made = &found.body["match"];
    assert_eq!((&made["loanId"], &made["offerId"]), (&json!("loan-2"), &json!("offer-1")), "{}", found.text);
    // 300 + 150 + 16.4, and 300 since 7 are offered where 10 are wanted: 766.
    assert_eq!(made["interestRate"], 766, "{}", found.text);
    let again = stack.post("lending-offer", &offer("offer-1", "7", 200, 900)).await;
    assert_eq!((again.status, again.body["code"].as_str()), (409, Some("already_matched")), "{}", again.text);
    let second = stack.post("lending-offer", &offer("offer-2", "5", 0, 700)).await;
    assert_eq!(second.body["match"]["loanId"], "loan/1 ?", "{}", second.text);
    assert_eq!(
        second.body["match"]["interestRate"], 700,
        "the formula says more than the lender asks: {}",
        second.text
    );

    let stats = stack.backend.must_get("/api/matching/market-stats").await.body;
    assert_eq!(
        [&stats["activeRequests"], &stats["activeOffers"], &stats["totalMatches"]],
        [0, 0, 2],
        "{stats}"
    );
    let pools = stack.backend.must_get("/api/matching/active-pools").await.body;
    assert_eq!(pools["recentMatches"].as_array().unwrap().len(), 2, "{pools}");
    assert_eq!((&pools["loanRequests"], &pools["lendingOffers"]), (&json!([]), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_book_makes_rates_and_recommendations() {
    let stack = stack().await;
    stack.post("loan-request", &request("r", 500, "10", 100)).await;
    stack.post("lending-offer", &offer("o", "4", 400, 600)).await;

    let stats = stack.backend.must_get("/api/matching/market-stats").await.body;
    assert_eq!(
        [&stats["activeRequests"], &stats["activeOffers"], &stats["totalMatches"]],
        [1, 1, 0],
        "{stats}"
    );
    assert_eq!(
        (&stats["supplyByToken"], &stats["demandByToken"]),
        (&json!({ "ETH": "4" }), &json!({ "ETH": "10" }))
    );
    assert_eq!(stats["averageRates"], json!({ "ETH": 500 }));
    let pools = stack.backend.must_get("/api/matching/active-pools").await.body;
    assert_eq!(
        (&pools["loanRequests"][0]["loanId"], &pools["lendingOffers"][0]["amount"]),
        (&json!("r"), &json!("4"))
    );
    assert!(pools["loanRequests"][0]["expiresAt"].is_string(), "{pools}");

    let wish = json!({ "tokenType": "ETH", "amount": "3", "duration": 365 * DAY, "riskScore": 200 });
    let rate = stack.post("calculate-rate", &wish).await;
    // 300 + 300 + 200, and 800 for a supply of 0.4 of the demand.
    assert_eq!((rate.status, &rate.body["rate"]), (200, &json!(1_600)), "{}", rate.text);
    assert_eq!(
        rate.body["breakdown"],
        json!({ "base": 300.0, "risk": 300.0, "duration": 200.0, "market": 800.0, "size": 0.0 })
    );
    let mut wish = wish;
    wish["maxRate"] = json!(900);
    let advice = stack.post("borrower-recommendations", &wish).await.body;
    assert_eq!(
        (&advice["optimalRate"], &advice["marketRate"], &advice["savings"]),
        (&json!(600), &json!(1_600), &json!(1_000)),
        "{advice}"
    );
    assert!(advice["recommendation"].is_string() && advice["waitTime"] == 0, "{advice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_orders_at_once_each_side_is_matched_once() {
    let stack = stack().await;
    let orders = (0..12).map(|n| {
        let stack = &stack;
        async move {
            let id = n.to_string();
            let (path, body) = match n % 2 {
                0 => ("loan-request", request(&id, 10 * n, "5", 2_000)),
                _ => ("lending-offer", offer(&id, "5", 0, 2_000)),
            };
            let answer = stack.post(path, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
    });
    futures_util::future::join_all(orders).await;
    // The last of a race may have seen the book before the other side was in it.
    testkit::until_async(BOUND, async || {
        let stats = stack.backend.must_get("/api/matching/market-stats").await.body;
        if stats["activeRequests"] != 0 {
            stack.post("lending-offer", &offer("late", "5", 0, 2_000)).await;
        }
        let pools = stack.backend.must_get("/api/matching/active-pools").await.body;
        pools["loanRequests"] == json!([])
    })
    .await;
    let stats = stack.backend.must_get("/api/matching/market-stats").await.body;
    assert_eq!(stats["totalMatches"], 6, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_at_fault_is_named_before_ml_api_is_asked() {
    let backend = Backend::start(&[("RATE_LIMIT", "off")]).await;
    let (request, offer) = (request("1", 10, "5", 2_000), offer("1", "5", 100, 2_000));
    let wish = json!({ "tokenType": "ETH", "amount": "3", "duration": DAY, "riskScore": 200, "maxRate": 5 });
    let cases = [
        ("loan-request", &request, "loanId", json!("")),
        ("loan-request", &request, "borrower", json!("0x1")),
        ("loan-request", &request, "amount", json!(5)),
        ("loan-request", &request, "riskScore", json!(1_001)),
        ("loan-request", &request, "duration", json!(0)),
        ("lending-offer", &offer, "lender", Value::Null),
        ("lending-offer", &offer, "minInterestRate", json!(-1)),
        ("lending-offer", &offer, "maxInterestRate", json!(99)),
        ("lending-offer", &offer, "maxDuration", json!(1)),
        ("calculate-rate", &wish, "tokenType", json!([])),
        ("borrower-recommendations", &wish, "maxRate", json!("5")),
        ("borrower-recommendations", &wish, "amount", json!("05")),
    ];
    for (path, good, field, value) in cases {
        let mut body = good.clone();
        body[field] = value;
        let answer = backend.must_post(&format!("/api/matching/{path}"), &body).await;
        assert_eq!(
            (answer.status, answer.body["field"].as_str()),
            (422, Some(field)),
            "{body}: {}",
            answer.text
        );
    }
    let missing = backend.must_post("/api/matching/calculate-rate", &json!({ "tokenType": "ETH" })).await;
    assert_eq!(missing.status, 422, "{}", missing.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ml_api_or_its_database_every_route_says_503() {
    let away = Backend::start(&[("RATE_LIMIT", "off")]).await;
    let port = testkit::free_port();
    let _ml = testkit::service(program("ml-api"), &[], &[("ML_PORT", &port.to_string())]);
    let url = format!("http://127.0.0.1:{port}");
    let no_database = Backend::start(&[("ML_SERVICE_URL", &url), ("RATE_LIMIT", "off")]).await;
    testkit::until_async(BOUND, async || no_database.must_get("/api/ml/health").await.status == 200).await;
    let wish = json!({ "tokenType": "ETH", "amount": "3", "duration": DAY, "riskScore": 200, "maxRate": 5 });
    for (backend, code) in [(&away, "upstream_unavailable"), (&no_database, "upstream_not_configured")] {
        let answers = [
            backend.must_get("/api/matching/market-stats").await,
            backend.must_get("/api/matching/active-pools").await,
            backend.must_post("/api/matching/calculate-rate", &wish).await,
            backend.must_post("/api/matching/borrower-recommendations", &wish).await,
            backend.must_post("/api/matching/loan-request", &request("1", 1, "1", 1)).await,
            backend.must_post("/api/matching/lending-offer", &offer("1", "1", 1, 1)).await,
        ];
        for answer in answers {
            assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some(code)), "{}", answer.text);
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
    let odd = testkit::upstream(|_| Reply::json(r#"{"success":true}"#)).await;
    let backend = Backend::start(&[("ML_SERVICE_URL", &odd.url())]).await;
    let answer = backend.must_get("/api/matching/active-pools").await;
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (502, Some("upstream_failed")),
        "{}",
        answer.text
    );
}
