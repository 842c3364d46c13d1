//! No acknowledged write is lost and none is doubled, whatever happens to the server.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::{Postgres, PostgresOptions, Stop, until_async};

use crate::{
    api::{Answer, Api, BOUND, OK},
    small_disk::SmallDisk,
};

const WRITERS: usize = 200;
/// One in so many writes is given up after its first failure.
const GIVEN_UP: usize = 5;
/// Writes before, between and after the faults.
const PHASE: usize = 2_000;

/// What the writers know.
#[derive(Default)]
struct Book {
    over: Cell<bool>,
    acknowledged: Cell<usize>,
    refused: Cell<usize>,
    /// Loans whose recording was acknowledged; the others may be there or not.
    recorded: std::cell::RefCell<BTreeSet<String>>,
    /// Acknowledged ends, by loan.
    ended: std::cell::RefCell<BTreeMap<String, usize>>,
}

impl Book {
    /// Sends until it is acknowledged, if it may be repeated.
    async fn write(&self, api: &Api, path: &str, body: &Value, repeat: bool) -> bool {
        loop {
            let answer = api.post(path, body).await;
            if answer.status == OK {
                self.acknowledged.set(self.acknowledged.get() + 1);
                return true;
            }
            assert!([503, 504].contains(&answer.status), "{answer:?}");
            answer.problem();
            self.refused.set(self.refused.get() + 1);
            if !repeat {
                return false;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn writer(&self, api: &Api, writer: usize) {
        for number in 0.. {
            if self.over.get() {
                return;
            }
            let id = format!("{writer}-{number}");
            let repeat = !(writer + number).is_multiple_of(GIVEN_UP);
            let loan = json!({ "loan_id": id, "loan_amount": number, "note": id });
            if !self.write(api, "/data/record", &loan, repeat).await {
                continue;
            }
            self.recorded.borrow_mut().insert(id.clone());
            let end = json!({ "loan_id": id, "outcome": { "default": number % 2, "actual_repayment_time": number } });
            if self.write(api, "/data/update", &end, repeat).await {
                self.ended.borrow_mut().insert(id, number);
            }
        }
    }

    /// Until so many more writes have been acknowledged.
    async fn go_on(&self) {
        let before = self.acknowledged.get();
        until_async(BOUND, async || self.acknowledged.get() >= before + PHASE).await;
    }
}

pub(crate) async fn server() -> Postgres {
    // testkit's own is told to forget what it has just acknowledged.
    let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
    testkit::postgres_with(PostgresOptions { settings, ..PostgresOptions::default() }).await
}

#[tokio::test]
async fn every_acknowledged_write_of_200_writers_is_there_once_after_a_kill_and_a_restart() {
    let postgres = server().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let book = Book::default();

    let faults = async {
        for how in [Stop::Kill, Stop::Fast] {
            book.go_on().await;
            let refused = book.refused.get();
            postgres.stop(how).await;
            until_async(BOUND, async || book.refused.get() > refused).await;
            postgres.start().await;
        }
        book.go_on().await;
        book.over.set(true);
    };
    let writers = join_all((0..WRITERS).map(|writer| book.writer(&api, writer)));
    tokio::join!(writers, faults);

    let rows = postgres
        .admin_query("SELECT loan_id, loan_amount::int, \"default\"::int, actual_repayment_time::int, metadata->>'note' FROM loans")
        .await;
    let found: BTreeMap<&str, &Vec<String>> = rows.iter().map(|row| (row[0].as_str(), row)).collect();
    assert_eq!(found.len(), rows.len(), "no loan is there twice");
    for id in &*book.recorded.borrow() {
        assert!(found.contains_key(id.as_str()), "{id} was acknowledged and is lost");
    }
    for (id, number) in &*book.ended.borrow() {
        let row = found[id.as_str()];
        let whole = [id.as_str(), &number.to_string(), &(number % 2).to_string(), &number.to_string(), id];
        assert_eq!(*row, whole, "an acknowledged end is lost");
    }
    for row in &rows {
        // Unacknowledged: there as it was sent, or not at all.
        let number = row[0].rsplit('-').next().expect("split has a part");
        assert_eq!((row[1].as_str(), row[4].as_str()), (number, row[0].as_str()), "half a row");
    }
    assert!(book.refused.get() > 0 && book.ended.borrow().len() >= PHASE, "{}", book.refused.get());
}

pub(crate) fn refusal(answer: &Answer) -> (u16, String) {
    let (status, code, _) = answer.problem();
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    (status, code)
}

/// A loan of some kilobytes that no server can compress away.
fn large(id: usize) -> Value {
    let mut state = id as u64 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 33) as u8 % 75)
    };
    json!({ "loan_id": id, "tx_count": id, "document": (0..8_000).map(|_| letter()).collect::<String>() })
}

