//! `/pool/stats` and `/metrics`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    api::{Api, BOUND, OK},
    retraining,
};

fn numbers(stats: &Value) -> [u64; 5] {
    ["size", "checked_in", "checked_out", "overflow", "total_connections"]
        .map(|name| stats[name].as_u64().unwrap_or_else(|| panic!("{name} is no count: {stats}")))
}

#[tokio::test]
async fn without_a_database_the_stats_say_so_and_nothing_else() {
    let api = Api::start(&[]).await;
    assert_eq!(
        api.get("/pool/stats").await.json(),
        json!({ "status": "no_database", "pool_configured": false })
    );
}

#[tokio::test]
async fn with_a_database_the_stats_are_the_guides_and_add_up() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    api.get("/data/statistics").await;

    let stats = api.get("/pool/stats").await.json();

    assert_eq!((&stats["status"], &stats["pool_configured"]), (&json!("active"), &json!(true)));
    let [size, checked_in, checked_out, overflow, total] = numbers(&stats);
    assert_eq!((size, overflow), (10, 0));
    assert!(total >= 1);
    assert_eq!(checked_in + checked_out, total);
    assert!(stats["leases"].is_null());

    let metrics = api.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text.contains(r#"pool="postgres""#), "{}", metrics.text);
    assert!(metrics.text.contains("http_server_requests_total"));
}

#[tokio::test]
async fn metrics_are_clean_for_promtool() {
    let postgres = testkit::postgres().await;
    let api = retraining::start(&postgres).await;
    retraining::record(&api, 120).await;
    assert_eq!(api.get("/model/metrics").await.status, OK);
    let metrics = api.get("/metrics").await.text;
    for name in ["pools_connections{", "http_server_requests_total{", "ml_feature_psi{", "ml_live_auc "] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by scripts/test");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test]
async fn five_hundred_records_at_once_use_no_more_connections_than_the_lane_has() {
    let postgres = testkit::postgres().await;
    let api =
        Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("DB_PIPELINE_CONNECTIONS", "3")]).await;
    postgres
        .admin_query(
            "CREATE TABLE released (); CREATE TABLE writers (pid int PRIMARY KEY); \
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
             INSERT INTO writers VALUES (pg_backend_pid()) ON CONFLICT DO NOTHING; RETURN NEW; END $$; \
             CREATE TRIGGER note BEFORE INSERT ON loans FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    // Until all of them are there none is answered: a connection that came back meanwhile would serve the next one,
    // and the one being opened for it would be a fourth.
    let lock = "DO $$ BEGIN LOCK TABLE loans; \
                WHILE NOT EXISTS (SELECT FROM released) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$";
    let locks = async |granted: &str| {
        let sql = "SELECT FROM pg_locks WHERE relation = 'loans'::regclass";
        postgres.admin_query(&format!("{sql} AND {granted}")).await.len()
    };

    let loans: Vec<_> = (0..500).map(|id| json!({ "loan_id": id, "tx_count": id })).collect();
    let recorded = async {
        testkit::until_async(BOUND, async || locks("granted AND mode = 'AccessExclusiveLock'").await == 1)
            .await;
        let all_in = async {
            // The request that asks is one of them.
            let active = "http_server_active_requests 501";
            testkit::until_async(BOUND, async || api.get("/metrics").await.text.contains(active)).await;
            testkit::until_async(BOUND, async || locks("NOT granted").await >= 3).await;
            postgres.admin_query("INSERT INTO released DEFAULT VALUES").await;
        };
        let records = join_all(loans.iter().map(async |loan| api.post("/data/record", loan).await.status));
        tokio::join!(records, all_in).0
    };
    let (_, statuses) = tokio::join!(postgres.admin_query(lock), recorded);

    assert_eq!(statuses, vec![OK; 500]);
    assert_eq!(postgres.admin_query("SELECT count(*) FROM loans").await, [["500"]]);
    assert_eq!(postgres.admin_query("SELECT count(*) FROM writers").await, [["3"]]);
}

#[tokio::test]
async fn the_leases_are_shown_to_the_admin_only() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("ADMIN_TOKEN", "open sesame")]).await;
    let path = "/pool/stats?detail=leases";

    assert_eq!(api.get(path).await.problem().0, 401);
    let wrong = api.send("GET", path, &[("authorization", "Bearer open sesam")], "").await;
    assert_eq!(wrong.problem().0, 401);
    assert_eq!(api.get("/pool/stats?detail=more").await.problem().0, 400);

    let right = api.send("GET", path, &[("authorization", "Bearer open sesame")], "").await;
    assert_eq!(right.status, OK);
    assert!(right.json()["leases"].is_array());

    let closed = Api::start(&[]).await;
    assert_eq!(closed.get(path).await.problem().0, 503);
}

#[tokio::test]
async fn without_a_database_there_are_metrics_all_the_same() {
    let api = Api::start(&[]).await;
    let metrics = api.get("/metrics").await;
    assert_eq!(metrics.status, OK, "{metrics:?}");
    assert!(metrics.text.contains("http_server_active_requests"), "{}", metrics.text);
    assert!(!metrics.text.contains("pools_connections"), "{}", metrics.text);
}

#[tokio::test]
async fn whoever_holds_a_lease_is_shown_with_the_line_and_the_request() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("ADMIN_TOKEN", "open sesame")]).await;
    let lock = "BEGIN; LOCK TABLE loan_requests; SELECT 'the lock', pg_sleep(60)";
    let order = r#"{ "loanId": "r", "offerId": "o" }"#;
    let headers = [("content-type", "application/json"), ("x-request-id", "blocked-by-a-lock")];

    let seen = async {
        let locked = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                      AND relation = 'loan_requests'::regclass";
        testkit::until_async(BOUND, async || !postgres.admin_query(locked).await.is_empty()).await;
        let blocked = api.send("POST", "/matches", &headers, order);
        let holder = testkit::until_async(BOUND, async || {
            let bearer = [("authorization", "Bearer open sesame")];
            let stats = api.send("GET", "/pool/stats?detail=leases", &bearer, "").await.json();
            let leases = stats["leases"].as_array().expect("the admin asked for them").clone();
            leases.iter().any(|lease| {
                lease["site"].as_str().is_some_and(|site| site.contains("matching/store.rs:"))
                    && lease["request_id"] == "blocked-by-a-lock"
                    && lease["held_ms"].is_u64()
            })
        });
        tokio::select! {
            answer = blocked => panic!("it was not blocked: {answer:?}"),
            () = holder => {}
        }
    };
    // One of its statements never ends before the test does.
    tokio::select! {
        () = seen => {}
        _ = postgres.admin_query(lock) => panic!("the lock was given back"),
    }
}
