use std::sync::Arc;

use actix_web::{
    App, HttpRequest, HttpResponse,
    body::to_bytes,
    http::StatusCode,
    middleware::from_fn,
    test::{TestRequest, init_service, try_call_service},
};
use serde_json::Value;

use super::*;
use crate::{
    registry::Registry,
    resilience::{deadline, outgoing},
    shutdown::Lifecycle,
    web::{AdminToken, Allowance, JsonBody, Limits, Problem, ServiceConfig, authorise, requests::Requests},
};

struct Answer {
    status: u16,
    headers: header::HeaderMap,
    body: Value,
}

/// What the small service is told, if not the defaults.
#[derive(Default)]
struct Told {
    config: ServiceConfig,
    limits: Option<Limits>,
    own_timeouts: Vec<(&'static str, std::time::Duration)>,
}

/// Sends one request to a small service and returns the answer and the requests still counted after it.
async fn answer(request: TestRequest) -> (Answer, u32) {
    answer_of(Told::default(), request).await
}

async fn answer_of(told: Told, request: TestRequest) -> (Answer, u32) {
    let lifecycle = Lifecycle::new();
    let ops = web::Data::new(Ops {
        lifecycle: lifecycle.clone(),
        pools: Arc::new(Registry::new()),
        requests: Requests::new().unwrap(),
        config: told.config,
        limits: told.limits,
        own_timeouts: told.own_timeouts,
    });
    let app = App::new()
        .wrap(from_fn(trace))
        .app_data(ops)
        .service(
            web::resource("/good/{id}")
                .route(web::get().to(|path: web::Path<u8>| async move { HttpResponse::Ok().json(*path) })),
        )
        .service(
            web::resource("/field").route(
                web::get()
                    .to(|| async { Err::<&str, _>(Problem::invalid_field("age", "age: must be a number")) }),
            ),
        )
        .service(web::resource("/panic").route(web::get().to(|| async {
            panic!("on purpose");
            #[expect(unreachable_code, reason = "gives the handler its type")]
            ""
        })))
        .service(web::resource("/calls").route(web::post().to(|JsonBody(_): JsonBody<u8>| async {
            outgoing::begin().await;
            HttpResponse::Ok().json("called")
        })))
        .service(web::resource("/admin").route(web::post().to(
            |request: HttpRequest, JsonBody(token): JsonBody<Option<String>>| async move {
                authorise(&request, &AdminToken(token.map(Into::into)))?;
                Ok::<_, Problem>("acted")
            },
        )))
        .service(web::resource("/divides").route(web::get().to(|| async {
            let latest = deadline::current().expect("a request has a deadline");
            tokio::time::sleep_until(latest).await;
            HttpResponse::Ok().json("in parts")
        })))
        .service(web::resource("/sleeps").route(web::get().to(|| async {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            ""
        })))
        .service(web::resource("/metrics").route(web::get().to(|| async { HttpResponse::Ok().json(1) })));
    let app = init_service(app).await;
    let response = match try_call_service(&app, request.to_request()).await {
        Ok(response) => response.into_parts().1,
        Err(error) => HttpResponse::from_error(error),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    assert_eq!(lifecycle.requests(), 1, "a request counts until its body was sent");
    let body = to_bytes(response.into_body()).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    (Answer { status, headers, body }, lifecycle.requests())
}

#[actix_web::test]
async fn a_routed_request_keeps_its_id_and_gets_the_security_headers() {
    let request = TestRequest::get().uri("/good/7").insert_header((REQUEST_ID, "mine-1"));
    let (answer, left) = answer(request).await;
    assert_eq!((answer.status, answer.body, left), (200, Value::from(7), 0));
    assert_eq!(answer.headers.get(REQUEST_ID).unwrap(), "mine-1");
    assert_eq!(answer.headers.get("x-content-type-options").unwrap(), "nosniff");
}

#[actix_web::test]
async fn every_error_answer_is_a_problem_that_names_its_path_whoever_made_it() {
    let cases = [
        (TestRequest::get().uri("/nowhere"), StatusCode::NOT_FOUND, "not_found", "/nowhere"),
        (TestRequest::post().uri("/good/7"), StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "/good/7"),
        (TestRequest::get().uri("/field"), StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "/field"),
        (TestRequest::get().uri("/panic"), StatusCode::INTERNAL_SERVER_ERROR, "internal", "/panic"),
    ];
    for (request, status, code, path) in cases {
        let (answer, left) = answer(request).await;
        assert_eq!((answer.status, left), (status.as_u16(), 0), "{path}");
        assert_eq!(answer.headers.get("content-type").unwrap(), "application/problem+json", "{path}");
        let id = answer.headers.get(REQUEST_ID).unwrap().to_str().unwrap();
        assert_eq!(answer.body["request_id"], id, "{path}");
        assert_eq!((&answer.body["code"], &answer.body["instance"]), (&code.into(), &path.into()));
    }
}

/// A limit that is used up before the first request: everything is one too many.
fn none_left() -> Told {
    let allowance = Allowance { requests: 1, window: std::time::Duration::from_secs(90) };
    let limits = Limits::new(allowance, &[]);
    limits.hit("/", None, Instant::now());
    Told { limits: Some(limits), ..Told::default() }
}

#[actix_web::test]
async fn one_too_many_is_told_first_what_is_wrong_with_it_and_does_nothing() {
    let post = |path: &str, body: &'static str| {
        TestRequest::post().uri(path).insert_header(("content-type", "application/json")).set_payload(body)
    };
    let bearer = |request: TestRequest| request.insert_header(("authorization", "Bearer secret"));
    let cases = [
        (TestRequest::get().uri("/nowhere"), 404, "not_found"),
        (TestRequest::get().uri("/calls"), 405, "method_not_allowed"),
        (TestRequest::post().uri("/calls").set_payload("1"), 415, "unsupported_media_type"),
        (post("/calls", "{"), 400, "bad_request"),
        (post("/calls", "300"), 422, "invalid_field"),
        (TestRequest::get().uri("/field"), 422, "invalid_field"),
        (post("/admin", "\"secret\""), 401, "unauthorised"),
        (post("/admin", "null"), 503, "upstream_not_configured"),
        // Nothing is wrong with these but their number.
        (post("/calls", "7"), 429, "rate_limited"),
        (bearer(post("/admin", "\"secret\"")), 429, "rate_limited"),
        (TestRequest::get().uri("/good/7"), 429, "rate_limited"),
        (TestRequest::get().uri("/panic"), 429, "rate_limited"),
    ];
    for (request, status, code) in cases {
        let (answer, left) = answer_of(none_left(), request).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str(), left),
            (status, Some(code), 0),
            "{}",
            answer.body
        );
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("ratelimit-limit").as_deref(), Some("1"));
        assert_eq!(header("ratelimit-remaining").as_deref(), Some("0"));
        assert_eq!(header("ratelimit-reset").as_deref(), Some("90"));
        assert_eq!(header("ratelimit-policy").as_deref(), Some("1;w=90"));
        let retry_after = (status == 429).then_some("90");
        assert_eq!(header("retry-after").as_deref(), retry_after, "{code}");
        assert_eq!(header("content-type").as_deref(), Some("application/problem+json"));
    }
    let (answer, _) = answer_of(none_left(), TestRequest::get().uri("/metrics")).await;
    assert_eq!((answer.status, answer.headers.get("ratelimit-limit")), (200, None));
}