#[tokio::test]
async fn a_full_disk_is_a_503_of_its_own_and_with_space_the_service_goes_on() {
    // Declared first, so that it outlives the server that has files there.
    let disk = SmallDisk::mount("1m");
    let postgres = server().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    match &disk {
        Some(disk) => {
            let place = disk.path().display().to_string();
            postgres.admin_query(&format!("CREATE TABLESPACE small LOCATION '{place}'")).await;
            postgres.admin_query("ALTER TABLE loans SET TABLESPACE small").await;
        }
        // Who may not mount sees the same refusal from the same server, with its cause made up.
        None => {
            let full = "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS \
                        $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$";
            postgres.admin_query(full).await;
            postgres.admin_query("CREATE TRIGGER full BEFORE INSERT ON loans EXECUTE FUNCTION full()").await;
        }
    }

    let mut stored = 0;
    let refused = loop {
        let answer = api.post("/data/record", &large(stored)).await;
        if answer.status != OK {
            break answer;
        }
        stored += 1;
        assert!(stored < 1_000, "the disk never fills");
    };

    assert_eq!(refusal(&refused), (503, "database_full".to_owned()));
    assert_eq!(api.get("/data/statistics").await.json()["total_loans"], stored);
    assert_eq!(api.post("/predict", &json!({})).await.status, OK);
    match &disk {
        Some(disk) => disk.grow("64m"),
        None => drop(postgres.admin_query("DROP TRIGGER full ON loans").await),
    }
    for id in stored..stored + 50 {
        assert_eq!(api.post("/data/record", &large(id)).await.status, OK);
    }
    assert_eq!(api.get("/data/statistics").await.json()["total_loans"], stored + 50);
}

async fn is_refused_until(api: &Api, read_only: &Value) {
    let body = json!({ "loan_id": "late", "tx_count": 1 });
    assert_eq!(refusal(&api.post("/data/record", &body).await), (503, "database_read_only".to_owned()));
    assert_eq!(api.get("/data/statistics").await.json()["total_loans"], *read_only);
    assert_eq!(api.get("/health").await.json()["status"], "healthy");
}

#[tokio::test]
async fn a_server_that_only_reads_is_a_503_of_its_own_and_ends_without_a_restart() {
    let postgres = server().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    assert_eq!(api.post("/data/record", &json!({ "loan_id": "early" })).await.status, OK);
    let reload = "SELECT pg_reload_conf()";
    let writable = async || api.post("/data/record", &json!({ "loan_id": "late" })).await.status == OK;
    let reading = async || !writable().await;

    postgres.admin_query("ALTER SYSTEM SET default_transaction_read_only = on").await;
    postgres.admin_query(reload).await;
    until_async(BOUND, reading).await;
    let stored = api.get("/data/statistics").await.json()["total_loans"].clone();
    is_refused_until(&api, &stored).await;
    // A service that starts now can read what is there.
    let second = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    is_refused_until(&second, &stored).await;
    postgres.admin_query("ALTER SYSTEM RESET default_transaction_read_only").await;
    postgres.admin_query(reload).await;
    until_async(BOUND, writable).await;

    // Of the session: it is over with the connections that have it.
    postgres.admin_query("ALTER DATABASE app SET default_transaction_read_only = on").await;
    postgres.kill_backends().await;
    until_async(BOUND, reading).await;
    postgres
        .admin_query("BEGIN READ WRITE; ALTER DATABASE app RESET default_transaction_read_only; COMMIT")
        .await;
    until_async(BOUND, writable).await;
}
