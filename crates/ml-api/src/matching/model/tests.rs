use serde_json::{Value, json};

use super::*;

const BORROWER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

fn members(value: &Value) -> Members {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn request() -> Value {
    json!({
        "borrower": BORROWER, "tokenType": "ETH", "amount": "1000", "maxInterestRate": 900,
        "duration": 86_400, "riskScore": 250.5
    })
}

fn offer() -> Value {
    json!({
        "lender": BORROWER, "tokenType": "ETH", "amount": "1000", "minInterestRate": 300,
        "maxInterestRate": 1200, "minDuration": 3_600, "maxDuration": 86_400
    })
}

fn id(text: &str) -> BookId {
    BookId::parse(text).unwrap()
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

fn parsed_request(value: &Value) -> Result<LoanRequest, FieldError> {
    LoanRequest::parse(id("7"), members(value))
}

fn parsed_offer(value: &Value) -> Result<LendingOffer, FieldError> {
    LendingOffer::parse(id("o"), members(value))
}

#[test]
fn every_wrong_or_missing_term_of_a_request_is_named() {
    let wrong = [
        ("loanId", json!("8")),
        ("borrower", json!("0x1")),
        ("tokenType", json!("")),
        ("tokenType", json!(-1)),
        ("amount", json!(1000)),
        ("amount", json!("0")),
        ("amount", json!("01")),
        ("amount", json!("1.5")),
        ("amount", json!("1".repeat(79))),
        ("maxInterestRate", json!(-1)),
        ("maxInterestRate", json!(1.5)),
        ("maxInterestRate", json!(1_000_001)),
        ("duration", json!(0)),
        ("duration", json!("86400")),
        ("riskScore", json!(1000.1)),
        ("riskScore", json!(null)),
    ];
    for (field, value) in wrong {
        let body = with(request(), field, value);
        assert_eq!(parsed_request(&body).unwrap_err().field(), Some(field), "{body}");
    }
    assert_eq!(parsed_request(&with(request(), "loanId", json!(7))).unwrap().loan_id.as_str(), "7");
}

#[test]
fn an_offer_whose_bounds_cross_is_refused_at_the_upper_one() {
    for (field, value) in [("maxInterestRate", 299), ("maxDuration", 3_599)] {
        let body = with(offer(), field, json!(value));
        assert_eq!(parsed_offer(&body).unwrap_err().field(), Some(field), "{body}");
    }
}

#[test]
fn amounts_are_compared_as_numbers_up_to_the_largest_uint256() {
    let largest = Amount::parse(LARGEST_AMOUNT).unwrap();
    assert_eq!(Amount::parse(&LARGEST_AMOUNT.replace("935", "936")), None);
    assert!(Amount::parse("9").unwrap().key() < Amount::parse("10").unwrap().key());
    assert!(Amount::parse("10").unwrap().key() < largest.key());
}

#[test]
fn a_pair_fits_at_its_bounds_and_not_beyond() {
    let fit = |request: &Value, offer: &Value, rate| {
        parsed_request(request).unwrap().fits(&parsed_offer(offer).unwrap(), rate)
    };
    for rate in [None, Some(300), Some(900)] {
        assert_eq!(fit(&request(), &offer(), rate), Ok(()));
    }
    let unfit = [
        ("tokenType", with(request(), "tokenType", json!("DAI")), None),
        ("amount", with(request(), "amount", json!("1001")), None),
        ("duration", with(request(), "duration", json!(86_401)), None),
        ("duration", with(request(), "duration", json!(3_599)), None),
        ("maxInterestRate", with(request(), "maxInterestRate", json!(299)), None),
        ("interestRate", request(), Some(299)),
        ("interestRate", request(), Some(901)),
    ];
    for (expected, request, rate) in unfit {
        let refusal = fit(&request, &offer(), rate).unwrap_err();
        assert!(matches!(refusal, Refusal::Unfit { field, .. } if field == expected), "{refusal:?}");
    }
}

#[test]
fn an_order_needs_both_sides() {
    let order = |value| MatchOrder::parse(members(&value));
    assert_eq!(order(json!({ "offerId": 1 })).unwrap_err().field(), Some("loanId"));
    assert_eq!(order(json!({ "loanId": 1 })).unwrap_err().field(), Some("offerId"));
    let full = order(json!({ "matchId": "m", "loanId": 1, "offerId": "o", "interestRate": 5 })).unwrap();
    assert_eq!((full.match_id, full.interest_rate), (Some(id("m")), Some(5)));
}
