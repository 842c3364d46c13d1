//! A JSON body, refused in a fixed order: media type (415), size (413), syntax (400), field rules (422).

use std::future::Future;
use std::pin::Pin;

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::StatusCode, web};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Problem;

/// Largest JSON body.
const LIMIT: usize = 10 * 1024 * 1024;

/// Extracts `T` from a JSON body of at most 10 MiB.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for JsonBody<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = request.mime_type().ok().flatten().is_some_and(|mime| {
            mime.subtype() == "json" || mime.suffix().is_some_and(|suffix| suffix == "json")
        });
        let body = web::Payload::from_request(request, payload);
        Box::pin(async move {
            if !is_json {
                return Err(Problem::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported_media_type",
                    "the body must be application/json",
                ));
            }
            let body = body.await.map_err(|_| Problem::internal())?;
            let too_large = |_| {
                let detail = "the body is larger than 10 MiB";
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
            };
            let body = body.to_bytes_limited(LIMIT).await.map_err(too_large)?;
            let body = body.map_err(|cause| Problem::bad_request(format!("the body broke off: {cause}")))?;
            parse(&body).map(Self)
        })
    }
}

/// The member that is not there. Serde says which in its text alone; the test below would see another wording.
fn missing(cause: &str) -> Option<&str> {
    cause.strip_prefix("missing field `")?.split('`').next()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut text = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut text).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        // A field was wrong before the text was read to its end; whether it is JSON at all comes first.
        if let Err(cause) = serde_json::from_slice::<IgnoredAny>(body) {
            return Problem::bad_request(format!("the body is not JSON: {cause}"));
        }
        let cause = cause.to_string();
        match (path.as_str(), missing(&cause)) {
            (".", None) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", cause),
            (".", Some(member)) => Problem::invalid_field(member, format!("{member}: {cause}")),
            (path, None) => Problem::invalid_field(path, format!("{path}: {cause}")),
            (path, Some(member)) => {
                Problem::invalid_field(format!("{path}.{member}"), format!("{path}.{member}: {cause}"))
            }
        }
    })?;
    text.end().map_err(|cause| Problem::bad_request(format!("the body is not JSON: {cause}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only read from JSON")]
        amount: u32,
        #[serde(default)]
        #[expect(dead_code, reason = "only read from JSON")]
        parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize)]
    struct Part {
        #[expect(dead_code, reason = "only read from JSON")]
        size: u32,
    }

    #[test]
    fn the_member_at_fault_is_named_wherever_it_is_and_also_when_it_is_missing() {
        let field = |body: &str| {
            let problem = parse::<Order>(body.as_bytes()).unwrap_err().body("/");
            (problem["status"].as_u64().unwrap(), problem["field"].as_str().map(str::to_owned))
        };
        let named = |name: &str| (422, Some(name.to_owned()));
        assert_eq!(field("{}"), named("amount"));
        assert_eq!(field(r#"{"amount":"x"}"#), named("amount"));
        assert_eq!(field(r#"{"amount":1,"parts":[{"size":1},{}]}"#), named("parts[1].size"));
        assert_eq!(field(r#"{"amount":1,"parts":[{"size":-1}]}"#), named("parts[0].size"));
        assert_eq!((field("7"), field("{")), ((422, None), (400, None)));
    }
}
