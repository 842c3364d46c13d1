//! Hand-computed rates and pairs.

use serde_json::{Value, json};

use super::*;

const DAY: u64 = 86_400;
const WALLET: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";

fn loan(risk: f64, days: u64, amount: &str, token: &str) -> Loan {
    let body = json!({ "tokenType": token, "amount": amount, "duration": days * DAY, "riskScore": risk });
    serde_json::from_value(body).unwrap()
}

fn market(supply: u64, demand: u64) -> Market {
    Market { supply: supply.into(), demand: demand.into() }
}

fn request(id: &str, risk: f64, amount: u64, most: u32) -> LoanRequest {
    let body = json!({
        "loanId": id, "borrower": WALLET, "tokenType": "ETH", "amount": amount.to_string(),
        "maxInterestRate": most, "duration": 30 * DAY, "riskScore": risk,
    });
    serde_json::from_value(body).unwrap()
}

fn offer(id: &str, amount: u64, low: u32, high: u32) -> LendingOffer {
    let body = json!({
        "offerId": id, "lender": WALLET, "tokenType": "ETH", "amount": amount.to_string(),
        "minInterestRate": low, "maxInterestRate": high, "minDuration": DAY, "maxDuration": 365 * DAY,
    });
    serde_json::from_value(body).unwrap()
}

#[test]
fn a_rate_is_the_sum_of_base_risk_duration_market_and_size() {
    let rate = |loan: &Loan, market: Market| Breakdown::of(loan, &market).rate();
    let even = market(1, 1);
    // 300 + 0 + 200·1 year
    assert_eq!(rate(&loan(0.0, 365, "1", "ETH"), even), 500);
    // 300 + 500/1000·1500 + min(3·200, 400)
    assert_eq!(rate(&loan(500.0, 3 * 365, "1", "ETH"), even), 1_450);
    // 300 + 30/365·200 = 316.4
    assert_eq!(rate(&loan(0.0, 30, "1", "ETH"), even), 316);
    // 300 + 1500 + 400 + 800 + 100 = 3100, at most 3000
    let large = loan(1_000.0, 730, "10000000000000000001", "ETH");
    assert_eq!(rate(&large, market(1, 3)), 3_000);
    assert_eq!(Breakdown::of(&large, &even).size, 100.0);
    let ten = loan(0.0, 365, "10000000000000000000", "ETH");
    assert_eq!(Breakdown::of(&ten, &even).size, 0.0, "ten ETH are not more than ten");
    let dollars = loan(0.0, 365, "10000000000000000001", "DAI");
    assert_eq!(Breakdown::of(&dollars, &even).size, 0.0, "ten DAI are not ten ETH");
}

#[test]
fn supply_and_demand_make_a_loan_cheaper_or_dearer() {
    let change = |supply, demand| Breakdown::of(&loan(0.0, 365, "1", "ETH"), &market(supply, demand)).market;
    assert_eq!([change(150, 100), change(149, 100)], [-200.0, 0.0]);
    assert_eq!([change(100, 100), change(99, 100)], [0.0, 300.0]);
    assert_eq!([change(50, 100), change(49, 100), change(0, 100)], [300.0, 800.0, 800.0]);
    assert_eq!([change(0, 0), change(100, 0)], [0.0, 0.0], "no demand is balance");
    let most = Market { supply: U256::MAX, demand: U256::MAX };
    assert_eq!(most.surcharge(), 0.0, "no overflow");
}

#[test]
fn requests_take_the_cheapest_fitting_offer_by_ascending_risk() {
    let book = Book {
        requests: vec![request("risky", 900.0, 5, 2_500), request("safe", 0.0, 5, 900)],
        offers: vec![offer("dear", 10, 800, 2_500), offer("cheap", 5, 100, 400), offer("small", 4, 1, 2_500)],
    };
    let pairs = book.pairs(&book.requests[0].token_type);
    let found: Vec<_> = pairs
        .iter()
        .map(|pair| (pair.loan_id.to_string(), pair.offer_id.to_string(), pair.interest_rate))
        .collect();
    // Supply 19, demand 10: −200. Safe: 300 + 16.4 − 200 = 116. Risky: 300 + 1350 + 16.4 − 200 = 1466.
    let expected = [("safe", "cheap", 116), ("risky", "dear", 1_466)];
    assert_eq!(found, expected.map(|(loan, offer, rate)| (loan.to_owned(), offer.to_owned(), rate)));
    assert_eq!(pairs, book.pairs(&book.requests[0].token_type), "the same sides have the same match id");
    assert_ne!(pairs[0].match_id, pairs[1].match_id);
}

