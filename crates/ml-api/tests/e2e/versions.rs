//! Which model a replica answers with, and what is told of the stored ones.

use serde_json::{Value, json};
use testkit::until_async;

use crate::{
    api::{Api, BOUND, OK},
    retraining::{TOKEN, admin, features, record, start, version},
};

/// Says different things of different models.
fn loan() -> Value {
    let example = ml_api::risk::generator::generate(1, 5).remove(0);
    features(&example).into()
}

async fn answer(api: &Api) -> String {
    let answer = api.post("/predict", &loan()).await;
    assert_eq!(answer.status, OK, "{answer:?}");
    answer.text
}

#[tokio::test]
async fn a_restarted_replica_is_ready_with_the_model_it_answered_with_before() {
    let postgres = testkit::postgres().await;
    let first = start(&postgres).await;
    record(&first, 100).await;
    let starting = answer(&first).await;
    assert_eq!(admin(&first, "/retrain").await.json()["version"], 2);
    let before = answer(&first).await;
    assert_ne!(before, starting);
    drop(first);

    let second = Api::start(&[("DATABASE_URL", &postgres.url())]).await;
    second.until_ready().await;

    assert_eq!(answer(&second).await, before);
    let mut recorded = loan();
    recorded["loan_id"] = json!("late");
    assert_eq!(second.post("/data/record", &recorded).await.status, OK);
    let said = postgres.admin_query("SELECT predicted_by FROM loans WHERE loan_id = 'late'").await;
    assert_eq!(said, [["2"]]);
}

#[tokio::test]
async fn a_postgres_that_does_not_answer_keeps_no_replica_from_predicting() {
    let postgres = testkit::postgres().await;
    postgres.freeze();
    let api = Api::start(&[("DATABASE_URL", &postgres.url()), ("DB_CONNECT_TIMEOUT", "1")]).await;

    api.until_ready().await;

    answer(&api).await;
    assert!(api.service.line_with("without having seen which model is in use").is_some());
    postgres.thaw();
}

#[tokio::test]
async fn a_replica_that_only_has_its_starting_model_takes_the_stored_one_of_the_same_number() {
    let postgres = testkit::postgres().await;
    let first = start(&postgres).await;
    record(&first, 100).await;
    assert_eq!(admin(&first, "/retrain").await.json()["version"], 2);
    // As another build of this program would have begun.
    let moved = "UPDATE model_versions SET trained = jsonb_set(trained::jsonb, '{model,intercept}', '1.5')::json \
                 WHERE version = 1";
    postgres.admin_query(moved).await;

    assert_eq!(admin(&first, "/model/versions/1/restore").await.status, OK);
    let second = start(&postgres).await;
    second.until_ready().await;

    assert_eq!(first.get("/model/info").await.json()["intercept"], 1.5);
    assert_eq!(answer(&second).await, answer(&first).await);
}

#[tokio::test]
async fn another_database_in_the_place_of_ours_brings_its_model_of_the_same_number() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    record(&api, 100).await;
    assert_eq!(admin(&api, "/retrain").await.json()["version"], 2);

    // In one statement, as a restored backup would appear.
    postgres
        .admin_query(
            "UPDATE model_versions SET created_at = created_at - interval '1 day', \
             trained = jsonb_set(trained::jsonb, '{model,intercept}', '1.5')::json",
        )
        .await;

    until_async(BOUND, async || api.get("/model/info").await.json()["intercept"] == 1.5).await;
}

