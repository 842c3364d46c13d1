use serde_json::json;

use super::*;

fn record(body: &str) -> Result<LoanRecord, FieldError> {
    LoanRecord::parse(serde_json::from_str(body).expect("the test's body is JSON"))
}

fn update(body: &str) -> Result<OutcomeUpdate, FieldError> {
    OutcomeUpdate::parse(serde_json::from_str(body).expect("the test's body is JSON"))
}

#[test]
fn an_id_is_a_text_or_a_whole_number_and_both_are_one_id() {
    let text = record(r#"{"loan_id":"17"}"#).unwrap().id;
    assert_eq!(record(r#"{"loan_id":17}"#).unwrap().id, text);
    let uint256 = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    assert_eq!(record(&format!(r#"{{"loan_id":{uint256}}}"#)).unwrap().id.as_str(), uint256);
}

#[test]
fn each_member_that_breaks_its_rule_is_named() {
    let long = "x".repeat(129);
    let cases = [
        ("loan_id", json!({})),
        ("loan_id", json!({ "loan_id": null })),
        ("loan_id", json!({ "loan_id": "" })),
        ("loan_id", json!({ "loan_id": 1.5 })),
        ("loan_id", json!({ "loan_id": -1 })),
        ("loan_id", json!({ "loan_id": [1] })),
        ("loan_id", json!({ "loan_id": "a\u{0}b" })),
        ("loan_id", json!({ "loan_id": long })),
        ("tx_count", json!({ "loan_id": 1, "tx_count": "12" })),
        ("interest_rate", json!({ "loan_id": 1, "interest_rate": null })),
        ("borrower_address", json!({ "loan_id": 1, "borrower_address": "0x12" })),
        ("lender_address", json!({ "loan_id": 1, "lender_address": 12 })),
        ("timestamp", json!({ "loan_id": 1, "timestamp": "yesterday" })),
        ("timestamp", json!({ "loan_id": 1, "timestamp": "2026-01-02T03:04:05" })),
        ("timestamp", json!({ "loan_id": 1, "timestamp": 1_700_000_000_000_i64 })),
        ("timestamp", json!({ "loan_id": 1, "timestamp": -1 })),
        ("loan_status", json!({ "loan_id": 1, "loan_status": 3 })),
        ("loan_status", json!({ "loan_id": 1, "loan_status": "" })),
        ("default", json!({ "loan_id": 1, "default": true })),
        ("default", json!({ "loan_id": 1, "default": 2 })),
        ("actual_repayment_time", json!({ "loan_id": 1, "actual_repayment_time": -1 })),
        ("note", json!({ "loan_id": 1, "note": { "deep": ["a\u{0}"] } })),
        ("note", json!({ "loan_id": 1, "note": { "a\u{0}": 1 } })),
    ];
    for (field, body) in cases {
        let error = record(&body.to_string()).unwrap_err();
        assert_eq!(error.field(), Some(field), "{body}: {error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
    for (field, body) in
        [("tx_count", r#"{"loan_id":1,"tx_count":1e999}"#), ("n", r#"{"loan_id":1,"n":1e999}"#)]
    {
        assert_eq!(record(body).unwrap_err().field(), Some(field));
    }
}

#[test]
fn a_time_is_rfc_3339_or_unix_seconds() {
    let expected = DateTime::from_timestamp(1_767_323_045, 250_000_000);
    for text in ["1767323045.25", r#""2026-01-02T03:04:05.25Z""#, r#""2026-01-02T04:04:05.25+01:00""#] {
        let body = format!(r#"{{"loan_id":1,"timestamp":{text}}}"#);
        assert_eq!(record(&body).unwrap().timestamp, expected, "{text}");
    }
}

#[test]
fn absent_features_stay_absent_and_unknown_members_are_kept_to_the_digit() {
    let body = r#"{"loan_id":1,"tx_count":3,"lender_address":null,"principal":123456789012345678901234567890,"tags":["a"]}"#;
    let loan = record(body).unwrap();
    assert_eq!(loan.features[Feature::TxCount as usize], Some(3.0));
    assert_eq!(loan.features.iter().flatten().count(), 1);
    assert_eq!(loan.lender_address, None);
    assert_eq!(loan.metadata, r#"{"principal":123456789012345678901234567890,"tags":["a"]}"#);
}

#[test]
fn an_outcome_must_say_something() {
    for (field, body) in [
        ("loan_id", r#"{"outcome":{"default":1}}"#),
        ("outcome", r#"{"loan_id":1}"#),
        ("outcome", r#"{"loan_id":1,"outcome":"repaid"}"#),
        ("outcome", r#"{"loan_id":1,"outcome":{}}"#),
        ("outcome", r#"{"loan_id":1,"outcome":{"defualt":1}}"#),
        ("default", r#"{"loan_id":1,"outcome":{"default":0.5}}"#),
        ("default", r#"{"loan_id":1,"outcome":{"default":-1}}"#),
    ] {
        assert_eq!(update(body).unwrap_err().field(), Some(field), "{body}");
    }
    let full = update(
        r#"{"loan_id":1,"outcome":{"default":1,"actual_repayment_time":null,"loan_status":"defaulted"}}"#,
    );
    let expected = Outcome {
        default: Some(true),
        actual_repayment_time: None,
        loan_status: Some("defaulted".to_owned()),
    };
    assert_eq!(full.unwrap().outcome, expected);
}
