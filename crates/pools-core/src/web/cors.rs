//! Which pages of other origins may read the answers (`CORS_ORIGINS`).
//!
//! A browser asks before it sends anything but the simplest request; that question is answered here, before any route. No
//! credentials are allowed: the services know no cookies, and a page that has the admin token sends it itself.

use actix_web::{
    HttpResponse,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
};

use crate::settings::Kind;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, Idempotency-Key, X-Request-Id");
const READABLE: HeaderValue = HeaderValue::from_static(
    "X-Request-Id, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy",
);
/// Seconds that a browser may remember the answer: what Chromium remembers at most is twelve times this.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// A list of origins; see [`origins`].
#[derive(Debug)]
pub(super) struct OriginList(&'static str);

/// Comma-separated origins, such as `https://app.example.com`, or `*` for any.
pub(super) const fn origins(variable: &'static str) -> OriginList {
    OriginList(variable)
}

impl Kind for OriginList {
    type Value = Vec<String>;

    fn variable(&self) -> &'static str {
        self.0
    }

    fn default(&self) -> Vec<String> {
        Vec::new()
    }

    fn parse(&self, text: &str) -> Option<Vec<String>> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| is_origin(item).then(|| item.to_owned())).collect()
    }

    fn default_text(&self) -> String {
        String::new()
    }

    fn unit(&self) -> &'static str {
        "list"
    }

    fn range(&self) -> String {
        "origins such as https://app.example.com, separated by commas, or *".to_owned()
    }
}

/// Whether a browser could send exactly this: a slash or a capital letter would never match.
fn is_origin(text: &str) -> bool {
    let parsed = || url::Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
    text == "*" || parsed().is_some_and(|origin| origin == text)
}

/// The answer to a browser that asks whether it may send a request; `None` when it is no such question, or the
/// service is open to nobody.
pub(super) fn preflight(method: &Method, headers: &HeaderMap, allowed: &[String]) -> Option<HttpResponse> {
    let asks = *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    (asks && !allowed.is_empty()).then(|| {
        let mut answer = HttpResponse::NoContent();
        if is_allowed(headers.get(header::ORIGIN), allowed) {
            answer.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS));
            answer.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS));
            answer.insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
        }
        answer.finish()
    })
}

/// Tells the browser whether the page may read the answer.
pub(super) fn tell(origin: Option<&HeaderValue>, allowed: &[String], answer: &mut HeaderMap) {
    if allowed.is_empty() {
        return;
    }
    // A cache must not give one origin's answer to another.
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin.filter(|origin| is_allowed(Some(origin), allowed)) else { return };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
}

fn is_allowed(origin: Option<&HeaderValue>, allowed: &[String]) -> bool {
    let is = |allowed: &String| allowed == "*" || origin.is_some_and(|origin| origin == allowed.as_str());
    origin.is_some() && allowed.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_could_send_is_an_origin() {
        let parse = |text: &str| origins("CORS_ORIGINS").parse(text);
        assert_eq!(parse("https://a.example, http://localhost:5173").unwrap().len(), 2);
        assert_eq!(parse("*").unwrap(), ["*"]);
        assert!(parse("").unwrap().is_empty());
        for bad in
            ["https://a.example/", "a.example", "https://A.example", "https://a.example:443", "null", "**"]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
