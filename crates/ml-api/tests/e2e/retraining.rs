//! `/retrain`, the versions it leaves, and how other replicas learn of them.

use std::time::Duration;

use futures_util::future::join_all;
use ml_api::risk::{Example, Feature, generator};
use serde_json::{Map, Value, json};
use testkit::{Postgres, Signal, Stop, until_async};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    api::{Answer, Api, BOUND, OK, peak_memory},
    durability::server,
};

pub(crate) const TOKEN: &str = "correct horse";
/// The other replicas are promised to follow within seconds.
const FOLLOWED: Duration = Duration::from_secs(5);

pub(crate) async fn start(postgres: &Postgres) -> Api {
    Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("ADMIN_TOKEN", TOKEN)]).await
}

pub(crate) async fn admin(api: &Api, path: &str) -> Answer {
    api.send("POST", path, &[("authorization", &format!("Bearer {TOKEN}"))], "").await
}

/// Records loans with their ends.
pub(crate) async fn record(api: &Api, count: usize) {
    let recorded = generator::generate(count, 99).into_iter().enumerate().map(|(id, example)| {
        let mut loan = features(&example);
        loan.insert("loan_id".to_owned(), json!(id));
        loan.insert("default".to_owned(), json!(u8::from(example.default)));
        async move { api.post("/data/record", &loan.into()).await.status }
    });
    assert_eq!(join_all(recorded).await, vec![OK; count]);
}

pub(crate) fn features(example: &Example) -> Map<String, Value> {
    let values = Feature::ALL.into_iter().zip(example.features);
    values.map(|(feature, value)| (feature.name().to_owned(), json!(value))).collect()
}

pub(crate) async fn version(api: &Api) -> Value {
    api.get("/model/info").await.json()["version"].clone()
}

#[tokio::test]
async fn a_model_that_is_not_worse_replaces_the_old_one_in_every_replica_and_can_be_undone() {
    let postgres = testkit::postgres().await;
    let (first, second) = tokio::join!(start(&postgres), start(&postgres));
    record(&first, 100).await;

    let verdict = admin(&first, "/retrain").await.json();
    assert_eq!(verdict["replaced"], true, "{verdict}");
    assert!(
        verdict["candidate"]["log_loss"].as_f64() <= verdict["present"]["log_loss"].as_f64(),
        "{verdict}"
    );
    // The starting data's 2,000, and every fifth of each class of the 100 recorded ones.
    assert_eq!((&verdict["candidate"]["rows"], &verdict["present"]["rows"]), (&json!(2019), &json!(2019)));
    assert_eq!((&verdict["version"], version(&first).await), (&json!(2), json!(2)));
    assert_eq!(first.get("/model/info").await.json()["training_data"], "recorded");
    until_async(FOLLOWED, async || version(&second).await == 2).await;
    let loan = json!({ "loan_to_collateral_ratio": 0.9 });
    assert_eq!(first.post("/predict", &loan).await.text, second.post("/predict", &loan).await.text);

    let versions = second.get("/model/versions").await.json();
    let listed = versions["versions"].as_array().unwrap().iter();
    let listed: Vec<_> = listed.map(|v| (v["version"].clone(), v["in_use"].clone())).collect();
    assert_eq!(listed, [(json!(2), json!(true)), (json!(1), json!(false))]);
    assert_eq!(versions["versions"][1]["model"]["training_data"], "synthetic");
    assert!(versions["versions"][1]["metrics"]["log_loss"].is_number());

    assert_eq!(admin(&second, "/model/versions/1/restore").await.status, OK);
    assert_eq!(version(&second).await, 1);
    until_async(FOLLOWED, async || version(&first).await == 1).await;
    let third = start(&postgres).await;
    assert_eq!(admin(&third, "/model/versions/2/restore").await.status, OK);
    until_async(FOLLOWED, async || version(&first).await == 2).await;
}

#[tokio::test]
async fn a_loan_keeps_its_side_of_the_split_and_each_class_gives_a_fifth() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    let sides = "SELECT loan_id, held_out FROM loan_sides ORDER BY loan_id";
    record(&api, 40).await;
    assert_eq!(admin(&api, "/retrain").await.status, OK);
    let before = postgres.admin_query(sides).await;
    record(&api, 100).await;
    assert_eq!(admin(&api, "/retrain").await.status, OK);

    let after = postgres.admin_query(sides).await;
    assert!(before.iter().all(|side| after.contains(side)), "{before:?} {after:?}");
    let fifths = postgres
        .admin_query(
            "SELECT bool_and(held = loans / 5) FROM (SELECT count(*) AS loans, \
             count(*) FILTER (WHERE held_out) AS held FROM loan_sides GROUP BY \"default\") AS classes",
        )
        .await;
    assert_eq!(fifths, [["t"]]);
}