#[actix_web::test]
async fn a_request_beyond_what_the_service_can_do_is_shed_and_the_operators_are_not() {
    let told =
        || Told { config: ServiceConfig { max_requests: 0, ..ServiceConfig::default() }, ..Told::default() };
    let (answer, _) = answer_of(told(), TestRequest::get().uri("/good/7")).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(answer.headers.get("retry-after").unwrap(), "1");
    assert_eq!(answer_of(told(), TestRequest::get().uri("/metrics")).await.0.status, 200);
}

#[actix_web::test]
async fn a_handler_that_overruns_is_cut_and_one_that_keeps_its_deadline_can_still_answer() {
    tokio::time::pause();
    let (answer, left) = answer(TestRequest::get().uri("/divides")).await;
    assert_eq!((answer.status, answer.body, left), (200, Value::from("in parts"), 0));
    let began = Instant::now();
    let (answer, left) = answer_of(Told::default(), TestRequest::get().uri("/sleeps")).await;
    assert_eq!((answer.status, answer.body["code"].as_str(), left), (504, Some("request_timeout"), 0));
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[actix_web::test]
async fn a_route_with_a_time_of_its_own_is_cut_by_that_and_the_others_are_not() {
    tokio::time::pause();
    for (route, cut_after) in [("/sleeps", 50), ("/good/{id}", 30)] {
        let own_timeouts = vec![(route, std::time::Duration::from_secs(50))];
        let began = Instant::now();
        let told = Told { own_timeouts, ..Told::default() };
        let (answer, _) = answer_of(told, TestRequest::get().uri("/sleeps")).await;
        assert_eq!((answer.status, began.elapsed().as_secs()), (504, cut_after), "{route}");
    }
}

#[actix_web::test]
async fn pages_of_the_named_origins_may_read_every_answer_and_others_none() {
    let told = |allowed: &str| {
        let cors_origins = vec![allowed.to_owned()];
        Told { config: ServiceConfig { cors_origins, ..ServiceConfig::default() }, ..none_left() }
    };
    let from =
        |origin: &'static str, path: &str| TestRequest::get().uri(path).insert_header(("origin", origin));
    let allowed = |answer: &Answer| {
        answer.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
    };
    for path in ["/good/7", "/nowhere", "/panic"] {
        let (answer, _) = answer_of(told("https://a.example"), from("https://a.example", path)).await;
        assert_eq!(allowed(&answer).as_deref(), Some("https://a.example"), "{path}: {}", answer.status);
        let readable = answer.headers.get("access-control-expose-headers").unwrap().to_str().unwrap();
        assert!(readable.contains("Retry-After") && readable.contains("X-Request-Id"), "{readable}");
        let (answer, _) = answer_of(told("https://a.example"), from("https://b.example", path)).await;
        assert_eq!(
            (allowed(&answer), answer.headers.get("vary").unwrap().to_str().unwrap()),
            (None, "Origin")
        );
    }
    let asks = |origin: &'static str| {
        TestRequest::default()
            .method(Method::OPTIONS)
            .uri("/calls")
            .insert_header(("origin", origin))
            .insert_header(("access-control-request-method", "POST"))
    };
    let (answer, _) = answer_of(told("*"), asks("https://b.example")).await;
    assert_eq!((answer.status, allowed(&answer).as_deref()), (204, Some("https://b.example")));
    assert!(answer.headers.get("access-control-allow-methods").unwrap().to_str().unwrap().contains("POST"));
    let (answer, _) = answer_of(told("https://a.example"), asks("https://b.example")).await;
    assert_eq!((answer.status, allowed(&answer)), (204, None));
    assert!(answer.headers.get("access-control-allow-methods").is_none());
    // A service that is open to nobody does not know the question.
    let (answer, _) = answer_of(Told::default(), asks("https://a.example")).await;
    assert_eq!((answer.status, answer.headers.get("vary")), (405, None));
}
