//! Start, messages, refusals, and the orderly end.

use futures_util::future::join_all;
use serde_json::json;
use testkit::{Signal, until_async};

use crate::api::{Api, BOUND, OK, program};

#[tokio::test]
async fn the_start_up_messages_appear_word_for_word_with_the_real_numbers() {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url()), ("DB_POOL_SIZE", "7")]).await;
    let lines = api.service.lines();
    let place = |message: &str| {
        let found = lines.iter().position(|line| line.contains(&format!("\"message\":\"{message}\"")));
        found.unwrap_or_else(|| panic!("{message} is missing from {lines:#?}"))
    };
    let first = place("Initializing connection pools...");
    let second = place("Database pool configured: size=7, max_overflow=20");
    let third = place("Connection pools initialized");
    assert!(first < second && second < third);
    assert!(!lines.iter().any(|line| line.contains("app-password")), "{lines:#?}");
}

#[tokio::test]
async fn a_wrong_setting_is_named_and_stops_the_start_with_2() {
    let cases = [
        ("DB_POOL_SIZ", "3", "did you mean DB_POOL_SIZE?"),
        ("DB_POOL_SIZE", "0", "1..=10000"),
        ("ML_PORT", "70000", "1..=65535"),
        ("LOG_LEVEL", "=loud=", "info"),
        ("DATABASE_URL", "postgres//app:hunter2@db/x", "postgresql://"),
    ];
    for (name, value, hint) in cases {
        let service = program(&[(name, value)]);
        assert_eq!(service.wait(BOUND).await, 2, "{name}={value}");
        let line = service.line_with("ml-api: ").expect("it says why");
        assert!(line.contains(name) && line.contains(hint), "{line}");
        assert!(!service.lines().join("\n").contains("hunter2"), "{:#?}", service.lines());
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Api::start(&[]).await;
    let port = first.port.to_string();
    let second = program(&[("ML_PORT", &port)]);
    assert_ne!(second.wait(BOUND).await, 0);
    assert!(second.line_with("ml-api: ").is_some_and(|line| line.contains(&port)));
}

#[tokio::test]
async fn help_shows_every_setting_and_ends_with_0() {
    let service = testkit::service(env!("CARGO_BIN_EXE_ml-api"), &["--help"], &[]);
    assert_eq!(service.wait(BOUND).await, 0);
    for section in ml_api::settings::sections() {
        for row in section.rows {
            assert!(service.line_with(row.variable).is_some(), "{} is missing", row.variable);
        }
    }
}

#[tokio::test]
async fn the_same_binary_tells_whether_the_service_lives() {
    let api = Api::start(&[]).await;
    let ask = async |port: u16| {
        let port = port.to_string();
        let check =
            testkit::service(env!("CARGO_BIN_EXE_ml-api"), &["healthcheck"], &[("ML_PORT", port.as_str())]);
        check.wait(BOUND).await
    };
    assert_eq!(ask(api.port).await, 0);
    assert_eq!(ask(testkit::free_port()).await, 1);
}

#[tokio::test]
async fn after_sigterm_all_100_requests_in_flight_are_answered_and_no_connection_is_left() {
    end_with_100_requests_in_flight(Signal::Term).await;
}

#[tokio::test]
async fn after_sigint_all_100_requests_in_flight_are_answered_and_no_connection_is_left() {
    end_with_100_requests_in_flight(Signal::Int).await;
}

async fn end_with_100_requests_in_flight(how: Signal) {
    let postgres = testkit::postgres().await;
    let api = Api::start_healthy(&[("DATABASE_URL", &postgres.url())]).await;
    let requests = (0..100).map(|id| {
        let api = &api;
        async move { api.post("/data/record", &json!({ "loan_id": id })).await.status }
    });

    // Frozen, the server answers none of them before the signal came.
    postgres.freeze();
    let signal = async {
        // The request that asks is one of them.
        let active = "http_server_active_requests 101";
        until_async(BOUND, async || api.get("/metrics").await.text.contains(active)).await;
        api.service.signal(how);
        api.service.wait_for_line(BOUND, "shutting down").await;
        postgres.thaw();
    };
    let (statuses, ()) = tokio::join!(join_all(requests), signal);

    assert_eq!(statuses, vec![OK; 100]);
    assert_eq!(api.service.wait(BOUND).await, 0, "{:#?}", api.service.lines());
    assert_eq!(postgres.all_connections().await, 0);
    assert_eq!(postgres.admin_query("SELECT count(*) FROM loans").await, [["100"]]);
}
