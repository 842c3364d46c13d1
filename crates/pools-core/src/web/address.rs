//! Whose request it is: the peer, unless the peer is a proxy that we trust to say for whom it asks.
//!
//! `X-Forwarded-For` is a list to which each proxy appends whom it heard from. It is read from its end, and only as far as those who
//! wrote it are trusted: what a caller made up stands before all that, and changes nothing.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::HeaderMap;
use ipnet::IpNet;

use crate::settings::Kind;

/// A list of networks; see [`networks`].
#[derive(Debug)]
pub(super) struct Networks(&'static str);

/// Comma-separated addresses and networks, such as `10.0.0.0/8, ::1`.
pub(super) const fn networks(variable: &'static str) -> Networks {
    Networks(variable)
}

impl Kind for Networks {
    type Value = Vec<IpNet>;

    fn variable(&self) -> &'static str {
        self.0
    }

    fn default(&self) -> Vec<IpNet> {
        Vec::new()
    }

    fn parse(&self, text: &str) -> Option<Vec<IpNet>> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| item.parse().ok().or_else(|| Some(item.parse::<IpAddr>().ok()?.into()))).collect()
    }

    fn default_text(&self) -> String {
        String::new()
    }

    fn unit(&self) -> &'static str {
        "list"
    }

    fn range(&self) -> String {
        "addresses and networks such as 10.0.0.0/8, separated by commas".to_owned()
    }
}

/// The address that a request came from, as far as it can be believed.
pub(super) fn client(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer?.to_canonical();
    let mut values: Vec<_> = headers.get_all("x-forwarded-for").collect();
    let mut listed = Vec::new();
    while let Some(value) = values.pop() {
        // Item by item: what a caller wrote may be no text, and must not hide what a proxy has added to it.
        listed.extend(value.as_bytes().rsplit(|byte| *byte == b',').map(address));
    }
    for listed in listed {
        if !is_trusted(&client) {
            break;
        }
        let Some(before) = listed else { break };
        client = before;
    }
    Some(client)
}

/// An address, with or without a port.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?.trim();
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let address = bare().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn found(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let name = HeaderName::from_static("x-forwarded-for");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted = networks("TRUSTED_PROXIES").parse(trusted).unwrap();
        client(peer.parse().ok(), &headers, &trusted).unwrap().to_string()
    }

    #[test]
    fn without_trusted_proxies_the_header_changes_nothing() {
        assert_eq!(found("192.0.2.7", &["10.0.0.1, 10.0.0.2"], ""), "192.0.2.7");
    }

    #[test]
    fn the_last_address_that_a_trusted_proxy_vouches_for_is_the_clients() {
        let net = "10.0.0.0/8, fd00::/8";
        assert_eq!(found("10.0.0.1", &["192.0.2.7"], net), "192.0.2.7");
        assert_eq!(found("10.0.0.1", &["203.0.113.9, 192.0.2.7, 10.1.1.1"], net), "192.0.2.7");
        assert_eq!(found("10.0.0.1", &["203.0.113.9", "192.0.2.7", "10.1.1.1"], net), "192.0.2.7");
        // An untrusted peer's word counts for nothing, however it looks.
        assert_eq!(found("192.0.2.7", &["10.0.0.1, 10.0.0.2"], net), "192.0.2.7");
        // All of them are ours: the first one asked.
        assert_eq!(found("10.0.0.1", &["10.0.0.3, 10.0.0.2"], net), "10.0.0.3");
        assert_eq!(found("10.0.0.1", &[], net), "10.0.0.1");
    }

    #[test]
    fn rubbish_ends_the_list() {
        for rubbish in ["unknown", "", "300.1.1.1", "a, , b", "\u{e9}", "<script>"] {
            let list = format!("203.0.113.9, {rubbish}, 10.0.0.2");
            assert_eq!(found("10.0.0.1", &[&list], "10.0.0.0/8"), "10.0.0.2", "{rubbish:?}");
        }
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        for (text, expected) in [
            ("192.0.2.7:4711", "192.0.2.7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ] {
            assert_eq!(found("fd00::1", &[text], "fd00::/8"), expected, "{text}");
        }
        assert_eq!(found("::ffff:10.0.0.1", &["192.0.2.7"], "10.0.0.1"), "192.0.2.7");
    }

    #[test]
    fn a_setting_that_is_no_list_of_networks_is_refused() {
        let parse = |text: &str| networks("TRUSTED_PROXIES").parse(text);
        assert_eq!(parse("").unwrap(), Vec::<IpNet>::new());
        assert_eq!(parse(" 10.0.0.0/8 ,::1, ").unwrap().len(), 2);
        for bad in ["10.0.0.0/33", "proxy.example.com", "10.0.0.0/8;::1", "*"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
