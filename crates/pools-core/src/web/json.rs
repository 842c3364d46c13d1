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

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut text = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut text).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        // A field was wrong before the text was read to its end; whether it is JSON at all comes first.
        if let Err(cause) = serde_json::from_slice::<IgnoredAny>(body) {
            return Problem::bad_request(format!("the body is not JSON: {cause}"));
        }
        if path == "." {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", cause.to_string())
        } else {
            Problem::invalid_field(path.clone(), format!("{path}: {cause}"))
        }
    })?;
    text.end().map_err(|cause| Problem::bad_request(format!("the body is not JSON: {cause}")))?;
    Ok(value)
}
