//! What a missing, absent or failing Postgres takes away, and how it comes back.

use serde_json::{Value, json};
use testkit::{Stop, until_async};

use crate::api::{Api, BOUND, OK};

async fn data_answers(api: &Api) -> [(u16, String); 3] {
    let record = api.post("/data/record", &json!({ "loan_id": 1 })).await;
    let update = api.post("/data/update", &json!({ "loan_id": 1, "outcome": { "default": 0 } })).await;
    let statistics = api.get("/data/statistics").await;
    [record, update, statistics].map(|answer| {
        let (status, code, _) = answer.problem();
        (status, code)
    })
}

async fn health(api: &Api) -> Value {
    let answer = api.get("/health").await;
    assert_eq!(answer.status, OK, "/health answers whatever is missing");
    answer.json()
}

#[tokio::test]
async fn without_database_url_only_the_data_routes_are_off() {
    let api = Api::start_healthy(&[]).await;

    assert_eq!(
        health(&api).await,
        json!({
            "status": "healthy", "model_loaded": true, "service": "ML Risk Assessment Service",
            "database": "not_configured"
        })
    );
    let off = (503, "upstream_not_configured".to_owned());
    assert_eq!(data_answers(&api).await, [off.clone(), off.clone(), off]);
    let text = api.get("/data/statistics").await.text;
    assert!(text.contains("DATABASE_URL"), "{text}");
    assert!(api.service.line_with("DATABASE_URL is not set").is_some());
    assert_eq!(api.get("/health/live").await.status, OK);
    api.until_ready().await;
    assert_eq!(api.post("/predict", &json!({})).await.status, OK);
}

#[tokio::test]
async fn a_postgres_that_appears_later_is_picked_up_and_its_schema_made() {
    let postgres = testkit::postgres().await;
    postgres.stop(Stop::Fast).await;
    let api = Api::start(&[("DATABASE_URL", &postgres.url())]).await;

    until_async(BOUND, async || health(&api).await["model_loaded"] == true).await;
    let health_before = health(&api).await;
    assert_eq!((&health_before["status"], &health_before["database"]), (&json!("degraded"), &json!("down")));
    let off = (503, "upstream_unavailable".to_owned());
    assert_eq!(data_answers(&api).await, [off.clone(), off.clone(), off]);
    assert_eq!(api.get("/pool/stats").await.json()["status"], "unavailable");

    postgres.start().await;

    api.until_healthy().await;
    assert_eq!(api.post("/data/record", &json!({ "loan_id": 1 })).await.status, OK);
}

#[tokio::test]
async fn the_minimum_of_connections_is_open_before_the_service_says_that_it_is_ready() {
    let postgres = testkit::postgres().await;
    let api = Api::start(&[("DATABASE_URL", &postgres.url()), ("DB_MIN_IDLE", "4")]).await;

    assert_eq!(api.get("/health/live").await.status, OK);
    api.until_ready().await;
    assert!(api.get("/pool/stats").await.json()["total_connections"].as_u64() >= Some(4));
}

#[tokio::test]
async fn a_minimum_that_cannot_be_reached_does_not_keep_the_service_from_starting() {
    let url = format!("postgres://app:x@127.0.0.1:{}/app", testkit::free_port());
    let environment = [("DATABASE_URL", &*url), ("DB_MIN_IDLE", "4"), ("DB_CONNECT_TIMEOUT", "1")];
    let api = Api::start(&environment).await;

    assert_eq!(api.get("/health/live").await.status, OK);
    api.until_ready().await;
    assert!(api.service.line_with("started without the connections of DB_MIN_IDLE").is_some());
}

#[tokio::test]
async fn an_outage_degrades_and_ends_without_a_restart() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    assert_eq!(api.post("/data/record", &json!({ "loan_id": 1 })).await.status, OK);

    postgres.stop(Stop::Fast).await;

    let off = (503, "upstream_unavailable".to_owned());
    assert_eq!(data_answers(&api).await, [off.clone(), off.clone(), off]);
    until_async(BOUND, async || health(&api).await["status"] == "degraded").await;
    assert_eq!(health(&api).await["database"], "down");
    assert_eq!(api.get("/pool/stats").await.json()["status"], "unavailable");
    assert_eq!(api.post("/predict", &json!({})).await.status, OK);

    postgres.start().await;

    api.until_healthy().await;
    assert_eq!(api.get("/data/statistics").await.json()["total_loans"], 1);
    assert_eq!(api.get("/pool/stats").await.json()["status"], "active");
}

#[tokio::test]
async fn an_idle_service_notices_an_outage_and_its_end_without_traffic() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;

    postgres.stop(Stop::Immediate).await;
    until_async(BOUND, async || health(&api).await["database"] == "down").await;

    postgres.start().await;
    api.until_healthy().await;
}

#[tokio::test]
async fn an_empty_database_in_the_place_of_ours_is_migrated_again() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;

    postgres.admin_query("DROP SCHEMA public CASCADE").await;
    postgres.admin_query("CREATE SCHEMA public AUTHORIZATION app").await;

    until_async(BOUND, async || api.post("/data/record", &json!({ "loan_id": 1 })).await.status == OK).await;
    assert_eq!(api.get("/data/statistics").await.json()["total_loans"], 1);
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let postgres = testkit::postgres().await;
    let url = postgres.url();
    let variables = [("DATABASE_URL", url.as_str())];

    let start = || Api::start_healthy(&variables);
    let (first, second, third) = tokio::join!(start(), start(), start());

    for (id, api) in [first, second, third].iter().enumerate() {
        assert_eq!(api.post("/data/record", &json!({ "loan_id": id })).await.status, OK);
    }
    assert_eq!(
        postgres.admin_query("SELECT name FROM schema_migrations").await,
        [["loans"], ["matching"], ["models"], ["watching"], ["expiry"]]
    );
    assert_eq!(postgres.admin_query("SELECT count(*) FROM loans").await, [["3"]]);
}

#[tokio::test]
async fn a_role_that_may_not_create_tables_degrades_and_the_log_says_why() {
    let postgres = testkit::postgres().await;
    let url = postgres.create_role_with_limit("reader", 10).await;
    let api = Api::start(&[("DATABASE_URL", &url)]).await;

    let line = api.service.wait_for_line(BOUND, "permission denied").await;

    assert!(line.contains("WARN"), "{line}");
    until_async(BOUND, async || health(&api).await["model_loaded"] == true).await;
    assert_eq!(
        (&health(&api).await["status"], &health(&api).await["database"]),
        (&json!("degraded"), &json!("up"))
    );
    let off = (503, "upstream_unavailable".to_owned());
    assert_eq!(data_answers(&api).await, [off.clone(), off.clone(), off]);
}

#[tokio::test]
async fn a_database_that_refuses_at_start_is_named_in_the_log_without_the_password() {
    let postgres = testkit::postgres().await;
    let url = postgres.url().replace("/app", "/nosuch").replace("//nosuch", "//app");
    let api = Api::start(&[("DATABASE_URL", &url)]).await;

    let line = api.service.wait_for_line(BOUND, "nosuch").await;

    assert!(line.contains("WARN") && line.contains("does not exist"), "{line}");
    assert!(!api.service.lines().join("\n").contains("app-password"));
    assert_eq!(health(&api).await["database"], "down");
}
