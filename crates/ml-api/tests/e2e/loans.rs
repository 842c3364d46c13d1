//! `/data/*` on a real database.

use serde_json::json;

use crate::api::{Api, OK};

const BORROWER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

#[tokio::test]
async fn recording_a_loan_twice_is_one_row_and_keeps_what_is_not_said_again() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let first = json!({
        "loan_id": 17, "tx_count": 3, "loan_amount": 2.5, "borrower_address": BORROWER,
        "timestamp": "2026-01-02T03:04:05Z", "loan_status": "funded", "principal": "1000000000000000000"
    });
    let second = json!({ "loan_id": "17", "tx_count": 4, "chain": 1 });

    let answers = [api.post("/data/record", &first).await, api.post("/data/record", &second).await];
    let again = api.post("/data/record", &second).await;

    assert_eq!(answers[0].status, OK, "{answers:?}");
    let created = answers.map(|answer| answer.json()["created"].clone());
    assert_eq!(created, [json!(true), json!(false)]);
    assert_eq!(again.json()["loan_id"], "17");
    let rows = postgres
        .admin_query(
            "SELECT loan_id, tx_count, loan_amount, total_volume, borrower_address, \
             extract(epoch FROM timestamp)::bigint, loan_status, metadata FROM loans",
        )
        .await;
    let metadata = r#"{"chain": 1, "principal": "1000000000000000000"}"#;
    let lower = BORROWER.to_ascii_lowercase();
    assert_eq!(rows, [["17", "4", "2.5", "", lower.as_str(), "1767323045", "funded", metadata]]);
}

#[tokio::test]
async fn an_outcome_is_kept_and_one_for_an_unknown_loan_is_404() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let outcome = json!({
        "loan_id": "a", "outcome": { "default": 1, "actual_repayment_time": 31.5, "loan_status": "defaulted" }
    });

    let unknown = api.post("/data/update", &outcome).await;
    assert_eq!(unknown.problem(), (404, "not_found".to_owned(), Some("loan_id".to_owned())));

    api.post("/data/record", &json!({ "loan_id": "a" })).await;
    let known = api.post("/data/update", &outcome).await;
    assert_eq!((known.status, &known.json()["success"]), (OK, &json!(true)));
    let rows =
        postgres.admin_query("SELECT \"default\", actual_repayment_time, loan_status FROM loans").await;
    assert_eq!(rows, [["t", "31.5", "defaulted"]]);
}

#[tokio::test]
async fn statistics_count_by_status_outcome_and_column() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;

    let empty = api.get("/data/statistics").await.json();
    assert_eq!((&empty["total_loans"], &empty["by_status"]), (&json!(0), &json!({})));
    assert_eq!(empty["completeness"]["tx_count"], json!({ "count": 0, "share": null }));

    for (id, status) in [("a", "repaid"), ("b", "repaid"), ("c", "funded")] {
        api.post("/data/record", &json!({ "loan_id": id, "loan_status": status, "tx_count": 1 })).await;
    }
    api.post("/data/record", &json!({ "loan_id": "d" })).await;
    api.post("/data/update", &json!({ "loan_id": "a", "outcome": { "default": 0 } })).await;
    api.post("/data/update", &json!({ "loan_id": "b", "outcome": { "default": 0 } })).await;
    api.post("/data/update", &json!({ "loan_id": "c", "outcome": { "default": 1 } })).await;

    let full = api.get("/data/statistics").await.json();
    assert_eq!(full["total_loans"], 4);
    assert_eq!(full["by_status"], json!({ "repaid": 2, "funded": 1, "unknown": 1 }));
    assert_eq!(full["by_outcome"], json!({ "repaid": 2, "defaulted": 1, "unknown": 1 }));
    assert_eq!(full["completeness"]["tx_count"], json!({ "count": 3, "share": 0.75 }));
    assert_eq!(full["completeness"]["loan_status"], json!({ "count": 3, "share": 0.75 }));
    assert_eq!(full["completeness"]["total_volume"], json!({ "count": 0, "share": 0.0 }));
    assert_eq!(full["completeness"].as_object().unwrap().len(), 28);
}

#[tokio::test]
async fn a_field_that_breaks_its_rule_is_named_and_nothing_is_stored() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    for (path, field, body) in [
        ("/data/record", "loan_id", json!({ "tx_count": 1 })),
        ("/data/record", "tx_count", json!({ "loan_id": 1, "tx_count": "many" })),
        ("/data/record", "borrower_address", json!({ "loan_id": 1, "borrower_address": "0x1" })),
        ("/data/record", "note", json!({ "loan_id": 1, "note": "a\u{0}" })),
        ("/data/update", "outcome", json!({ "loan_id": 1 })),
        ("/data/update", "default", json!({ "loan_id": 1, "outcome": { "default": "yes" } })),
    ] {
        let expected = (422, "invalid_field".to_owned(), Some(field.to_owned()));
        assert_eq!(api.post(path, &body).await.problem(), expected, "{body}");
    }
    assert_eq!(api.post_text("/data/record", "[]").await.problem().0, 422);
    assert_eq!(api.get("/data/statistics").await.json()["total_loans"], 0);
}

#[tokio::test]
async fn what_jsonb_takes_to_its_limits_is_either_stored_or_named() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let too_deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    for (status, value) in [
        (200, "1e-400"),
        (200, "1e308"),
        (200, &deep),
        (422, "1e-99999"),
        (422, &too_deep),
        (422, r#""\ud800""#),
    ] {
        let answer = api.post_text("/data/record", &format!(r#"{{"loan_id":1,"x":{value}}}"#)).await;
        assert_eq!(answer.status, status, "{value:.40}: {}", answer.text);
        if status != OK {
            assert_eq!(answer.problem().2.as_deref(), Some("x"), "{value:.40}");
        }
    }
}
