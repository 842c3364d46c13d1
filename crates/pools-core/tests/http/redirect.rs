//! Redirects, which are answers unless a caller wants them followed.

use ::http::Method;
use bytes::Bytes;
use futures_util::stream;
use pools_core::http::{HttpError, RedirectError, RequestBuilder};
use testkit::{Reply, Request, Upstream};

use crate::support::{LIMIT, pool, until_idle};

fn to(status: u16, location: &str) -> Reply {
    Reply::new(status).header("location", location).body("elsewhere")
}

/// `/301/a` leads to `/a`; `/loop` to itself; what arrives is shown.
fn script(request: &Request) -> Reply {
    let (status, rest) = request.target[1..].split_at(request.target.len().min(4) - 1);
    match status.parse() {
        Ok(status) => to(status, rest),
        Err(_) if request.target == "/loop" => to(302, "/loop"),
        Err(_) => Reply::ok(format!("{} {}", request.method, String::from_utf8_lossy(&request.body))),
    }
}

async fn body(request: RequestBuilder) -> Result<String, HttpError> {
    let body = request.send().await?.bytes(LIMIT).await?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

fn refusal(error: HttpError) -> RedirectError {
    let HttpError::Redirect { cause, .. } = error else { panic!("{error:?}") };
    cause
}

#[tokio::test]
async fn http_38_a_redirect_is_an_answer_unless_it_is_to_be_followed() {
    let server = testkit::upstream(script).await;
    let http = pool(|_| {});
    let response = http.get(&format!("{}/302/there", server.url())).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (302, &"/there".parse().unwrap())
    );
    assert_eq!(response.bytes(LIMIT).await.unwrap(), "elsewhere");
    until_idle(&http, 1).await;
    assert_eq!(server.requests(), 1);
    let followed = http.get(&format!("{}/302/301/303/there", server.url())).follow_redirects(3);
    assert_eq!(body(followed).await.unwrap(), "GET ");
    // Not a redirect, or not one that says where to.
    for (status, path) in [(300, "/300/x"), (305, "/305/x")] {
        let response = http.get(&format!("{}{path}", server.url())).follow_redirects(3).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        response.bytes(LIMIT).await.unwrap();
    }
    until_idle(&http, 1).await;
    assert_eq!((server.accepted(), server.requests()), (1, 7));
}

#[tokio::test]
async fn http_38_a_loop_and_a_chain_that_is_too_long_end_at_the_limit() {
    let server = testkit::upstream(script).await;
    let http = pool(|_| {});
    let error = http.get(&format!("{}/loop", server.url())).follow_redirects(5).send().await.unwrap_err();
    assert_eq!(refusal(error), RedirectError::TooMany { limit: 5 });
    assert_eq!(server.requests(), 6);
    let chain = http.get(&format!("{}/302/301/there", server.url())).follow_redirects(1);
    assert_eq!(refusal(body(chain).await.unwrap_err()), RedirectError::TooMany { limit: 1 });
    until_idle(&http, 1).await;
    assert_eq!((server.accepted(), server.requests()), (1, 8));
}

#[tokio::test]
async fn http_38_a_post_becomes_a_get_or_is_sent_again_whole() {
    let server = testkit::upstream(script).await;
    let http = pool(|_| {});
    let send = |method: Method, status: u16| {
        let request = http.request(method, &format!("{}/{status}/there", server.url()));
        body(request.header("content-type", "text/plain").body("sent").follow_redirects(1))
    };
    for status in [301, 302, 303] {
        assert_eq!(send(Method::POST, status).await.unwrap(), "GET ", "{status}");
        let seen = server.seen();
        let last = seen.last().unwrap();
        assert_eq!((last.header("content-type"), last.header("content-length")), (None, None));
    }
    for status in [307, 308] {
        assert_eq!(send(Method::POST, status).await.unwrap(), "POST sent", "{status}");
        assert_eq!(server.seen().last().unwrap().header("content-type"), Some("text/plain"));
    }
    assert_eq!(send(Method::PUT, 301).await.unwrap(), "PUT sent");
    assert_eq!(send(Method::PUT, 303).await.unwrap(), "GET ");
    let streamed = stream::iter([Ok(Bytes::from("abc"))]);
    let request = http.post(&format!("{}/307/there", server.url())).stream(3, streamed).follow_redirects(1);
    assert_eq!(refusal(body(request).await.unwrap_err()), RedirectError::Body);
    until_idle(&http, 1).await;
    assert_eq!(server.accepted(), 1);
}

/// Headers of the last request that this server saw.
fn last(server: &Upstream) -> impl Fn(&str) -> Option<String> {
    let last = server.seen().pop().unwrap();
    move |name| last.header(name).map(str::to_owned)
}

#[tokio::test]
async fn http_38_credentials_stay_with_the_origin_they_were_for() {
    const SECRETS: [&str; 7] = [
        "authorization",
        "cookie",
        "x-api-key",
        "x-goog-api-key",
        "pinata_secret_api_key",
        "x-auth-token",
        "proxy-authorization",
    ];
    let other = testkit::upstream(script).await;
    let elsewhere = other.url();
    let server = testkit::upstream(move |request| match &*request.target {
        "/other" => to(307, &elsewhere),
        _ => script(request),
    })
    .await;
    let http = pool(|_| {});
    let request = |path: &str| {
        let request = http.get(&format!("{}{path}", server.url())).follow_redirects(2);
        let request = SECRETS.iter().fold(request, |request, name| request.header(*name, "secret"));
        request.header("accept", "text/x").header("idempotency-key", "7").header("host", "first.example")
    };
    body(request("/307/there")).await.unwrap();
    let seen = last(&server);
    assert!(SECRETS.iter().all(|name| seen(name).is_some()), "the same origin keeps them");
    body(request("/307/other")).await.unwrap();
    let seen = last(&other);
    for name in SECRETS {
        assert_eq!(seen(name), None, "{name}");
    }
    assert_eq!((seen("accept").as_deref(), seen("idempotency-key").as_deref()), (Some("text/x"), Some("7")));
    assert_eq!(seen("host"), Some(other.addr().to_string()));
    until_idle(&http, 2).await;
    assert_eq!((server.accepted(), other.accepted()), (1, 1));
}

#[tokio::test]
async fn http_38_where_a_redirect_may_not_lead_is_an_error() {
    let server = testkit::upstream(|request| match &*request.target {
        "/socket" => to(302, "http+unix://%2Frun%2Fdocker.sock/"),
        "/password" => to(302, "http://user:password@127.0.0.1/"),
        _ => to(302, "ftp://127.0.0.1/"),
    })
    .await;
    let http = pool(|_| {});
    for path in ["/socket", "/password", "/ftp"] {
        let request = http.get(&format!("{}{path}", server.url())).follow_redirects(2);
        assert_eq!(refusal(body(request).await.unwrap_err()), RedirectError::Location, "{path}");
    }
    until_idle(&http, 1).await;
    assert_eq!((server.accepted(), server.requests()), (1, 3));
}

#[tokio::test]
async fn http_38_the_deadline_is_for_all_hops_together() {
    let server = testkit::upstream(|_| to(302, "/again").delay(crate::support::ms(50))).await;
    let http = pool(|_| {});
    let deadline = tokio::time::Instant::now() + crate::support::ms(300);
    let request = http.get(&server.url()).follow_redirects(1_000).deadline(deadline);
    let error = body(request).await.unwrap_err();
    assert!(matches!(error, HttpError::Deadline { .. }), "{error:?}");
    assert!(server.requests() <= 7);
    until_idle(&http, 0).await;
}
