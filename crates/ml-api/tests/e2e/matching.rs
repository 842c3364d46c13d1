//! The matching book on a real database.

use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::{Postgres, until_async};

use crate::api::{Answer, Api, BOUND, OK};

const BORROWER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const LENDER: &str = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359";

pub(crate) fn request() -> Value {
    json!({
        "borrower": BORROWER, "tokenType": "ETH", "amount": "1000000000000000000", "maxInterestRate": 900,
        "duration": 2_592_000, "riskScore": 250
    })
}

pub(crate) fn offer() -> Value {
    json!({
        "lender": LENDER, "tokenType": "ETH", "amount": "5000000000000000000", "minInterestRate": 300,
        "maxInterestRate": 1200, "minDuration": 86_400, "maxDuration": 31_536_000
    })
}

async fn started() -> (Postgres, Api) {
    let postgres = testkit::postgres().await;
    // Ten connections are enough to race, and opening more takes most of a test's time.
    let variables = [("DATABASE_URL", postgres.url()), ("DB_MAX_OVERFLOW", "0".to_owned())];
    let api = Api::start_healthy(&variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    (postgres, api)
}

pub(crate) async fn put(api: &Api, path: &str, body: &Value) -> Answer {
    api.send("PUT", path, &[("content-type", "application/json")], &body.to_string()).await
}

pub(crate) async fn delete(api: &Api, path: &str) -> Answer {
    api.send("DELETE", path, &[], "").await
}

/// A request `r` and an offer `o` that fit.
async fn with_a_pair() -> (Postgres, Api) {
    let (postgres, api) = started().await;
    assert_eq!(put(&api, "/requests/r", &request()).await.status, OK);
    assert_eq!(put(&api, "/offers/o", &offer()).await.status, OK);
    (postgres, api)
}

fn refused(answer: &Answer) -> (u16, String, String) {
    let (status, code, field) = answer.problem();
    (status, code, field.unwrap_or_default())
}

fn refusal(status: u16, code: &str, field: &str) -> (u16, String, String) {
    (status, code.to_owned(), field.to_owned())
}

#[tokio::test]
async fn a_side_is_put_listed_replaced_and_removed() {
    let (_postgres, api) = started().await;

    let first = put(&api, "/requests/17", &request()).await.json();
    assert_eq!((&first["loanId"], &first["created"]), (&json!("17"), &json!(true)));
    let mut changed = request();
    changed["amount"] =
        json!("115792089237316195423570985008687907853269984665640564039457584007913129639935");
    assert_eq!(put(&api, "/requests/17", &changed).await.json()["created"], false);
    assert_eq!(put(&api, "/offers/o%20%2F", &offer()).await.json()["offerId"], "o /");

    let requests = api.get("/requests").await.json();
    assert_eq!((&requests["count"], &requests["truncated"]), (&json!(1), &json!(false)));
    let listed = &requests["requests"][0];
    assert_eq!((&listed["loanId"], &listed["amount"]), (&json!("17"), &changed["amount"]));
    assert_eq!(listed["borrower"], BORROWER.to_ascii_lowercase());
    assert_eq!(api.get("/offers").await.json()["offers"][0]["maxDuration"], 31_536_000);

    assert_eq!(delete(&api, "/requests/17").await.json()["loanId"], "17");
    assert_eq!(refused(&delete(&api, "/requests/17").await), refusal(404, "not_found", "loanId"));
    assert_eq!(api.get("/requests").await.json()["requests"], json!([]));
}

#[tokio::test]
async fn of_50_concurrent_removals_of_one_side_one_succeeds_and_the_others_find_nothing() {
    let (postgres, api) = with_a_pair().await;
    for (path, table, field) in
        [("/requests/r", "loan_requests", "loanId"), ("/offers/o", "lending_offers", "offerId")]
    {
        // Held, so that at least two of them have seen the row before one removes it.
        let hold = format!("BEGIN; SELECT 1 FROM {table} FOR UPDATE; SELECT pg_sleep(60)");
        let held = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'BEGIN; SELECT 1 FROM%' \
                    AND wait_event = 'PgSleep'";
        let waiting = "SELECT count(*) >= 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let holder = async {
            tokio::select! {
                _ = postgres.admin_query(&hold) => panic!("the lock's holder ended before it was told to"),
                () = until_async(BOUND, async || postgres.admin_query(waiting).await == [["t"]]) => {}
            }
            postgres.admin_query(&format!("SELECT pg_cancel_backend(pid) FROM ({held}) AS holder")).await;
        };
        let removals = async {
            until_async(BOUND, async || !postgres.admin_query(held).await.is_empty()).await;
            join_all((0..50).map(|_| delete(&api, path))).await
        };
        let ((), answers) = tokio::join!(holder, removals);

        let (removed, late): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == OK);
        assert_eq!((removed.len(), late.len()), (1, 49), "{answers:?}");
        for answer in late {
            assert_eq!(refused(answer), refusal(404, "not_found", field));
        }
    }
}

