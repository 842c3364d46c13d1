//! What is a row and what is not, from JSON text and from a parsed object.

use serde_json::json;

use super::*;

fn read(text: &str) -> Result<FeatureRow, RowError> {
    serde_json::from_str::<RowInput>(text).unwrap().0
}

fn from_object(value: Value) -> Result<FeatureRow, RowError> {
    FeatureRow::from_object(value.as_object().unwrap())
}

#[test]
fn the_features_are_the_22_of_the_interface_in_order() {
    let names = Feature::ALL.map(Feature::name);
    assert_eq!(FEATURE_COUNT, 22);
    assert_eq!(
        (names[0], names[8], names[16], names[21]),
        ("tx_count", "total_loans", "loan_amount", "account_age_days")
    );
    for (place, feature) in Feature::ALL.into_iter().enumerate() {
        assert_eq!(feature as usize, place);
        assert_eq!(Feature::from_name(feature.name()), Some(feature));
    }
}

#[test]
fn absent_features_count_as_zero_and_are_named_in_order() {
    let row = read(r#"{"loan_amount": 2.5, "tx_count": 7, "shoe_size": {"eu": [44]}}"#).unwrap();
    assert_eq!((row.values[0], row.values[16]), (7.0, 2.5));
    assert_eq!(row.values.iter().sum::<f64>(), 9.5);
    assert_eq!(row.missing_features.len(), 20);
    assert_eq!(row.missing_features[..2], ["total_volume", "avg_frequency"]);
    assert_eq!(from_object(json!({"loan_amount": 2.5, "tx_count": 7, "shoe_size": 1})), Ok(row));
}

#[test]
fn every_feature_given_leaves_none_missing() {
    let all: Map<String, Value> = Feature::ALL
        .into_iter()
        .map(|feature| (feature.name().to_owned(), json!(feature as usize)))
        .collect();
    let row = read(&serde_json::to_string(&all).unwrap()).unwrap();
    assert!(row.missing_features.is_empty());
    assert_eq!(row.values, std::array::from_fn(|place| place as f64));
    assert_eq!(FeatureRow::from_object(&all), Ok(row));
}

#[test]
fn a_value_of_another_type_names_the_field_and_what_it_found() {
    for (text, found) in [
        ("null", JsonKind::Null),
        ("false", JsonKind::Boolean),
        ("\"12\"", JsonKind::Text),
        ("[1]", JsonKind::Array),
        ("{\"a\":1}", JsonKind::Object),
    ] {
        let expected = Err(RowError::NotANumber { field: "duration_days", found });
        let object = format!("{{\"tx_count\": 1, \"duration_days\": {text}, \"loan_amount\": 2}}");
        assert_eq!(read(&object), expected);
        assert_eq!(from_object(serde_json::from_str(&object).unwrap()), expected);
    }
}

#[test]
fn a_number_too_large_for_a_double_names_its_field_and_is_no_syntax_error() {
    assert_eq!(read(r#"{"total_volume": -1e999}"#), Err(RowError::NotFinite { field: "total_volume" }));
    assert_eq!(read(r#"{"total_volume": 1e-999, "tx_count": 1E+2}"#).unwrap().values[..2], [100.0, 0.0]);
    let digits = "9".repeat(400);
    assert_eq!(read(&format!("{{\"tx_count\": {digits}}}")), Err(RowError::NotFinite { field: "tx_count" }));
}

#[test]
fn a_row_that_is_no_object_says_what_it_is_and_the_next_row_is_still_read() {
    let rows: Vec<RowInput> =
        serde_json::from_str(r#"[[{"tx_count":1}], null, true, -3, 3, 0.5, "x", {"tx_count": 1}]"#).unwrap();
    let kinds = [
        JsonKind::Array,
        JsonKind::Null,
        JsonKind::Boolean,
        JsonKind::Number,
        JsonKind::Number,
        JsonKind::Number,
        JsonKind::Text,
    ];
    for (row, found) in rows.iter().zip(kinds) {
        assert_eq!(row.0, Err(RowError::NotAnObject { found }));
    }
    assert_eq!(rows[7].0.as_ref().unwrap().values[0], 1.0);
}

#[test]
fn a_name_that_is_no_unicode_is_no_feature_and_a_value_that_is_none_is_no_object() {
    assert_eq!(read(r#"{"\ud800": 1, "tx_count": 2}"#).unwrap().values[0], 2.0);
    for (text, found) in [("1e999", JsonKind::Number), (r#""\ud800""#, JsonKind::Text)] {
        assert!(serde_json::from_str::<RowInput>(text).is_err(), "{text}");
        assert_eq!(RowInput::alone(text).0, Err(RowError::NotAnObject { found }));
    }
}

#[test]
fn bad_syntax_behind_a_bad_field_is_still_bad_syntax() {
    for text in
        [r#"{"tx_count": null, }"#, r#"{"tx_count": NaN}"#, r#"{"tx_count": 01}"#, r#"{"tx_count": "#, "[1,"]
    {
        assert!(serde_json::from_str::<RowInput>(text).is_err(), "{text}");
    }
}

#[test]
fn escaped_names_are_the_same_names_and_the_last_of_two_counts() {
    let row = read(r#"{"tx_\u0063ount": 5, "tx_count": 6}"#).unwrap();
    assert_eq!((row.values[0], row.missing_features.len()), (6.0, 21));
}