#[test]
fn what_does_not_fit_is_no_pair() {
    let fits = |change: fn(&mut LoanRequest, &mut LendingOffer)| {
        let (mut request, mut offer) = (request("r", 0.0, 5, 900), offer("o", 5, 100, 400));
        change(&mut request, &mut offer);
        let book = Book { requests: vec![request.clone()], offers: vec![offer] };
        book.pairs(&request.token_type).len()
    };
    assert_eq!(fits(|_, _| {}), 1);
    assert_eq!(fits(|request, _| request.amount = Amount::try_from(json!("6")).unwrap()), 0);
    assert_eq!(fits(|request, _| request.max_interest_rate = BasisPoints::try_from(json!(99)).unwrap()), 0);
    assert_eq!(fits(|request, _| request.duration = Seconds::try_from(json!(366 * DAY)).unwrap()), 0);
    assert_eq!(fits(|request, _| request.duration = Seconds::try_from(json!(DAY - 1)).unwrap()), 0);
    assert_eq!(fits(|_, offer| offer.token_type = TokenType::try_from(json!("DAI")).unwrap()), 0);
}

#[test]
fn a_recommendation_tells_what_an_open_offer_saves() {
    let book = Book { requests: Vec::new(), offers: vec![offer("o", 50, 100, 250)] };
    let wish = loan(0.0, 365, "5", "ETH");
    let most = |rate: u32| BasisPoints::try_from(json!(rate)).unwrap();
    // The formula says 300 + 200; the offer goes up to 250.
    let now = recommend(&book, &wish, most(900));
    assert_eq!((now.market_rate, now.optimal_rate, now.savings, now.wait_time), (500, 250, 250, Some(0)));
    let later = recommend(&book, &wish, most(50));
    assert_eq!((later.optimal_rate, later.savings, later.wait_time), (500, 0, None));
    assert!(later.recommendation.contains("500"), "{}", later.recommendation);
}

#[test]
fn the_book_is_summed_up_by_token() {
    let mut dai = offer("d", 7, 300, 400);
    dai.token_type = TokenType::try_from(json!("DAI")).unwrap();
    let book = Book {
        requests: vec![request("r", 0.0, 5, 900)],
        offers: vec![offer("a", 5, 100, 200), offer("b", 6, 300, 401), dai],
    };
    let eth = TokenType::try_from(json!("ETH")).unwrap();
    assert_eq!((book.supply()[&eth], book.demand()[&eth]), (11.into(), 5.into()));
    assert_eq!(book.average_rates().into_values().collect::<Vec<_>>(), [350, 250]);
}

#[test]
fn every_member_has_its_rule() {
    let good = json!({
        "loanId": 7, "borrower": WALLET, "tokenType": 0, "amount": "1", "maxInterestRate": 0, "duration": 1, "riskScore": 1000
    });
    assert!(serde_json::from_value::<LoanRequest>(good.clone()).is_ok());
    let bad = [
        ("loanId", json!("")),
        ("loanId", json!("a\nb")),
        ("loanId", json!(1.5)),
        ("borrower", json!("0x1")),
        ("borrower", json!("0xF39fd6e51aad88f6f4ce6ab8827279cfffb92266")),
        ("tokenType", json!("x".repeat(65))),
        ("amount", json!("0")),
        ("amount", json!("01")),
        ("amount", json!("-1")),
        ("amount", json!(1)),
        ("amount", json!("115792089237316195423570985008687907853269984665640564039457584007913129639936")),
        ("maxInterestRate", json!(1_000_001)),
        ("maxInterestRate", json!(-1)),
        ("duration", json!(0)),
        ("duration", json!(1.5)),
        ("riskScore", json!(1000.5)),
        ("riskScore", json!("5")),
        ("riskScore", Value::Null),
    ];
    for (field, value) in bad {
        let mut body = good.clone();
        body[field] = value;
        assert!(serde_json::from_value::<LoanRequest>(body.clone()).is_err(), "{body}");
    }
}