#[tokio::test]
async fn what_expired_long_ago_without_a_match_is_removed_and_nothing_else() {
    let (postgres, api) = with_a_pair().await;
    assert_eq!(api.post("/matches", &json!({ "loanId": "r", "offerId": "o" })).await.status, OK);
    for id in ["long", "just", "open"] {
        assert_eq!(put(&api, &format!("/requests/{id}"), &request()).await.status, OK);
        assert_eq!(put(&api, &format!("/offers/{id}"), &offer()).await.status, OK);
    }
    for (table, id) in [("loan_requests", "loan_id"), ("lending_offers", "offer_id")] {
        let age = |which: &str, hours: u32| {
            format!("UPDATE {table} SET expires_at = now() - interval '{hours} hours' WHERE {id} = '{which}'")
        };
        let matched = if id == "loan_id" { "r" } else { "o" };
        for sql in [age("long", 2), age(matched, 2), age("just", 0)] {
            postgres.admin_query(&sql).await;
        }
    }

    // It tidies as soon as it can.
    let _second = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;

    for (table, id, matched) in [("loan_requests", "loan_id", "r"), ("lending_offers", "offer_id", "o")] {
        let left = format!("SELECT {id} FROM {table} ORDER BY 1");
        let expected: &[[&str; 1]] =
            if matched == "r" { &[["just"], ["open"], ["r"]] } else { &[["just"], ["o"], ["open"]] };
        until_async(BOUND, async || postgres.admin_query(&left).await == expected).await;
    }
}

#[tokio::test]
async fn requests_are_listed_by_ascending_risk() {
    let (_postgres, api) = started().await;
    for (id, risk) in [("a", 500.0), ("b", 0.5), ("c", 1000.0)] {
        let mut body = request();
        body["riskScore"] = json!(risk);
        assert_eq!(put(&api, &format!("/requests/{id}"), &body).await.status, OK);
    }
    let listed = api.get("/requests").await.json();
    let ids = listed["requests"].as_array().unwrap().iter().map(|request| request["loanId"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), ["b", "a", "c"]);
}

#[tokio::test]
async fn a_match_takes_both_sides_for_good() {
    let (_postgres, api) = with_a_pair().await;
    let order = json!({ "matchId": "m", "loanId": "r", "offerId": "o", "interestRate": 640 });

    let made = api.post("/matches", &order).await.json();
    assert_eq!((&made["success"], &made["created"]), (&json!(true), &json!(true)));
    assert_eq!(made["match"]["interestRate"], 640);

    let again = api.post("/matches", &order).await.json();
    assert_eq!((&again["created"], &again["match"]), (&json!(false), &made["match"]));
    let other = api.post("/matches", &json!({ "loanId": "r", "offerId": "o" })).await;
    assert_eq!(refused(&other), refusal(409, "already_matched", "loanId"));
    assert_eq!(
        refused(&put(&api, "/requests/r", &request()).await),
        refusal(409, "already_matched", "loanId")
    );
    assert_eq!(refused(&delete(&api, "/offers/o").await), refusal(409, "already_matched", "offerId"));
    assert_eq!(api.get("/requests").await.json()["count"], 0);
    assert_eq!(api.get("/offers").await.json()["count"], 0);
    let recent = api.get("/matches").await.json();
    assert_eq!((&recent["total"], &recent["matches"]), (&json!(1), &json!([made["match"]])));
}

#[tokio::test]
async fn of_50_concurrent_matchers_on_one_pair_one_succeeds() {
    let (postgres, api) = with_a_pair().await;
    let order = json!({ "loanId": "r", "offerId": "o" });

    let answers = join_all((0..50).map(|_| api.post("/matches", &order))).await;

    let (made, late): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == OK);
    assert_eq!(made.len(), 1, "{answers:?}");
    for answer in late {
        assert_eq!(refused(answer), refusal(409, "already_matched", "loanId"));
    }
    assert_eq!(postgres.admin_query("SELECT count(*) FROM matches").await, [["1"]]);
}

#[tokio::test]
async fn of_50_concurrent_repetitions_of_one_order_all_learn_of_the_one_match() {
    let (postgres, api) = with_a_pair().await;
    let order = json!({ "matchId": "m", "loanId": "r", "offerId": "o" });

    let answers = join_all((0..50).map(|_| api.post("/matches", &order))).await;

    let bodies: Vec<_> = answers.iter().map(Answer::json).collect();
    assert_eq!(bodies.iter().filter(|body| body["created"] == true).count(), 1, "{bodies:?}");
    assert!(bodies.iter().all(|body| body["match"] == bodies[0]["match"]), "{bodies:?}");
    assert_eq!(postgres.admin_query("SELECT count(*) FROM matches").await, [["1"]]);
}

