//! Knobs of the HTTP pool.

use std::{net::SocketAddr, time::Duration};

use secrecy::SecretString;

use crate::settings::{addresses, choice, count, millis, optional_secret, optional_text, seconds};

crate::settings! {
    /// Knobs of the HTTP pool; names and numbers are those of Node's agent.
    pub struct HttpConfig in "HTTP pool" {
        /// Most connections to one host and port, in use or being opened (Node's `maxSockets`).
        pub max_sockets: u32 = count("HTTP_MAX_SOCKETS", "connections", 50, 1..=10_000);
        /// Most idle connections kept to one host and port (Node's `maxFreeSockets`).
        pub max_free_sockets: u32 = count("HTTP_MAX_FREE_SOCKETS", "connections", 10, 0..=10_000);
        /// Most connections to all hosts together: room for five hosts at their cap.
        pub max_total_sockets: u32 = count("HTTP_MAX_TOTAL_SOCKETS", "connections", 256, 1..=65_535);
        /// Most requests that wait for one host: at 50 connections and 100 ms an answer, the last of 1,000 waits two seconds, which a
        /// user still sits through.
        pub max_queue: u32 = count("HTTP_MAX_QUEUE", "requests", 1_000, 0..=100_000);
        /// Longest time for name, TCP and TLS together. Node has none and waits for the kernel, over two minutes; a server that needs ten
        /// seconds to accept is down.
        pub connect_timeout: Duration = millis("HTTP_CONNECT_TIMEOUT_MS", 10_000, 1..=600_000);
        /// A connection older than this, a tenth more or less, is not used again: old enough to pay for its handshake many times, young
        /// enough that a DNS change is followed within minutes. It never cuts a request.
        pub max_age: Duration = seconds("HTTP_MAX_AGE", 600, 1..=86_400);
        /// An idle connection is closed after this long, and TCP keep-alive probes start at it.
        pub keep_alive: Duration = millis("HTTP_KEEP_ALIVE_MS", 30_000, 1..=3_600_000);
        /// How long an idle connection above `HTTP_MAX_FREE_SOCKETS` may wait for a caller. 0 closes it on
        /// return, Node's exact rule, which dials again for every burst.
        pub free_linger: Duration = seconds("HTTP_FREE_LINGER", 1, 0..=60);
        /// That long without a byte in either direction ends the request.
        pub timeout: Duration = millis("HTTP_TIMEOUT_MS", 60_000, 1..=3_600_000);
        /// Proxy for `http://`: `http://`, `socks5://` or `socks5h://`, maybe with `user:password@`. Never used for
        /// loopback addresses and `localhost`.
        pub http_proxy: Option<SecretString> = optional_secret("HTTP_PROXY", "URL");
        /// Proxy for `https://`, as above.
        pub https_proxy: Option<SecretString> = optional_secret("HTTPS_PROXY", "URL");
        /// Proxy for what has none of its own.
        pub all_proxy: Option<SecretString> = optional_secret("ALL_PROXY", "URL");
        /// Hosts, domains and networks that are reached without a proxy, separated by commas; `*` for all.
        pub no_proxy: Option<String> = optional_text("NO_PROXY", "list");
        /// Who turns names into addresses: `cached` asks the servers of `/etc/resolv.conf`, keeps answers for their TTL, and asks the
        /// system for what they do not know; `system` asks the system for each connection.
        pub dns: &'static str = choice("HTTP_DNS", "cached", &["cached", "system"]);
        /// DNS servers to ask instead of those in `/etc/resolv.conf`, whose search domains count all the same.
        pub dns_servers: Vec<SocketAddr> = addresses("HTTP_DNS_SERVERS", 53);
        /// Longest time that an address is kept, whatever its TTL.
        pub dns_max_ttl: Duration = seconds("HTTP_DNS_MAX_TTL", 3_600, 1..=86_400);
        /// How long after its time an address may be used while no DNS server answers. 0 never does.
        pub dns_stale: Duration = seconds("HTTP_DNS_STALE", 3_600, 0..=86_400);
    }
}
