//! What each upstream may take is set by its variables, and a slow one takes nothing from the others.

use std::{collections::BTreeMap, time::Duration};

use backend::settings::Task;
use serde_json::json;
use testkit::{End, Reply, gemini::GeminiFault, ml_api::MlFault};

use crate::stack::{Answer, BOUND, Backend};

const CHAT: &str = "/api/chatbot/chat";
const PREDICT: &str = "/api/ml/predict";
const SHOWN: &str = "/api/ipfs/metadata/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

async fn chat(backend: &Backend) -> Answer {
    backend.must_post(CHAT, &json!({ "message": "Rates?" })).await
}

async fn predict(backend: &Backend) -> Answer {
    backend.must_post(PREDICT, &json!({})).await
}

/// With a Gemini that answers.
async fn with_gemini(gemini: &testkit::Gemini, more: &[(&str, &str)]) -> Backend {
    let url = gemini.url();
    let keys = [("GEMINI_URL", url.as_str()), ("GEMINI_API_KEY", testkit::gemini::API_KEY)];
    Backend::start(&[&keys, more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_questions_one_waits_where_one_place_is_set_and_is_refused_where_none_may_wait() {
    let gemini = testkit::gemini(|_| "Words.".to_owned()).await;
    gemini.misbehave(GeminiFault::Late(Duration::from_millis(200)));
    let backend = with_gemini(&gemini, &[("GEMINI_MAX_IN_FLIGHT", "1")]).await;
    let answers = futures_util::future::join_all((0..5).map(|_| chat(&backend))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(gemini.peak_in_flight(), 1);

    let one = [("GEMINI_MAX_IN_FLIGHT", "1"), ("GEMINI_MAX_QUEUE", "0")];
    drop(backend);
    let backend = with_gemini(&gemini, &one).await;
    gemini.misbehave(GeminiFault::Answer(Reply::never()));
    let questions =
        || gemini.seen().iter().filter(|request| request.target.contains("generateContent")).count();
    let (first, second) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), chat(&backend)), async {
        testkit::until(BOUND, || questions() == 6).await;
        chat(&backend).await
    });
    assert!(first.is_err(), "{first:?}");
    assert_eq!(code(&second), (503, "pool_busy"), "{}", second.text);
    assert!(second.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_failures_ml_api_is_left_alone_where_two_are_set() {
    let ml = testkit::upstream(|_| Reply::none(End::Reset)).await;
    let url = ml.url();
    let asked = || ml.seen().iter().filter(|request| request.target == "/predict").count();
    let variables = [
        ("ML_SERVICE_URL", url.as_str()),
        ("ML_API_BREAKER_FAILURES", "2"),
        ("ML_API_BREAKER_PAUSE_MS", "600000"),
    ];
    let backend = Backend::start(&variables).await;
    for _ in 0..2 {
        assert_eq!(code(&predict(&backend).await), (502, "upstream_failed"));
    }
    let left_alone = predict(&backend).await;
    assert_eq!(code(&left_alone), (503, "upstream_unavailable"), "{}", left_alone.text);
    assert!(left_alone.body["detail"].as_str().unwrap().contains("left alone"), "{}", left_alone.text);
    let pause: u64 = left_alone.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&pause), "{pause}");
    assert_eq!(asked(), 2);
    let metrics = backend.must_get("/metrics").await.text;
    assert!(metrics.contains(r#"pools_http_breaker_state{upstream="ml_api"} 2"#), "{metrics}");

    // 0 never stops.
    let backend = Backend::start(&[("ML_SERVICE_URL", &url), ("ML_API_BREAKER_FAILURES", "0")]).await;
    for _ in 0..15 {
        assert_eq!(code(&predict(&backend).await), (502, "upstream_failed"));
    }
    assert_eq!(asked(), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ml_api_says_is_no_failure_however_often_it_says_503() {
    let ml = testkit::upstream(|request| match &*request.target {
        "/predict" => Reply::json(json!({ "success": true, "prediction": {} }).to_string()),
        _ => Reply::new(503).header("content-type", "application/problem+json").body("{}"),
    })
    .await;
    let backend = Backend::start(&[("ML_SERVICE_URL", &ml.url()), ("ML_API_BREAKER_FAILURES", "2")]).await;
    for _ in 0..5 {
        assert_eq!(backend.must_get("/api/ml/health").await.status, 503);
    }
    assert_eq!(predict(&backend).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_ml_apis_database_hangs_predictions_go_on() {
    let ml = testkit::upstream(|request| match &*request.target {
        "/predict" => Reply::json(json!({ "success": true, "prediction": {} }).to_string()),
        _ => Reply::never(),
    })
    .await;
    let url = ml.url();
    let asked = || ml.seen().iter().filter(|request| request.target == "/data/statistics").count();
    let variables = [
        ("ML_SERVICE_URL", url.as_str()),
        ("ML_API_MAX_IN_FLIGHT", "2"),
        ("ML_API_BREAKER_FAILURES", "2"),
        ("ML_API_BREAKER_PAUSE_MS", "600000"),
        ("ML_API_HEAD_TIMEOUT_MS", "1000"),
    ];
    let backend = Backend::start(&variables).await;
    let statistics = || backend.must_get("/api/ml/data/statistics");
    // One is under way, the other waits for its end.
    let (first, second, prediction) = tokio::join!(statistics(), statistics(), async {
        testkit::until(BOUND, || asked() == 1).await;
        let prediction = predict(&backend).await;
        assert_eq!(asked(), 1, "it waited for the database");
        prediction
    });
    assert_eq!(prediction.status, 200, "{}", prediction.text);
    for answer in [first, second] {
        assert_eq!(code(&answer), (504, "upstream_timeout"), "{}", answer.text);
    }
    let left_alone = statistics().await;
    assert_eq!(code(&left_alone), (503, "upstream_unavailable"), "{}", left_alone.text);
    assert_eq!((asked(), predict(&backend).await.status), (2, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_never_takes_the_connections_of_another() {
    let ml = testkit::upstream(|_| Reply::never()).await;
    let gemini = testkit::gemini(|_| "Words.".to_owned()).await;
    let url = ml.url();
    let few = [
        ("ML_SERVICE_URL", url.as_str()),
        ("ML_API_MAX_IN_FLIGHT", "2"),
        ("ML_API_TOTAL_TIMEOUT_MS", "3000"),
        // One for each of the two, one for the probe of ml-api, one for Gemini.
        ("HTTP_MAX_TOTAL_SOCKETS", "4"),
    ];
    let backend = with_gemini(&gemini, &few).await;
    let asked = || ml.seen().iter().filter(|request| request.target == "/predict").count();
    let slow = futures_util::future::join_all((0..20).map(|_| predict(&backend)));
    let others = async {
        testkit::until(BOUND, || asked() == 2).await;
        for _ in 0..10 {
            assert_eq!(chat(&backend).await.status, 200);
        }
        assert_eq!(asked(), 2, "Gemini's answers waited for ml-api's");
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert!(slow.iter().all(|answer| matches!(answer.status, 503 | 504)), "{slow:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_phase_ends_by_the_time_that_is_set_for_its_upstream() {
    let late = Duration::from_secs(60);
    let ml = testkit::upstream(move |_| Reply::json("{}").delay(late)).await;
    let gemini = testkit::gemini(|_| "Words.".to_owned()).await;
    gemini.misbehave(GeminiFault::Late(late));
    let pinata = testkit::pinata().await;
    pinata.misbehave(testkit::pinata::PinataFault::Late(late));
    let (ml, pinata) = (ml.url(), pinata.url());
    let impatient = [
        ("ML_SERVICE_URL", ml.as_str()),
        ("ML_API_HEAD_TIMEOUT_MS", "200"),
        ("GEMINI_HEAD_TIMEOUT_MS", "200"),
        ("GEMINI_MAX_RETRIES", "0"),
        ("PINATA_URL", pinata.as_str()),
        ("PINATA_JWT", testkit::pinata::JWT),
        ("PINATA_TOTAL_TIMEOUT_MS", "200"),
    ];
    let backend = with_gemini(&gemini, &impatient).await;
    let (predicted, said, shown) = tokio::join!(predict(&backend), chat(&backend), backend.must_get(SHOWN));
    for answer in [predicted, said, shown] {
        assert_eq!(code(&answer), (504, "upstream_timeout"), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_accept_is_given_up_by_the_time_to_connect_that_is_set_and_told_as_away() {
    let hole = testkit::black_hole().await;
    let url = format!("http://{}", hole.addr());
    let impatient = [
        ("HTTP_CONNECT_TIMEOUT_MS", "200"),
        ("ML_SERVICE_URL", url.as_str()),
        ("GEMINI_URL", &url),
        ("GEMINI_API_KEY", testkit::gemini::API_KEY),
        ("PINATA_URL", &url),
        ("PINATA_JWT", testkit::pinata::JWT),
    ];
    let backend = Backend::start(&impatient).await;
    let (predicted, said, shown) = tokio::join!(predict(&backend), chat(&backend), backend.must_get(SHOWN));
    for answer in [predicted, said, shown] {
        assert_eq!(code(&answer), (503, "upstream_unavailable"), "{}", answer.text);
    }
}

/// The default of a time-out and its fifth, of all that decide how long a call may take.
fn a_fifth_of_the_defaults() -> Vec<(&'static str, String)> {
    let Task::Serve(settings) = Task::read(["backend".into()], BTreeMap::new()).unwrap() else { panic!() };
    let (ml, gemini) = (settings.policies.ml.policy(), settings.policies.gemini.policy());
    let ms = |time: Duration| (time / 5).as_millis().to_string();
    vec![
        ("REQUEST_TIMEOUT", (settings.service.request_timeout / 5).as_secs().to_string()),
        ("ML_API_HEAD_TIMEOUT_MS", ms(ml.head_timeout)),
        ("ML_API_TOTAL_TIMEOUT_MS", ms(ml.total_timeout)),
        ("GEMINI_HEAD_TIMEOUT_MS", ms(gemini.head_timeout)),
        ("GEMINI_TOTAL_TIMEOUT_MS", ms(gemini.total_timeout)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_counted_with_time_outs_in_the_order_of_the_defaults() {
    let ml = testkit::ml_api().await;
    ml.misbehave(MlFault::Never);
    let gemini = testkit::gemini(|_| "Words.".to_owned()).await;
    gemini.misbehave(GeminiFault::Answer(Reply::never()));
    let (url, scaled) = (ml.url(), a_fifth_of_the_defaults());
    let mut variables = vec![
        ("ML_SERVICE_URL", url.as_str()),
        ("ML_API_BREAKER_FAILURES", "2"),
        ("ML_API_BREAKER_PAUSE_MS", "600000"),
        ("GEMINI_BREAKER_FAILURES", "3"),
        ("GEMINI_BREAKER_PAUSE_MS", "600000"),
    ];
    variables.extend(scaled.iter().map(|(name, value)| (*name, value.as_str())));
    let backend = with_gemini(&gemini, &variables).await;
    assert_eq!(backend.health_of("gemini").await, "up");
    let streamed = backend.request(http::Method::POST, CHAT).json(&json!({ "message": "Rates?" }));
    let streamed = backend.send(streamed.header("accept", "text/event-stream"));
    let (first, second, third, fourth, streamed) =
        tokio::join!(predict(&backend), predict(&backend), chat(&backend), chat(&backend), async {
            streamed.await.unwrap()
        },);
    for answer in [first, second] {
        assert_eq!(code(&answer), (504, "upstream_timeout"), "{}", answer.text);
    }
    for answer in [third, fourth, streamed] {
        // Their second attempts may meet the open breaker.
        let told = matches!(code(&answer), (504, "upstream_timeout") | (503, "upstream_unavailable"));
        assert!(told, "{}", answer.text);
    }
    for answer in [predict(&backend).await, chat(&backend).await] {
        assert_eq!(code(&answer), (503, "upstream_unavailable"), "{}", answer.text);
        assert!(answer.body["detail"].as_str().unwrap().contains("left alone"), "{}", answer.text);
    }
    assert_eq!(backend.health_of("gemini").await, "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_time_out_that_is_never_reached_is_warned_of() {
    let backend = Backend::start(&[("REQUEST_TIMEOUT", "25"), ("PINATA_TOTAL_TIMEOUT_MS", "10000")]).await;
    let warned = |variable: &str| {
        let lines = backend.process.lines();
        lines.iter().any(|line| line.contains(variable) && line.contains("silence is never counted"))
    };
    for (variable, expected) in [
        ("GEMINI_HEAD_TIMEOUT_MS", true),
        ("PINATA_HEAD_TIMEOUT_MS", true),
        ("ML_API_HEAD_TIMEOUT_MS", false),
        ("PINATA_UPLOAD_HEAD_TIMEOUT_MS", false),
    ] {
        assert_eq!(warned(variable), expected, "{variable}");
    }
}

#[test]
fn a_wrong_value_stops_the_start_and_is_named() {
    for (variable, value) in [
        ("GEMINI_MAX_IN_FLIGHT", "0"),
        ("ML_API_RETRY_BUDGET", "101"),
        ("PINATA_BREAKER_PAUSE_MS", "soon"),
        ("PINATA_UPLOAD_TOTAL_TIMEOUT_MS", "0"),
        ("ETHERSCAN_MAX_RETRIES", "11"),
    ] {
        let environment = BTreeMap::from([(variable.to_owned(), value.to_owned())]);
        let error = Task::read(["backend".into()], environment).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{variable}: {value:?} is not in ")), "{error}");
    }
}
