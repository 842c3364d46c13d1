//! `/predict` and its kin: they need no database.

use serde_json::{Value, json};

use crate::api::{Api, OK, peak_memory};

fn loan() -> Value {
    json!({
        "tx_count": 150, "total_volume": 45.5, "avg_frequency": 0.4, "avg_time_between": 60,
        "stablecoin_ratio": 0.4, "avg_holding_period": 60, "volatility_index": 0.4, "diversity_score": 0.5,
        "total_loans": 4, "repaid_loans": 4, "defaulted_loans": 0, "avg_repayment_time": 25,
        "protocol_count": 5, "yield_farming_activity": 0.2, "smart_contract_calls": 80, "defi_experience": 300,
        "loan_amount": 2, "collateral_amount": 4, "loan_to_collateral_ratio": 0.5, "duration_days": 30,
        "interest_rate": 700, "account_age_days": 400
    })
}

#[tokio::test]
async fn a_full_loan_gets_a_prediction_and_a_riskier_one_a_higher_risk() {
    let api = Api::start_healthy(&[]).await;

    let good = api.post("/predict", &loan()).await;

    assert_eq!(good.status, OK, "{good:?}");
    let body = good.json();
    assert_eq!(body["success"], true);
    assert_eq!(body["model"], "logistic_regression");
    assert_eq!(body["missing_features"], json!([]));
    let probability = body["prediction"]["default_probability"].as_f64().unwrap();
    let expected = (1000.0 * probability).round();
    assert_eq!(body["prediction"]["risk_score"].as_f64(), Some(expected));
    assert_eq!(body["prediction"]["default_prediction"], json!(u8::from(probability >= 0.5)));
    assert!(
        ["Low", "Medium", "High", "Very High"]
            .contains(&body["prediction"]["risk_category"].as_str().unwrap())
    );

    let mut risky = loan();
    risky["defaulted_loans"] = json!(3);
    risky["loan_to_collateral_ratio"] = json!(1.4);
    let risky = api.post("/predict", &risky).await.json();
    assert!(risky["prediction"]["default_probability"].as_f64().unwrap() > probability, "{risky}");
}

