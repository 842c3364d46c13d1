//! What stands before the routes: deadlines, shedding, headers; and no rate limit, since the callers are our own services.

use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::time::Instant;

use crate::api::{Api, BOUND, OK};

#[tokio::test]
async fn one_address_may_ask_as_often_as_it_likes_and_answers_are_hardened() {
    let api = Api::start_healthy(&[("CORS_ORIGINS", "https://app.example")]).await;
    let ours = json_from("https://app.example");
    let answers = join_all((0..300).map(|_| api.send("POST", "/predict", &ours, "{}")));
    for answer in answers.await {
        assert_eq!((answer.status, answer.headers.get("ratelimit-limit")), (OK, None));
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.headers[name], value);
        }
    }
    let other = api.send("POST", "/predict", &json_from("https://evil.example"), "{").await;
    assert_eq!((other.problem().0, other.headers.get("access-control-allow-origin")), (400, None));
}

fn json_from(origin: &str) -> [(&'static str, &str); 2] {
    [("content-type", "application/json"), ("origin", origin)]
}

#[tokio::test]
async fn a_request_that_waits_for_postgres_ends_in_time_and_holds_nothing_afterwards() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("REQUEST_TIMEOUT", "1")]).await;
    let loan = json!({ "loan_id": 1 });
    let record = || api.post("/data/record", &loan);
    assert_eq!(record().await.status, OK);
    let lock = "BEGIN; LOCK TABLE loans IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT";
    let locked = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'loans'::regclass";
    join(postgres.admin_query(lock), async {
        testkit::until_async(BOUND, async || !postgres.admin_query(locked).await.is_empty()).await;
        let began = Instant::now();
        let (status, code, _) = record().await.problem();
        assert_eq!((status, began.elapsed() < BOUND / 2), (504, true), "{code} after {:?}", began.elapsed());
    })
    .await;
    testkit::until_async(BOUND, async || record().await.status == OK).await;
    testkit::until_async(BOUND, async || api.get("/pool/stats").await.json()["checked_out"] == 0).await;
}

#[tokio::test]
async fn more_than_it_can_do_is_shed_and_the_operators_still_see_it() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("MAX_REQUESTS", "1")]).await;
    let lock = "BEGIN; LOCK TABLE loans IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3); COMMIT";
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let stuck = async {
        testkit::until_async(BOUND, async || {
            !postgres
                .admin_query("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock'")
                .await
                .is_empty()
        })
        .await;
        api.post("/data/record", &json!({ "loan_id": 1 })).await
    };
    let operator = async {
        testkit::until_async(BOUND, async || !postgres.admin_query(waiting).await.is_empty()).await;
        let shed = api.post("/predict", &json!({})).await;
        assert_eq!(
            (shed.problem().1.as_str(), &shed.headers["retry-after"]),
            ("overloaded", &"1".parse().unwrap())
        );
        for exempt in ["/health", "/health/live", "/health/ready", "/metrics", "/pool/stats"] {
            assert_eq!(api.get(exempt).await.status, OK, "{exempt}");
        }
    };
    let (_, (stuck, ())) = join(postgres.admin_query(lock), join(stuck, operator)).await;
    assert_eq!(stuck.status, OK, "{stuck:?}");
    testkit::until_async(BOUND, async || api.post("/predict", &json!({})).await.status == OK).await;
}