#[tokio::test]
async fn a_committed_swap_is_told_as_one_even_if_the_new_model_cannot_be_read_at_once() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    record(&api, 100).await;
    // Whatever is taken into use cannot be read until it is put back.
    postgres
        .admin_query(
            "CREATE TABLE kept AS SELECT version, trained FROM model_versions; \
             CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
             INSERT INTO kept SELECT version, trained FROM model_versions WHERE version = NEW.version; \
             UPDATE model_versions SET trained = '{}' WHERE version = NEW.version; RETURN NULL; END $$; \
             CREATE TRIGGER hide AFTER INSERT OR UPDATE ON model_in_use FOR EACH ROW WHEN (NEW.version = 2) \
             EXECUTE FUNCTION hide()",
        )
        .await;

    let verdict = admin(&api, "/retrain").await;
    assert_eq!((verdict.status, &verdict.json()["replaced"]), (OK, &json!(true)), "{verdict:?}");
    assert_eq!(version(&api).await, 1);
    let listed = api.get("/model/versions").await.json();
    assert_eq!(
        (&listed["versions"][0]["version"], &listed["versions"][0]["model"]),
        (&json!(2), &Value::Null)
    );
    let restored = admin(&api, "/model/versions/2/restore").await;
    assert_eq!(restored.status, OK, "{restored:?}");

    let put_back = "UPDATE model_versions SET trained = k.trained FROM kept k \
                    WHERE k.version = model_versions.version AND k.trained::text <> '{}'";
    postgres.admin_query(put_back).await;
    until_async(BOUND, async || version(&api).await == 2).await;
}

#[tokio::test]
async fn synthetic_rows_are_named_wherever_a_retrained_model_shows() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    let sources = |training: u32, held_out: u32| {
        json!({
            "training": { "synthetic": 8000, "recorded": training },
            "held_out": { "synthetic": 2000, "recorded": held_out }
        })
    };
    for path in ["/model/info", "/model/metrics", "/comparison"] {
        assert_eq!(api.get(path).await.json()["row_sources"], sources(0, 0), "{path}");
    }
    record(&api, 100).await;

    let verdict = admin(&api, "/retrain").await.json();

    assert_eq!(verdict["row_sources"], sources(81, 19), "{verdict}");
    for path in ["/model/info", "/model/metrics", "/comparison"] {
        let shown = api.get(path).await.json();
        assert_eq!((&shown["training_data"], &shown["row_sources"]), (&json!("recorded"), &sources(81, 19)));
    }
    let versions = api.get("/model/versions").await.json();
    assert_eq!(versions["versions"][0]["row_sources"], sources(81, 19));
    assert_eq!(versions["versions"][1]["row_sources"], sources(0, 0));
}

#[tokio::test]
async fn each_version_keeps_its_whole_report_and_the_list_is_bounded() {
    let postgres = testkit::postgres().await;
    let api = start(&postgres).await;
    record(&api, 100).await;
    let verdict = admin(&api, "/retrain").await.json();

    let versions = api.get("/model/versions").await.json();

    let [new, starting] = [&versions["versions"][0], &versions["versions"][1]];
    assert_eq!(new["metrics"], verdict["candidate"]);
    assert_eq!(new["compared_with"], json!({ "version": 1, "metrics": verdict["present"] }));
    assert_eq!(starting["compared_with"], Value::Null);
    for (version, rows) in [(new, 2019), (starting, 2000)] {
        let bins = version["calibration"].as_array().unwrap();
        assert_eq!(bins.iter().map(|bin| bin["rows"].as_u64().unwrap()).sum::<u64>(), rows);
        assert!(version.get("reference").is_none(), "{version}");
    }
    assert_eq!(api.get("/model/metrics").await.json()["calibration"], new["calibration"]);

    let many = "INSERT INTO model_versions (version, trained) \
                SELECT v, trained FROM model_versions, generate_series(3, 80) v WHERE version = 2";
    postgres.admin_query(many).await;
    assert_eq!(admin(&api, "/model/versions/1/restore").await.status, OK);
    let many = api.get("/model/versions").await.json();
    assert_eq!((&many["total"], &many["count"]), (&json!(80), &json!(51)));
    // The one in use is there however old it is.
    let listed: Vec<_> = many["versions"].as_array().unwrap().iter().map(|v| v["version"].clone()).collect();
    assert_eq!((&listed[0], &listed[49], &listed[50]), (&json!(80), &json!(31), &json!(1)));
    let bare = Api::start_healthy(&[("ADMIN_TOKEN", TOKEN)]).await;
    assert_eq!(bare.get("/model/versions").await.status, 503);
}
