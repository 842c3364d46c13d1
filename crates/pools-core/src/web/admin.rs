//! The admin token.

use actix_web::{
    HttpRequest,
    http::{StatusCode, header},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::Problem;

/// `ADMIN_TOKEN`, if one was given.
#[derive(Clone, Debug, Default)]
pub struct AdminToken(pub Option<SecretString>);

/// Lets a request with `Authorization: Bearer <admin token>` pass. The comparison takes the same time wherever
/// the first difference stands.
///
/// # Errors
/// 503 when no token was given to the service, 401 when the request has none or another.
pub fn authorise(request: &HttpRequest, token: &AdminToken) -> Result<(), Problem> {
    let Some(expected) = &token.0 else {
        return Err(Problem::not_configured("this route needs ADMIN_TOKEN, which is not set"));
    };
    let given = request.headers().get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    if bool::from(given.ct_eq(expected.expose_secret().as_bytes())) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorised",
        "this route needs the header Authorization: Bearer <ADMIN_TOKEN>",
    ))
}
