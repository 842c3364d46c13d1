//! What the head of an answer says of its body and of its connection.

use std::time::Duration;

use ::http::{
    HeaderMap, HeaderValue, StatusCode, Version,
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING},
    response::Parts,
};

/// What a head says of its body and its connection, read in one pass.
#[derive(Default)]
pub(super) struct Said {
    pub(super) length: bool,
    pub(super) transfer_encoding: bool,
    /// It is compressed, or otherwise encoded.
    pub(super) encoding: bool,
    close: bool,
    keep_alive: bool,
    /// How long the server keeps idle connections.
    pub(super) hint: Option<Duration>,
}

impl Said {
    pub(super) fn by(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            if *name == CONTENT_LENGTH {
                said.length = true;
            } else if *name == TRANSFER_ENCODING {
                said.transfer_encoding = true;
            } else if *name == CONTENT_ENCODING {
                said.encoding = true;
            } else if *name == CONNECTION {
                let tokens = || value.to_str().into_iter().flat_map(|value| value.split(',')).map(str::trim);
                said.close |= tokens().any(|token| token.eq_ignore_ascii_case("close"));
                said.keep_alive |= tokens().any(|token| token.eq_ignore_ascii_case("keep-alive"));
            } else if name.as_str() == "keep-alive" {
                said.hint = said.hint.or_else(|| keep_alive_hint(value));
            }
        }
        said
    }

    /// Whether the server will read another request on this connection.
    pub(super) fn keeps_alive(&self, head: &Parts) -> bool {
        match head.version {
            _ if head.status == StatusCode::SWITCHING_PROTOCOLS => false,
            Version::HTTP_10 => self.keep_alive,
            _ => !self.close,
        }
    }
}

/// `timeout` of a `Keep-Alive` header. Rubbish counts as nothing.
fn keep_alive_hint(value: &HeaderValue) -> Option<Duration> {
    let parameters = value.to_str().ok()?.split(',').filter_map(|parameter| parameter.trim().split_once('='));
    let (_, seconds) =
        parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}
