//! `/api/chatbot/*`: questions through the service to a Gemini as documented.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use testkit::{
    End, Gemini, Reply,
    gemini::{API_KEY, GeminiCall, GeminiFault, MODEL},
    until,
};

use crate::stack::{Answer, BOUND, Backend};

const CHAT: &str = "/api/chatbot/chat";
const WORDS: &str = "Rates depend on risk, duration and the market. ";

/// A model that says the same to everybody and follows a schema.
async fn model() -> Gemini {
    testkit::gemini(|call: &GeminiCall| {
        let schema = &call.body["generationConfig"]["responseSchema"]["properties"];
        if schema["category"].is_object() {
            let category = schema["category"]["enum"][0].clone();
            json!({ "category": category, "confidence": 0.75, "keywords": ["rate"] }).to_string()
        } else if schema["suggestions"].is_object() {
            json!({ "suggestions": ["What is a health factor?", "How do I repay?"] }).to_string()
        } else {
            WORDS.to_owned()
        }
    })
    .await
}

async fn backend(gemini: &Gemini, more: &[(&str, &str)]) -> Backend {
    let url = gemini.url();
    let mut variables = vec![("GEMINI_URL", url.as_str()), ("GEMINI_API_KEY", API_KEY)];
    variables.retain(|(name, _)| more.iter().all(|(given, _)| given != name));
    variables.extend_from_slice(more);
    Backend::start(&variables).await
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// Server-sent events as name and data; unnamed ones are called `message`.
fn events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    let event = |block: &str| {
        let value = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        let data = value("data: ").unwrap_or_else(|| panic!("no data in {block:?}"));
        let data = serde_json::from_str(&data).expect("data is JSON");
        (value("event: ").unwrap_or_else(|| "message".to_owned()), data)
    };
    blocks.map(event).collect()
}

