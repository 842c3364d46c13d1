//! The admin token.

use actix_web::{
    HttpRequest,
    http::{StatusCode, header},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::Problem;
use crate::resilience::outgoing;

/// `ADMIN_TOKEN`, if one was given.
#[derive(Clone, Debug, Default)]
pub struct AdminToken(pub Option<SecretString>);

/// Lets a request with `Authorization: Bearer <admin token>` pass. The comparison takes the same time wherever
/// the first difference stands.
///
/// # Errors
/// 503 when no token was given to the service, 401 when the request has none or another, 429 when its address asks too often.
pub fn authorise(request: &HttpRequest, token: &AdminToken) -> Result<(), Problem> {
    let Some(expected) = &token.0 else {
        let problem = Problem::not_configured("this route needs ADMIN_TOKEN, which is not set");
        return Err(problem.comes_first());
    };
    let given = request.headers().get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    if bool::from(given.ct_eq(expected.expose_secret().as_bytes())) {
        // What follows may act without a pool, such as starting a job.
        return if outgoing::is_held_back() {
            Err(Problem::rate_limited("too many requests"))
        } else {
            Ok(())
        };
    }
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorised",
        "this route needs the header Authorization: Bearer <ADMIN_TOKEN>",
    ))
}
