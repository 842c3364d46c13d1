//! A full disk, a server that only reads and one that is killed, as requests, offers, matches and retrainings see it.

use std::cell::{Cell, RefCell};

use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::{Postgres, Stop, until_async};

use crate::{
    api::{Api, BOUND, OK},
    durability::{refusal, server},
    matching::{delete, offer, put, request},
    retraining::{admin, record, start},
    small_disk::SmallDisk,
};

/// With a pair that fits and loans to learn from.
async fn started() -> (Postgres, Api) {
    let postgres = server().await;
    let api = start(&postgres).await;
    record(&api, 40).await;
    assert_eq!(put(&api, "/requests/r", &request()).await.status, OK);
    assert_eq!(put(&api, "/offers/o", &offer()).await.status, OK);
    (postgres, api)
}

fn order() -> Value {
    json!({ "loanId": "r", "offerId": "o" })
}

async fn all_go_on(api: &Api) {
    assert_eq!(put(api, "/offers/later", &offer()).await.status, OK);
    assert_eq!(api.post("/matches", &order()).await.status, OK);
    assert_eq!(admin(api, "/retrain").await.status, OK);
    assert_eq!(delete(api, "/offers/later").await.status, OK);
}

#[tokio::test]
async fn a_full_disk_refuses_offers_matches_and_retrainings_by_name_and_with_space_they_go_on() {
    const TABLES: [&str; 3] = ["lending_offers", "matches", "model_versions"];
    // Declared first, so that it outlives the server that has files there.
    let disk = SmallDisk::mount("1m");
    let (postgres, api) = started().await;
    match &disk {
        Some(disk) => {
            let place = disk.path().display().to_string();
            postgres.admin_query(&format!("CREATE TABLESPACE small LOCATION '{place}'")).await;
            for table in TABLES {
                postgres.admin_query(&format!("ALTER TABLE {table} SET TABLESPACE small")).await;
            }
            // What is taken back leaves its pages taken.
            postgres.admin_query("CREATE TABLE filler (text text) TABLESPACE small").await;
            let fill = "DO $$ BEGIN LOOP INSERT INTO filler VALUES (repeat('x', 1500)); END LOOP; \
                        EXCEPTION WHEN disk_full THEN NULL; END $$";
            postgres.admin_query(fill).await;
        }
        // Who may not mount sees the same refusal from the same server, with its cause made up.
        None => {
            let full = "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS \
                        $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$";
            postgres.admin_query(full).await;
            for table in TABLES {
                let sql = format!("CREATE TRIGGER full BEFORE INSERT ON {table} EXECUTE FUNCTION full()");
                postgres.admin_query(&sql).await;
            }
        }
    }
    let full = (503, "database_full".to_owned());

    let mut stored = 0;
    let refused = loop {
        let answer = put(&api, &format!("/offers/{stored}"), &offer()).await;
        if answer.status != OK {
            break answer;
        }
        stored += 1;
        assert!(stored < 1_000, "the last page never fills");
    };
    assert_eq!(refusal(&refused), full);
    assert_eq!(refusal(&api.post("/matches", &order()).await), full);
    assert_eq!(refusal(&admin(&api, "/retrain").await), full);
    assert_eq!(api.get("/offers").await.json()["count"], stored + 1);
    assert_eq!(api.get("/matches").await.json()["total"], 0);
    assert_eq!(api.post("/predict", &json!({})).await.status, OK);

    match &disk {
        Some(disk) => disk.grow("64m"),
        None => {
            for table in TABLES {
                postgres.admin_query(&format!("DROP TRIGGER full ON {table}")).await;
            }
        }
    }
    all_go_on(&api).await;
}

#[tokio::test]
async fn a_server_that_only_reads_refuses_every_write_by_name_and_they_go_on_when_it_writes() {
    let (postgres, api) = started().await;
    let writes = async || put(&api, "/offers/probe", &offer()).await.status == OK;
    postgres.admin_query("ALTER SYSTEM SET default_transaction_read_only = on").await;
    postgres.admin_query("SELECT pg_reload_conf()").await;
    until_async(BOUND, async || !writes().await).await;

    for answer in [
        put(&api, "/requests/late", &request()).await,
        put(&api, "/offers/late", &offer()).await,
        delete(&api, "/requests/r").await,
        api.post("/matches", &order()).await,
        admin(&api, "/retrain").await,
    ] {
        assert_eq!(refusal(&answer), (503, "database_read_only".to_owned()));
    }
    assert_eq!(api.get("/requests").await.json()["count"], 1);

    postgres.admin_query("ALTER SYSTEM RESET default_transaction_read_only").await;
    postgres.admin_query("SELECT pg_reload_conf()").await;
    until_async(BOUND, writes).await;
    all_go_on(&api).await;
}

/// Requests, and as many offers.
const SIDES: usize = 300;

/// Orders with an id are repeated until there is an answer that counts.
async fn matcher(api: &Api, first: usize, step: usize, made: &RefCell<Vec<String>>, refused: &Cell<usize>) {
    for request in (first..SIDES).step_by(step) {
        for offer in [request, (request + 1) % SIDES] {
            let id = format!("{request}-{offer}");
            let order = json!({ "matchId": id, "loanId": request.to_string(), "offerId": offer.to_string() });
            loop {
                let answer = api.post("/matches", &order).await;
                match answer.status {
                    OK => made.borrow_mut().push(id),
                    409 => assert_eq!(answer.problem().1, "already_matched"),
                    503 | 504 => {
                        refused.set(refused.get() + 1);
                        tokio::task::yield_now().await;
                        continue;
                    }
                    _ => panic!("{answer:?}"),
                }
                break;
            }
        }
    }
}

#[tokio::test]
async fn matchers_through_a_killed_postgres_take_each_side_once_and_lose_no_match() {
    let postgres = server().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let puts = (0..SIDES).map(|id| {
        let api = &api;
        async move {
            let request = put(api, &format!("/requests/{id}"), &request()).await.status;
            (request, put(api, &format!("/offers/{id}"), &offer()).await.status)
        }
    });
    assert_eq!(join_all(puts).await, vec![(OK, OK); SIDES]);
    let (made, refused) = (RefCell::<Vec<String>>::default(), Cell::new(0));

    let kill = async {
        until_async(BOUND, async || made.borrow().len() >= 10).await;
        postgres.stop(Stop::Kill).await;
        until_async(BOUND, async || refused.get() > 0).await;
        postgres.start().await;
    };
    tokio::join!(kill, join_all((0..10).map(|first| matcher(&api, first, 10, &made, &refused))));

    let mut made = made.into_inner();
    made.sort();
    let found = postgres
        .admin_query(
            "SELECT match_id FROM matches m JOIN loan_requests r USING (match_id, loan_id) \
             JOIN lending_offers o USING (match_id, offer_id) ORDER BY match_id COLLATE \"C\"",
        )
        .await;
    assert_eq!(found.concat(), made, "what was acknowledged is what is there");
    let once = "SELECT count(DISTINCT loan_id) = count(*) AND count(DISTINCT offer_id) = count(*), \
                count(*) = (SELECT count(match_id) FROM loan_requests), \
                count(*) = (SELECT count(match_id) FROM lending_offers) FROM matches";
    assert_eq!(postgres.admin_query(once).await, [["t", "t", "t"]]);
    assert!(made.len() > SIDES / 2, "{} matches", made.len());
}