#[tokio::test]
async fn a_model_that_is_worse_is_forgotten() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    record(&api, 100).await;
    assert_eq!(admin(&api, "/retrain").await.json()["replaced"], true);
    // What is learnt is now the opposite of what is asked.
    postgres
        .admin_query(
            "UPDATE loans SET \"default\" = NOT \"default\" \
             WHERE loan_id IN (SELECT loan_id FROM loan_sides WHERE NOT held_out)",
        )
        .await;

    let verdict = admin(&api, "/retrain").await.json();

    assert_eq!((&verdict["replaced"], &verdict["version"]), (&json!(false), &json!(2)), "{verdict}");
    assert!(verdict["candidate"]["log_loss"].as_f64() > verdict["present"]["log_loss"].as_f64(), "{verdict}");
    assert_eq!(version(&api).await, 2);
    assert_eq!(api.get("/model/versions").await.json()["count"], 2);
}

#[tokio::test]
async fn while_one_retraining_is_under_way_others_get_409_and_predictions_go_on() {
    let postgres = testkit::postgres().await;
    let (first, second) = tokio::join!(start(&postgres), start(&postgres));
    record(&first, 20).await;
    let key = i64::from_be_bytes(*b"ml_model");
    // A session of the test's holds the lock, so that it is held for certain.
    let hold = format!("SELECT pg_advisory_lock({key}), pg_sleep(60)");
    let held = format!("SELECT count(*) FROM pg_locks WHERE objid = {} AND granted", key & 0xffff_ffff);
    let asked = async {
        until_async(BOUND, async || postgres.admin_query(&held).await == [["1"]]).await;
        for api in [&first, &second] {
            for path in ["/retrain", "/model/versions/1/restore"] {
                let (status, code, _) = admin(api, path).await.problem();
                assert_eq!((status, code.as_str()), (409, "retraining_under_way"));
            }
            assert_eq!(api.post("/predict", &json!({})).await.status, OK);
        }
    };
    tokio::select! {
        _ = postgres.admin_query(&hold) => panic!("the lock's holder ended before it was asked for"),
        () = asked => {}
    }
}

#[tokio::test]
async fn what_must_not_be_retrained_is_refused_in_order() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    let refused = |answer: Answer| {
        let (status, code, _) = answer.problem();
        (status, code)
    };
    assert_eq!(refused(api.send("POST", "/retrain", &[], "").await), (401, "unauthorised".to_owned()));
    assert_eq!(refused(api.send("POST", "/model/versions/x/restore", &[], "").await).0, 400);
    assert_eq!(refused(admin(&api, "/retrain").await), (409, "nothing_recorded".to_owned()));
    assert_eq!(refused(admin(&api, "/model/versions/7/restore").await), (404, "not_found".to_owned()));
    assert_eq!(postgres.admin_query("SELECT count(*) FROM model_versions").await, [["0"]]);

    for path in ["/retrain", "/model/versions/1/restore"] {
        let wrong = api.send("POST", path, &[("authorization", "Bearer wrong horse")], "").await;
        assert_eq!(refused(wrong), (401, "unauthorised".to_owned()), "{path}");
    }
    let closed = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    for path in ["/retrain", "/model/versions/1/restore"] {
        let (status, code) = refused(admin(&closed, path).await);
        assert_eq!((status, code.as_str()), (503, "upstream_not_configured"), "{path}");
    }
    let bare = Api::start_healthy(&[("ADMIN_TOKEN", TOKEN)]).await;
    assert_eq!(refused(admin(&bare, "/retrain").await), (503, "upstream_not_configured".to_owned()));
    assert_eq!(bare.get("/model/versions").await.status, 503);
}

/// Begins a retraining that stands still between its training and the swap, does `fault`, and lets go.
/// Returns the connection on which it was asked for.
async fn in_the_middle_of_a_retraining(
    postgres: &Postgres,
    api: &Api,
    fault: impl AsyncFnOnce(),
) -> TcpStream {
    // Readers go on; what is stored waits.
    let hold = "LOCK TABLE model_versions IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(60)";
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'model_versions'::regclass \
                AND mode = 'ShareRowExclusiveLock' AND granted";
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND query LIKE 'INSERT INTO model_versions%'";
    let faulted = async {
        until_async(BOUND, async || postgres.admin_query(held).await == [["1"]]).await;
        // Perhaps nobody will answer: no client of ours waits for it.
        let mut asked = TcpStream::connect(("127.0.0.1", api.port)).await.expect("it listens");
        let request = format!(
            "POST /retrain HTTP/1.1\r\nhost: ml\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
             content-length: 0\r\n\r\n"
        );
        asked.write_all(request.as_bytes()).await.expect("it reads");
        until_async(BOUND, async || postgres.admin_query(waits).await == [["1"]]).await;
        fault().await;
        asked
    };
    let asked = tokio::select! {
        _ = postgres.admin_query(hold) => panic!("the lock's holder ended before it was asked for"),
        asked = faulted => asked,
    };
    let release =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE model_versions%'";
    postgres.admin_query(release).await;
    asked
}

