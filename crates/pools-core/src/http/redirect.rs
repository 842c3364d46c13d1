//! Following redirects, where a caller asks for it.
//!
//! Every hop is a request of its own, with its own wait and time-outs; the deadline is one for all. The answer that redirects is
//! dropped, and its small body drained, before the next hop waits for a connection.

use ::http::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, HOST, LOCATION},
};
use bytes::Bytes;
use url::Url;

use super::{HttpError, Response, request::RequestBuilder, target::Target, upload::Content};

/// Parts of the names of headers that hold credentials: `Authorization`, `Cookie`, `x-api-key`, `x-goog-api-key`,
/// `pinata_secret_api_key`, `X-Auth-Token`, …
const CREDENTIALS: [&str; 9] =
    ["auth", "cookie", "key", "token", "secret", "session", "passw", "credential", "signature"];

/// Why a redirect was not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// A loop, or a chain longer than allowed.
    #[error("more than {limit} redirects")]
    TooMany {
        /// The caller's limit.
        limit: u32,
    },
    /// `Location` is missing, or not a URL that may be followed.
    #[error("it leads to no usable URL")]
    Location,
    /// It leads from https to http.
    #[error("it leads from https to http")]
    Downgrade,
    /// The same body would have to be sent again, and it was a stream.
    #[error("the streamed body cannot be sent again")]
    Body,
}

impl RequestBuilder {
    /// Sends it, and where its answer leads.
    pub(super) async fn follow(&mut self) -> Result<Response, HttpError> {
        let mut followed = 0;
        loop {
            let response = self.once().await?;
            if !leads_on(response.status()) || !response.headers().contains_key(LOCATION) {
                return Ok(response);
            }
            let redirected = if followed == self.0.redirects {
                Err(RedirectError::TooMany { limit: self.0.redirects })
            } else {
                self.redirect(&response)
            };
            let at = response.at().clone();
            // Read first, so that the next hop can take the same connection.
            response.discard().await;
            redirected.map_err(|cause| HttpError::Redirect { at, cause })?;
            followed += 1;
        }
    }

    /// Turns the request into the one that the answer asks for.
    fn redirect(&mut self, response: &Response) -> Result<(), RedirectError> {
        let from = self.0.target.clone().map_err(|_| RedirectError::Location)?;
        let to = next(&from, response.headers())?;
        if becomes_get(response.status(), &self.0.method) {
            self.0.method = Method::GET;
            self.0.body = Content::Whole(Bytes::new());
            // What the caller said was about another request.
            self.0.idempotent = None;
            for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION] {
                self.0.headers.remove(name);
            }
        } else if !matches!(self.0.body, Content::Whole(_)) {
            return Err(RedirectError::Body);
        }
        if to.key != from.key {
            self.0.upstream = None;
            self.0.headers = without_credentials(&self.0.headers);
        }
        self.0.target = Ok(to);
        Ok(())
    }
}

fn leads_on(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// As browsers do it (the Fetch standard, "HTTP-redirect fetch").
fn becomes_get(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        301 | 302 => *method == Method::POST,
        303 => *method != Method::GET && *method != Method::HEAD,
        _ => false,
    }
}

fn next(from: &Target, headers: &HeaderMap) -> Result<Target, RedirectError> {
    let location =
        headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or(RedirectError::Location)?;
    let base = Url::parse(&from.url()).map_err(|_| RedirectError::Location)?;
    let mut url = base.join(location).map_err(|_| RedirectError::Location)?;
    url.set_fragment(None);
    let to = Target::parse(url.as_str()).map_err(|_| RedirectError::Location)?;
    if from.key.tls() && !to.key.tls() {
        return Err(RedirectError::Downgrade);
    }
    // A server must not choose which of this machine's sockets is talked to.
    if (from.key.unix_path().is_some() || to.key.unix_path().is_some()) && from.key != to.key {
        return Err(RedirectError::Location);
    }
    Ok(to)
}

/// The name decides, since callers do not mark their secrets. `Host` was for the other server as well.
fn without_credentials(headers: &HeaderMap) -> HeaderMap {
    let is_safe = |name: &::http::HeaderName| {
        *name == "idempotency-key" || !CREDENTIALS.iter().any(|part| name.as_str().contains(part))
    };
    let kept = headers.iter().filter(|(name, value)| is_safe(name) && *name != HOST && !value.is_sensitive());
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn http_38_where_a_redirect_leads() {
        let lead = |from: &str, location: &'static str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
            next(&Target::parse(from).unwrap(), &headers).map(|target| target.url())
        };
        let led = |url: &str| Ok(url.to_owned());
        assert_eq!(lead("http://a/b/c?d", "e?f#g"), led("http://a:80/b/e?f"));
        assert_eq!(lead("http://a/b/c", "//B:81"), led("http://b:81/"));
        assert_eq!(lead("http://a/", "https://b/x"), led("https://b:443/x"));
        assert_eq!(lead("https://a:8443/b/c", "../d"), led("https://a:8443/d"));
        assert_eq!(lead("https://a/", "http://a/"), Err(RedirectError::Downgrade));
        for bad in
            ["ftp://a/", "http://u:p@a/", "http+unix://%2Frun%2Fa.sock/", "file:///etc/passwd", "http://"]
        {
            assert_eq!(lead("http://a/", bad), Err(RedirectError::Location), "{bad}");
        }
        let socket = "http+unix://%2Frun%2Fa.sock";
        assert_eq!(lead(&format!("{socket}/b/c"), "d?e"), led(&format!("{socket}/b/d?e")));
        assert_eq!(lead(&format!("{socket}/b"), "http://a/"), Err(RedirectError::Location));
    }
}
