use std::sync::Arc;

use actix_web::{
    App, HttpResponse,
    body::to_bytes,
    http::StatusCode,
    middleware::from_fn,
    test::{TestRequest, init_service, try_call_service},
};
use serde_json::Value;

use super::*;
use crate::{registry::Registry, shutdown::Lifecycle, web::requests::Requests};

struct Answer {
    status: u16,
    headers: header::HeaderMap,
    body: Value,
}

/// Sends one request to a small service and returns the answer and the requests still counted after it.
async fn answer(request: TestRequest) -> (Answer, u32) {
    let lifecycle = Lifecycle::new();
    let requests = Requests::new().unwrap();
    let ops =
        web::Data::new(Ops { lifecycle: lifecycle.clone(), pools: Arc::new(Registry::new()), requests });
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
        })));
    let app = init_service(app).await;
    let response = match try_call_service(&app, request.to_request()).await {
        Ok(response) => response.into_parts().1,
        Err(error) => HttpResponse::from_error(error),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    assert_eq!(lifecycle.requests(), 1, "a request counts until its body was sent");
    let body = to_bytes(response.into_body()).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap();
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