#[tokio::test]
async fn predictions_go_on_in_the_middle_of_a_retraining_and_a_second_one_gets_409() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    record(&api, 100).await;
    let loan = json!({ "loan_to_collateral_ratio": 0.9 });
    let before = api.post("/predict", &loan).await.text;

    let mut asked = in_the_middle_of_a_retraining(&postgres, &api, async || {
        for answer in join_all((0..200).map(|_| api.post("/predict", &loan))).await {
            assert_eq!((answer.status, &answer.text), (OK, &before));
        }
        let (status, code, _) = admin(&api, "/retrain").await.problem();
        assert_eq!((status, code.as_str()), (409, "retraining_under_way"));
    })
    .await;

    let mut answer = String::new();
    asked.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"replaced\":true"), "{answer}");
    assert_eq!(version(&api).await, 2);
    assert_ne!(api.post("/predict", &loan).await.text, before);
}

#[tokio::test]
async fn a_postgres_killed_in_the_middle_of_a_retraining_leaves_the_old_model_and_the_next_one_succeeds() {
    // What was recorded must outlast the kill.
    let postgres = server().await;
    let api = start(&postgres).await;
    record(&api, 100).await;
    postgres
        .admin_query(
            "CREATE FUNCTION stand() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(20); RETURN NEW; END $$; \
             CREATE TRIGGER stand BEFORE INSERT ON model_versions FOR EACH ROW EXECUTE FUNCTION stand()",
        )
        .await;
    let stands = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                  AND query LIKE 'INSERT INTO model_versions%'";
    let killed = async {
        until_async(BOUND, async || !postgres.admin_query(stands).await.is_empty()).await;
        postgres.stop(Stop::Kill).await;
    };

    let (refused, ()) = tokio::join!(admin(&api, "/retrain"), killed);

    let (status, code, _) = refused.problem();
    assert_eq!((status, code.as_str()), (503, "upstream_unavailable"));
    assert_eq!((version(&api).await, api.post("/predict", &json!({})).await.status), (json!(1), OK));
    postgres.start().await;
    api.until_healthy().await;
    assert_eq!(api.get("/model/versions").await.json()["count"], 0);
    postgres.admin_query("DROP TRIGGER stand ON model_versions").await;
    until_async(BOUND, async || admin(&api, "/retrain").await.status == OK).await;
    assert_eq!(version(&api).await, 2);
}

#[tokio::test]
async fn a_retraining_takes_no_more_loans_than_its_limit_and_no_more_memory_than_that_allows() {
    const LOANS: u64 = 40_000;
    let postgres = testkit::postgres().await;
    let url = postgres.url();
    // Without optimisation and beside other tests, these take seconds.
    let variables = [("DATABASE_URL", url.as_str()), ("ADMIN_TOKEN", TOKEN), ("REQUEST_TIMEOUT", "300")];
    let api = Api::start_healthy(&variables).await;
    let columns = Feature::ALL.map(|feature| format!("\"{}\"", feature.name())).join(", ");
    let values = Feature::ALL.map(|_| "random()").join(", ");
    let many = format!(
        "INSERT INTO loans (loan_id, \"default\", {columns}) \
         SELECT g, random() < 0.3, {values} FROM generate_series(1, {LOANS}) g"
    );
    postgres.admin_query(&many).await;
    let before = peak_memory(&api.service);

    let answer = admin(&api, "/retrain").await;
    assert_eq!(answer.status, OK, "{answer:?}");
    let verdict = answer.json();

    let recorded = &verdict["row_sources"];
    let rows = |part: &str| recorded[part]["recorded"].as_u64().unwrap();
    assert_eq!(rows("training") + rows("held_out"), LOANS, "{verdict}");
    let grown = peak_memory(&api.service) - before;
    // What RETRAIN_MAX_LOANS counts with, and what 10,000 rows on the wire take whatever the number.
    assert!(grown < LOANS * 500 + (16 << 20), "{grown} bytes for {LOANS} loans");

    let limit = (LOANS - 1).to_string();
    let smaller = Api::start_healthy(&[variables[0], variables[1], ("RETRAIN_MAX_LOANS", &limit)]).await;
    let refused = admin(&smaller, "/retrain").await;
    assert_eq!(refused.problem().1, "too_many_rows");
    assert!(refused.text.contains("RETRAIN_MAX_LOANS"), "{}", refused.text);
}

#[tokio::test]
async fn a_service_killed_between_training_and_swap_leaves_the_old_model_and_starts_sanely() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    record(&api, 40).await;
    assert_eq!(admin(&api, "/retrain").await.json()["version"], 2);
    let loan = json!({ "loan_to_collateral_ratio": 0.9 });
    let before = api.post("/predict", &loan).await.text;
    record(&api, 100).await;

    in_the_middle_of_a_retraining(&postgres, &api, async || {
        api.service.signal(Signal::Kill);
        api.service.wait(BOUND).await;
    })
    .await;

    let next = start(&postgres).await;
    until_async(BOUND, async || version(&next).await == 2).await;
    assert_eq!(next.post("/predict", &loan).await.text, before);
    assert_eq!(next.get("/model/versions").await.json()["count"], 2);
    // The killed one's session ends when the server notices, and its lock with it.
    until_async(BOUND, async || admin(&next, "/retrain").await.status == OK).await;
    assert_eq!(next.get("/model/versions").await.json()["versions"][0]["version"], 3);
}
