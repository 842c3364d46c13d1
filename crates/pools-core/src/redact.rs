//! How secrets are kept out of logs, stats, labels and errors.

pub use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// A URL as it may be shown: `scheme://host[:port]`, followed by `/...` if it had anything more. API keys travel
/// in paths, queries and userinfo alike, so all of them go. What is not a URL is not shown at all.
///
/// ```
/// use pools_core::redact::printed_url;
/// assert_eq!(printed_url("https://user:pw@node.example/v3/KEY?k=1"), "https://node.example/...");
/// assert_eq!(printed_url("http://localhost:8000"), "http://localhost:8000");
/// assert_eq!(printed_url("my password"), "(not a URL)");
/// ```
pub fn printed_url(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "(not a URL)".to_owned(), |url| printed(&url))
}

/// [`printed_url`] of a parsed URL.
pub fn printed(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let more = url.path().len() > 1
        || url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some();
    let rest = if more { "/..." } else { "" };
    format!("{}://{}{port}{rest}", url.scheme(), url.host_str().unwrap_or_default())
}