async fn streamed(backend: &Backend, body: &Value) -> Answer {
    let request = backend.request(Method::POST, CHAT).header("accept", "text/event-stream").json(body);
    backend.send(request).await.expect("the stream ends as it should")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_goes_out_with_its_last_ten_turns_and_the_key_in_its_header_alone() {
    let gemini = model().await;
    let backend = backend(&gemini, &[]).await;
    let role = |place: usize| if place.is_multiple_of(2) { "user" } else { "assistant" };
    let history: Vec<Value> =
        (0..14).map(|place| json!({ "role": role(place), "content": format!("turn {place}") })).collect();

    let body = json!({ "message": "And the rate?", "conversationHistory": history });
    let answer = backend.must_post(CHAT, &body).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["success"], true);
    assert_eq!((&answer.body["message"], &answer.body["model"]), (&json!(WORDS), &json!(MODEL)));
    assert!(chrono::DateTime::parse_from_rfc3339(answer.body["timestamp"].as_str().unwrap()).is_ok());
    let turns = gemini.calls()[0].turns();
    assert_eq!(turns.len(), 11);
    assert_eq!(turns[0], ("user".to_owned(), "turn 4".to_owned()));
    assert_eq!(turns[9], ("model".to_owned(), "turn 13".to_owned()));
    assert_eq!(turns[10], ("user".to_owned(), "And the rate?".to_owned()));
    let sent = &gemini.seen()[0];
    assert_eq!(sent.target, format!("/v1beta/models/{MODEL}:generateContent"));
    assert_eq!(sent.header("x-goog-api-key"), Some(API_KEY));

    let host = gemini.addr().to_string();
    let stats = backend.must_get("/api/pools/stats").await.body["http"].clone();
    let open = ["sockets", "freeSockets"].map(|map| stats[map][&host].as_u64().unwrap_or(0));
    assert!(open[0] + open[1] > 0, "no entry for Gemini: {stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_four_upstreams_has_an_entry_of_its_own_in_the_pool_stats() {
    let (gemini, pinata, etherscan) = (model().await, testkit::pinata().await, testkit::etherscan().await);
    let ml = testkit::upstream(|_| Reply::json("{}")).await;
    let (endpoint, key) = (etherscan.endpoint(), etherscan.key());
    let variables = [
        ("PINATA_URL", pinata.url()),
        ("PINATA_JWT", testkit::pinata::JWT.to_owned()),
        ("ETHERSCAN_URL", endpoint),
        ("ETHERSCAN_API_KEY", key.to_owned()),
        ("ML_SERVICE_URL", ml.url()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let backend = backend(&gemini, &variables).await;
    let cid = pinata.pin(true, "a", "aaa").cid;
    for path in [
        "/api/ml/health".to_owned(),
        format!("/api/ipfs/metadata/{cid}"),
        "/api/wallet/0x000000000000000000000000000000000000dead".to_owned(),
    ] {
        assert_eq!(backend.must_get(&path).await.status, 200, "{path}");
    }
    assert_eq!(backend.must_post(CHAT, &json!({ "message": "Rates?" })).await.status, 200);
    let hosts = [gemini.addr(), pinata.addr(), etherscan.addr(), ml.addr()].map(|addr| addr.to_string());
    let stats = backend.must_get("/api/pools/stats").await.body["http"].clone();
    for host in hosts {
        let open = ["sockets", "freeSockets"].map(|map| stats[map][&host].as_u64().unwrap_or(0));
        assert!(open[0] + open[1] > 0, "no entry for {host}: {stats}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_comes_word_by_word_and_ends_with_done() {
    let gemini = model().await;
    gemini.misbehave(GeminiFault::Slow(Duration::from_millis(100)));
    let backend = backend(&gemini, &[]).await;
    let body = json!({ "message": "Rates?" });
    let request = backend.request(Method::POST, CHAT).header("accept", "text/event-stream").json(&body);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut while_speaking = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        text += std::str::from_utf8(&chunk).unwrap();
        while_speaking += gemini.in_flight();
    }
    assert!(while_speaking > 3, "the words came all at once: {text}");
    let events = events(&text);
    let (done, words) = events.split_last().unwrap();
    let said: String = words.iter().map(|(_, data)| data["text"].as_str().unwrap()).collect();
    assert_eq!(said, WORDS);
    assert!(words.iter().all(|(name, _)| name == "message") && words.len() > 5, "{text}");
    assert_eq!(
        (done.0.as_str(), &done.1["success"], &done.1["model"]),
        ("done", &json!(true), &json!(MODEL))
    );
    assert_eq!(gemini.seen()[0].target, format!("/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_go_on_behind_the_time_for_the_head_of_the_answer() {
    let gemini = model().await;
    gemini.misbehave(GeminiFault::Slow(Duration::from_millis(300)));
    let backend = backend(&gemini, &[("REQUEST_TIMEOUT", "1")]).await;
    let answer = streamed(&backend, &json!({ "message": "Rates?" })).await;
    assert_eq!(events(&answer.text).last().unwrap().0, "done", "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_goes_away_stops_the_model() {
    let gemini = model().await;
    let backend = backend(&gemini, &[]).await;
    let body = json!({ "message": "Rates?" });
    let request = || backend.request(Method::POST, CHAT).json(&body);

    // In the middle of a stream.
    gemini.misbehave(GeminiFault::Slow(Duration::from_millis(300)));
    let mut response = request().header("accept", "text/event-stream").send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    until(BOUND, || gemini.open() == 0).await;

    // While the model thinks, of which nothing is to be seen.
    gemini.misbehave(GeminiFault::Late(Duration::from_secs(600)));
    for accept in ["application/json", "text/event-stream"] {
        let asked = request().header("accept", accept).send();
        let gone = tokio::time::timeout(BOUND, async {
            tokio::select! {
                answer = asked => panic!("answered: {answer:?}"),
                () = until(BOUND, || gemini.in_flight() == 1) => {}
            }
        });
        gone.await.unwrap();
        until(BOUND, || gemini.open() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_stream_is_its_last_event_and_what_prevents_it_is_a_problem() {
    let gemini = model().await;
    let later = [
        (GeminiFault::Finished("SAFETY"), "content_blocked"),
        (GeminiFault::Finished("OTHER"), "upstream_failed"),
        (GeminiFault::CutAt(700, End::Close), "upstream_failed"),
        (GeminiFault::CutAt(700, End::Reset), "upstream_failed"),
        (GeminiFault::CutAt(700, End::Hang), "upstream_timeout"),
    ];
    let body = json!({ "message": "Rates?" });
    for (fault, expected) in later {
        let impatient = [("HTTP_TIMEOUT_MS", "1000")];
        let is_late = matches!(fault, GeminiFault::CutAt(_, End::Hang));
        let backend = backend(&gemini, if is_late { &impatient } else { &[] }).await;
        gemini.misbehave(fault.clone());
        let answer = streamed(&backend, &body).await;
        assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text);
        let events = events(&answer.text);
        let (name, problem) = events.last().unwrap();
        assert_eq!(
            (name.as_str(), &problem["code"]),
            ("error", &json!(expected)),
            "{fault:?}: {}",
            answer.text
        );
        assert_eq!(problem["request_id"], answer.headers["x-request-id"].to_str().unwrap());
        assert_eq!(problem["instance"], CHAT);
        // Said before the end of the connection, it stands before the error.
        let words = events.iter().filter(|(name, _)| name == "message").count();
        assert!(words >= 1 || matches!(fault, GeminiFault::CutAt(..)), "{fault:?}: {}", answer.text);
    }
    let before = [
        (GeminiFault::PromptBlocked("PROHIBITED_CONTENT"), 422, "content_blocked"),
        (GeminiFault::Quota(Some("28.3s")), 429, "upstream_quota_exceeded"),
        (GeminiFault::Html(200), 502, "upstream_failed"),
        (
            GeminiFault::Answer(Reply::new(200).header("content-type", "text/event-stream")),
            502,
            "upstream_failed",
        ),
    ];
    for (fault, status, expected) in before {
        let backend = backend(&gemini, &[]).await;
        gemini.misbehave(fault.clone());
        let answer = streamed(&backend, &body).await;
        assert_eq!(code(&answer), (status, expected), "{fault:?}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    gemini.misbehave(GeminiFault::Finished("MAX_TOKENS"));
    let answer = streamed(&backend(&gemini, &[]).await, &body).await;
    let last = events(&answer.text).pop().unwrap();
    assert_eq!((last.0.as_str(), &last.1["truncated"]), ("done", &json!(true)), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_first_word_is_given_up_at_the_requests_deadline_and_geminis_fault() {
    let gemini = model().await;
    let backend = backend(&gemini, &[("REQUEST_TIMEOUT", "1")]).await;
    gemini.misbehave(GeminiFault::CutAt(0, End::Hang));
    let answer = streamed(&backend, &json!({ "message": "Rates?" })).await;
    assert_eq!(code(&answer), (504, "upstream_timeout"), "{}", answer.text);
    assert!(answer.body["detail"].as_str().unwrap().contains("Gemini"), "{}", answer.text);
    assert_eq!(backend.health_of("gemini").await, "down");
    until(BOUND, || gemini.open() == 0).await;
    gemini.behave();
    assert_eq!(streamed(&backend, &json!({ "message": "Rates?" })).await.status, 200);
    assert_eq!(backend.health_of("gemini").await, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_geminis_errors_is_told_apart() {
    let gemini = model().await;
    let cases = [
        (GeminiFault::Quota(Some("28.324975824s")), 429, "upstream_quota_exceeded", Some("29")),
        (GeminiFault::Quota(None), 429, "upstream_quota_exceeded", None),
        (GeminiFault::Overloaded, 503, "upstream_unavailable", Some("5")),
        (GeminiFault::PromptBlocked("SAFETY"), 422, "content_blocked", None),
        (GeminiFault::Finished("SAFETY"), 422, "content_blocked", None),
        (GeminiFault::Finished("MALFORMED_FUNCTION_CALL"), 502, "upstream_failed", None),
        (GeminiFault::Html(200), 502, "upstream_failed", None),
        (GeminiFault::Html(502), 502, "upstream_failed", None),
        (GeminiFault::CutAt(40, End::Close), 502, "upstream_failed", None),
        (GeminiFault::Answer(Reply::none(End::Reset)), 502, "upstream_failed", None),
        (GeminiFault::Answer(Reply::json("{}")), 502, "upstream_failed", None),
        (GeminiFault::Late(Duration::from_secs(60)), 504, "upstream_timeout", None),
    ];
    for (fault, status, expected, retry_after) in cases {
        let impatient = [("HTTP_TIMEOUT_MS", "1000")];
        let is_late = matches!(fault, GeminiFault::Late(_));
        let backend = backend(&gemini, if is_late { &impatient } else { &[] }).await;
        gemini.misbehave(fault.clone());
        let answer = backend.must_post(CHAT, &json!({ "message": "Rates?" })).await;
        assert_eq!(code(&answer), (status, expected), "{fault:?}: {}", answer.text);
        let header = answer.headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(header, retry_after, "{fault:?}");
    }
    gemini.behave();
    let wrong = backend(&gemini, &[("GEMINI_API_KEY", "wrong-key-0002"), ("LOG_LEVEL", "trace")]).await;
    let refused = wrong.must_post(CHAT, &json!({ "message": "Rates?" })).await;
    assert_eq!(code(&refused), (502, "upstream_bad_key"), "{}", refused.text);
    assert_eq!(wrong.health_of("gemini").await, "down");
    let printed = refused.text + &wrong.process.lines().join("\n");
    assert!(!printed.contains("wrong-key-0002"), "the key was printed");
    let other = backend(&gemini, &[("GEMINI_MODEL", "gemini-0")]).await;
    let unknown = other.must_post(CHAT, &json!({ "message": "Rates?" })).await;
    assert_eq!(code(&unknown), (502, "upstream_failed"), "{}", unknown.text);
    assert!(unknown.body["detail"].as_str().unwrap().contains("NOT_FOUND"), "{}", unknown.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn intents_and_suggestions_are_structured_output_held_to_its_schema() {
    let gemini = model().await;
    let good = backend(&gemini, &[]).await;
    let question = json!({ "question": "What do I pay?" });
    let intent = good.must_post("/api/chatbot/analyze-intent", &question).await;
    assert_eq!(intent.status, 200, "{}", intent.text);
    let expected = json!({ "category": "borrowing", "confidence": 0.75, "keywords": ["rate"] });
    assert_eq!((&intent.body["success"], &intent.body["intent"]), (&json!(true), &expected));
    assert!(intent.body["timestamp"].is_string());
    let suggestions = good.must_post("/api/chatbot/faq-suggestions", &question).await;
    assert_eq!(suggestions.body["suggestions"], json!(["What is a health factor?", "How do I repay?"]));
    for call in gemini.calls() {
        let config = &call.body["generationConfig"];
        assert_eq!(config["responseMimeType"], "application/json");
        assert_eq!(config["responseSchema"]["type"], "OBJECT");
        assert_eq!(call.turns(), [("user".to_owned(), "What do I pay?".to_owned())]);
    }
    let careless = testkit::gemini(|_| r#"{"category": "lending", "confidence": 3}"#.to_owned()).await;
    let bad = backend(&careless, &[]).await;
    for path in ["/api/chatbot/analyze-intent", "/api/chatbot/faq-suggestions"] {
        let answer = bad.must_post(path, &question).await;
        assert_eq!(code(&answer), (502, "upstream_failed"), "{path}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_come_in_their_order_with_and_without_a_key() {
    let gemini = model().await;
    let configured = backend(&gemini, &[]).await;
    let bare = Backend::start(&[]).await;
    let long = "x".repeat(8_001);
    let fields = [
        (CHAT, json!({}), "message"),
        (CHAT, json!({ "message": null }), "message"),
        (CHAT, json!({ "message": " \n" }), "message"),
        (CHAT, json!({ "message": long }), "message"),
        (CHAT, json!({ "message": 5 }), "message"),
        (CHAT, json!({ "message": "a", "conversationHistory": "b" }), "conversationHistory"),
        (
            CHAT,
            json!({ "message": "a", "conversationHistory": [{ "role": "system", "content": "b" }] }),
            "conversationHistory[0].role",
        ),
        (
            CHAT,
            json!({ "message": "a", "conversationHistory": [{ "role": "user", "content": 1 }] }),
            "conversationHistory[0].content",
        ),
        (
            CHAT,
            json!({ "message": "a", "conversationHistory": [{ "role": "user", "content": "" }] }),
            "conversationHistory[0].content",
        ),
        ("/api/chatbot/analyze-intent", json!({}), "question"),
        ("/api/chatbot/analyze-intent", json!({ "question": "" }), "question"),
        ("/api/chatbot/faq-suggestions", json!({ "question": ["a"] }), "question"),
    ];
    for backend in [&configured, &bare] {
        for path in [CHAT, "/api/chatbot/analyze-intent", "/api/chatbot/faq-suggestions"] {
            let post = || backend.request(Method::POST, path);
            let send = async |request| backend.send(request).await.unwrap();
            assert_eq!(send(post().body("{}")).await.status, 415);
            let json = || post().header("content-type", "application/json");
            assert_eq!(send(json().body(vec![b' '; 11 << 20])).await.status, 413);
            assert_eq!(send(json().body("{\"message\"")).await.status, 400);
            assert_eq!(backend.must_get(path).await.status, 405);
        }
        for (path, body, field) in &fields {
            let answer = backend.must_post(path, body).await;
            assert_eq!(code(&answer), (422, "invalid_field"), "{path} {field}: {}", answer.text);
            assert_eq!(answer.body["field"], *field, "{}", answer.text);
        }
    }
    assert_eq!(gemini.requests(), 0);
    for path in [CHAT, "/api/chatbot/analyze-intent", "/api/chatbot/faq-suggestions"] {
        let answer = bare.must_post(path, &json!({ "message": "a", "question": "a" })).await;
        assert_eq!(code(&answer), (503, "upstream_not_configured"), "{path}");
        assert!(answer.body["detail"].as_str().unwrap().contains("GEMINI_API_KEY"), "{}", answer.text);
    }
    assert_eq!(code(&streamed(&bare, &json!({ "message": "a" })).await), (503, "upstream_not_configured"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_whether_there_is_a_key_and_health_whether_it_works() {
    let gemini = model().await;
    let ready = backend(&gemini, &[]).await;
    let status = ready.must_get("/api/chatbot/status").await.body;
    assert_eq!((&status["configured"], &status["status"]), (&json!(true), &json!("ready")));
    assert_eq!((&status["success"], &status["model"]), (&json!(true), &json!(MODEL)));
    assert!(status["message"].is_string());
    assert_eq!(gemini.requests(), 0, "status asks nobody");
    let bare = Backend::start(&[("GEMINI_MODEL", "gemini-9")]).await;
    let status = bare.must_get("/api/chatbot/status").await.body;
    assert_eq!((&status["configured"], &status["status"]), (&json!(false), &json!("not_configured")));
    assert_eq!(status["model"], "gemini-9");
    assert_eq!(bare.health_of("gemini").await, "not_configured");

    assert_eq!(ready.health_of("gemini").await, "up");
    gemini.misbehave(GeminiFault::Html(500));
    ready.must_post(CHAT, &json!({ "message": "Rates?" })).await;
    assert_eq!(ready.health_of("gemini").await, "down");
    gemini.misbehave(GeminiFault::PromptBlocked("SAFETY"));
    ready.must_post(CHAT, &json!({ "message": "Rates?" })).await;
    assert_eq!(ready.health_of("gemini").await, "up", "a refusal is an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_no_request_could_use_stops_the_start() {
    let key = ("GEMINI_API_KEY", API_KEY);
    let jwt = ("PINATA_JWT", "j");
    for (variable, value, with) in [
        ("GEMINI_MODEL", "models/gemini", key),
        ("GEMINI_URL", "gemini", key),
        ("PINATA_URL", "ftp://pinata", jwt),
        ("PINATA_UPLOAD_URL", "nowhere", jwt),
    ] {
        let backend = Backend::launch(&[(variable, value), with]);
        assert_eq!(backend.process.wait(BOUND).await, 2, "{variable}");
        assert!(backend.process.line_with(variable).is_some(), "{:?}", backend.process.lines());
    }
}
