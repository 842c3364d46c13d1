//! `/retrain`, the versions it leaves, and how other replicas learn of them.

use futures_util::future::join_all;
use ml_api::risk::{Feature, generator};
use serde_json::{Map, Value, json};
use testkit::{Postgres, Signal, until_async};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::api::{Answer, Api, BOUND, OK};

const TOKEN: &str = "correct horse";

async fn start(postgres: &Postgres) -> Api {
    Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("ADMIN_TOKEN", TOKEN)]).await
}

async fn admin(api: &Api, path: &str) -> Answer {
    api.send("POST", path, &[("authorization", &format!("Bearer {TOKEN}"))], "").await
}

/// Records loans with their ends.
async fn record(api: &Api, count: usize) {
    let recorded = generator::generate(count, 99).into_iter().enumerate().map(|(id, example)| {
        let values = Feature::ALL.into_iter().zip(example.features);
        let mut loan: Map<String, Value> =
            values.map(|(feature, value)| (feature.name().to_owned(), json!(value))).collect();
        loan.insert("loan_id".to_owned(), json!(id));
        loan.insert("default".to_owned(), json!(u8::from(example.default)));
        async move { api.post("/data/record", &loan.into()).await.status }
    });
    assert_eq!(join_all(recorded).await, vec![OK; count]);
}

async fn version(api: &Api) -> Value {
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
    until_async(BOUND, async || version(&second).await == 2).await;
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
    until_async(BOUND, async || version(&first).await == 1).await;
    let third = start(&postgres).await;
    assert_eq!(admin(&third, "/model/versions/2/restore").await.status, OK);
    until_async(BOUND, async || version(&first).await == 2).await;
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

    let bare = Api::start_healthy(&[("ADMIN_TOKEN", TOKEN)]).await;
    assert_eq!(refused(admin(&bare, "/retrain").await), (503, "upstream_not_configured".to_owned()));
    assert_eq!(bare.get("/model/versions").await.status, 503);
}

/// Begins a retraining that stands still between its training and the swap, does `fault`, and lets go.
async fn in_the_middle_of_a_retraining(postgres: &Postgres, api: &Api, fault: impl AsyncFnOnce()) {
    // Readers go on; what is stored waits.
    let hold = "LOCK TABLE model_versions IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(60)";
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'model_versions'::regclass \
                AND mode = 'ShareRowExclusiveLock' AND granted";
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND query LIKE 'INSERT INTO model_versions%'";
    let faulted = async {
        until_async(BOUND, async || postgres.admin_query(held).await == [["1"]]).await;
        // Nobody will answer: no client of ours waits for it.
        let mut asked = TcpStream::connect(("127.0.0.1", api.port)).await.expect("it listens");
        let request = format!(
            "POST /retrain HTTP/1.1\r\nhost: ml\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n"
        );
        asked.write_all(request.as_bytes()).await.expect("it reads");
        until_async(BOUND, async || postgres.admin_query(waits).await == [["1"]]).await;
        fault().await;
    };
    tokio::select! {
        _ = postgres.admin_query(hold) => panic!("the lock's holder ended before it was asked for"),
        () = faulted => {}
    }
    let release =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE model_versions%'";
    postgres.admin_query(release).await;
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