#[tokio::test]
async fn orders_that_cross_over_the_same_sides_take_each_side_once_and_none_hangs() {
    let (postgres, api) = started().await;
    for id in 0..5 {
        assert_eq!(put(&api, &format!("/requests/{id}"), &request()).await.status, OK);
        assert_eq!(put(&api, &format!("/offers/{id}"), &offer()).await.status, OK);
    }
    let orders = (0..25).map(|pair| {
        let order = json!({ "loanId": (pair / 5).to_string(), "offerId": (pair % 5).to_string() });
        let api = &api;
        async move { api.post("/matches", &order).await.status }
    });

    let statuses = join_all(orders).await;

    assert!(statuses.iter().all(|&status| status == OK || status == 409), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == OK).count(), 5, "{statuses:?}");
    assert_eq!(postgres.admin_query("SELECT count(*) FROM matches").await, [["5"]]);
}

#[tokio::test]
async fn a_side_expires_after_24_hours_and_is_opened_again_by_a_put() {
    let (postgres, api) = with_a_pair().await;
    let hours = postgres
        .admin_query("SELECT extract(epoch FROM expires_at - created_at)::bigint FROM lending_offers")
        .await;
    assert_eq!(hours, [["86400"]]);
    postgres.admin_query("UPDATE lending_offers SET expires_at = now()").await;

    assert_eq!(api.get("/offers").await.json()["count"], 0);
    let order = json!({ "loanId": "r", "offerId": "o" });
    assert_eq!(refused(&api.post("/matches", &order).await), refusal(409, "expired", "offerId"));

    assert_eq!(put(&api, "/offers/o", &offer()).await.json()["created"], false);
    assert_eq!(api.post("/matches", &order).await.status, OK);
}

#[tokio::test]
async fn a_match_that_the_book_does_not_allow_is_refused_by_name_and_changes_nothing() {
    let (postgres, api) = with_a_pair().await;
    let mut small = offer();
    small["amount"] = json!("999999999999999999");
    put(&api, "/offers/small", &small).await;
    put(&api, "/requests/second", &request()).await;
    put(&api, "/offers/second", &offer()).await;
    let taken = json!({ "matchId": "m", "loanId": "second", "offerId": "second" });
    assert_eq!(api.post("/matches", &taken).await.status, OK);

    for (body, expected) in [
        (json!({ "loanId": "x", "offerId": "o" }), refusal(404, "not_found", "loanId")),
        (json!({ "loanId": "r", "offerId": "x" }), refusal(404, "not_found", "offerId")),
        (json!({ "loanId": "r", "offerId": "small" }), refusal(409, "terms_do_not_fit", "amount")),
        (
            json!({ "loanId": "r", "offerId": "o", "interestRate": 901 }),
            refusal(409, "terms_do_not_fit", "interestRate"),
        ),
        (json!({ "matchId": "m", "loanId": "r", "offerId": "o" }), refusal(409, "match_id_taken", "matchId")),
        (json!({ "loanId": "r" }), refusal(422, "invalid_field", "offerId")),
    ] {
        assert_eq!(refused(&api.post("/matches", &body).await), expected, "{body}");
    }
    assert_eq!(postgres.admin_query("SELECT count(*) FROM matches").await, [["1"]]);
    assert_eq!(api.get("/requests").await.json()["count"], 1);
}

#[tokio::test]
async fn checks_come_in_their_order_and_without_a_database_each_valid_question_is_503() {
    let api = Api::start_healthy(&[]).await;
    let long = format!("/requests/{}", "x".repeat(129));
    let untyped = api.send("PUT", "/requests/r", &[], "{}").await;
    assert_eq!(untyped.problem().0, 415);
    assert_eq!(api.send("PATCH", "/requests/r", &[], "").await.problem().0, 405);
    assert_eq!(put(&api, "/requests/r", &json!([])).await.problem().0, 422);
    assert_eq!(refused(&put(&api, &long, &request()).await), refusal(400, "bad_request", "id"));
    assert_eq!(refused(&put(&api, "/offers/o", &request()).await), refusal(422, "invalid_field", "lender"));

    let order = json!({ "loanId": "r", "offerId": "o" });
    for answer in [
        put(&api, "/requests/r", &request()).await,
        put(&api, "/offers/o", &offer()).await,
        delete(&api, "/requests/r").await,
        api.get("/requests").await,
        api.get("/offers").await,
        api.get("/matches").await,
        api.post("/matches", &order).await,
    ] {
        assert_eq!(refused(&answer), refusal(503, "upstream_not_configured", ""));
    }
}