#[tokio::test]
async fn an_absent_feature_counts_as_zero_and_is_named() {
    let api = Api::start_healthy(&[]).await;
    let (mut without, mut zero) = (loan(), loan());
    without.as_object_mut().unwrap().remove("protocol_count");
    zero["protocol_count"] = json!(0);

    let (without, zero) =
        (api.post("/predict", &without).await.json(), api.post("/predict", &zero).await.json());

    assert_eq!(without["missing_features"], json!(["protocol_count"]));
    assert_eq!(without["prediction"], zero["prediction"]);
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_the_fixed_order() {
    let api = Api::start_healthy(&[]).await;
    let json = [("content-type", "application/json")];
    let wrong = |code: &str, field: Option<&str>| (code.to_owned(), field.map(str::to_owned));
    let cases = [
        (404, "POST", "/predicts", &json[..], "{", wrong("not_found", None)),
        (405, "GET", "/predict", &json, "{", wrong("method_not_allowed", None)),
        (415, "POST", "/predict", &[], "{", wrong("unsupported_media_type", None)),
        (400, "POST", "/predict", &json, "{", wrong("bad_request", None)),
        (400, "POST", "/predict", &json, r#"{"tx_count":"x"} {}"#, wrong("bad_request", None)),
        (422, "POST", "/predict", &json, "[]", wrong("invalid_field", None)),
        (422, "POST", "/predict", &json, r#"{"tx_count":"12"}"#, wrong("invalid_field", Some("tx_count"))),
        (422, "POST", "/predict", &json, r#"{"tx_count":1e999}"#, wrong("invalid_field", Some("tx_count"))),
        (422, "POST", "/predict", &json, r#"{"tx_count":null}"#, wrong("invalid_field", Some("tx_count"))),
        (422, "POST", "/predict/batch", &json, "{}", wrong("invalid_field", Some("loans"))),
        (422, "POST", "/predict/batch", &json, r#"{"loans":7}"#, wrong("invalid_field", Some("loans"))),
        (422, "POST", "/predict/batch", &json, "[[{}]]", wrong("invalid_field", None)),
        (422, "POST", "/predict/batch", &json, "null", wrong("invalid_field", None)),
    ];
    for (status, method, path, headers, body, (code, field)) in cases {
        let answer = api.send(method, path, headers, body).await;
        assert_eq!(answer.problem(), (status, code, field), "{method} {path} {body}");
    }
    let large = "x".repeat(10 * 1024 * 1024 + 1);
    assert_eq!(api.post_text("/predict", &large).await.problem().0, 413);
}

#[tokio::test]
async fn one_bad_row_of_a_batch_fails_alone() {
    let api = Api::start_healthy(&[]).await;

    let answer = api.post("/predict/batch", &json!({ "loans": [loan(), { "tx_count": true }, 7, {}] })).await;

    assert_eq!(answer.status, OK, "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["success"], &body["count"]), (&json!(true), &json!(4)));
    let rows = body["predictions"].as_array().unwrap();
    let alone = api.post("/predict", &loan()).await.json();
    assert_eq!(rows[0]["default_probability"], alone["prediction"]["default_probability"]);
    assert_eq!((&rows[1]["success"], &rows[1]["field"]), (&json!(false), &json!("tx_count")));
    assert_eq!(
        (&rows[1]["row"], &rows[1]["error"]),
        (&json!(1), &json!("loans[1]: tx_count: must be a number, not a boolean"))
    );
    assert_eq!((&rows[2]["success"], &rows[2]["row"]), (&json!(false), &json!(2)));
    assert_eq!(rows[3]["missing_features"].as_array().unwrap().len(), 22);

    // Rows that the JSON parser can make no value of.
    for (bad, found) in [("1e999", "a number"), (&"9".repeat(400), "a number"), (r#""\ud800""#, "a text")] {
        let text =
            format!(r#"{{"loans":[{},{bad},{{"\ud800":1,"tx_count":3}},{{"tx_count":1e999}}]}}"#, loan());
        let answer = api.post_text("/predict/batch", &text).await;
        assert_eq!(answer.status, OK, "{answer:?}");
        let rows = answer.json()["predictions"].clone();
        assert_eq!(rows[0]["default_probability"], alone["prediction"]["default_probability"]);
        let error = format!("loans[1]: a loan must be an object of features, not {found}");
        assert_eq!((&rows[1]["success"], &rows[1]["error"]), (&json!(false), &json!(error)));
        assert_eq!(rows[2]["missing_features"].as_array().unwrap().len(), 21);
        assert_eq!(rows[3]["field"], "tx_count");
    }
    // What is no JSON at all still fails as a whole.
    for text in [r#"{"loans":[1e999,]}"#, r#"{"loans":[1e999]"#, r#"{"loans":[1e999]}}"#] {
        assert_eq!(api.post_text("/predict/batch", text).await.problem().0, 400, "{text}");
    }
}

#[tokio::test]
async fn a_batch_beyond_its_bound_is_refused_without_being_read() {
    let api = Api::start_healthy(&[]).await;
    let body = format!(r#"{{"loans":[{}]}}"#, vec!["{}"; 10_001].join(","));
    let (status, code, field) = api.post_text("/predict/batch", &body).await.problem();
    assert_eq!((status, code.as_str(), field.as_deref()), (422, "invalid_field", Some("loans")));

    // Five million of the smallest rows: none of them is kept, and the text itself a few times at most.
    let before = peak_memory(&api.service);
    for row in ["7", "\"\""] {
        let rows = if row == "7" { 5_000_000 } else { 3_000_000 };
        let body = format!(r#"{{"loans":[{}]}}"#, vec![row; rows].join(","));
        let (status, _, field) = api.post_text("/predict/batch", &body).await.problem();
        assert_eq!((status, field.as_deref()), (422, Some("loans")));
    }
    let grown = peak_memory(&api.service) - before;
    assert!(grown < 64 << 20, "{grown} bytes for a body of 10 MB");
    let larger = format!(r#"{{"loans":[{}]}}"#, vec!["7"; 5_300_000].join(","));
    assert_eq!(api.post_text("/predict/batch", &larger).await.problem().0, 413);
}

#[tokio::test]
async fn the_model_says_what_it_is_and_how_good_on_which_data() {
    let api = Api::start_healthy(&[]).await;

    let info = api.get("/model/info").await.json();
    assert_eq!((&info["type"], &info["version"]), (&json!("logistic_regression"), &json!(1)));
    assert_eq!(info["training_data"], "synthetic");
    assert_eq!(info["rows"], json!({ "training": 8000, "held_out": 2000 }));
    assert_eq!(info["features"].as_array().unwrap().len(), 22);
    let weights: Vec<f64> = info["coefficients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| pair["coefficient"].as_f64().unwrap().abs())
        .collect();
    assert!(weights.is_sorted_by(|a, b| a >= b) && weights.len() == 22, "{weights:?}");

    let metrics = api.get("/model/metrics").await.json();
    let comparison = api.get("/comparison").await.json();
    assert_eq!(metrics["metrics"]["rows"], 2000);
    assert_eq!(comparison["logistic_regression"], metrics["metrics"]);
    assert_eq!(comparison["heuristic"]["rows"], 2000);
    assert_eq!(comparison["training_data"], "synthetic");
}
