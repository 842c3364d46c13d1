//! A DNS server on loopback whose zone a test writes, and which remembers what it was asked.
//!
//! It knows A and AAAA, speaks UDP alone, and does not care for EDNS. A question that is sent again because its answer was late counts once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::process::lock;

const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;
/// NOERROR with QR, RD and RA set.
const ANSWER: u16 = 0x8180;
const NAME_ERROR: u16 = 3;
/// The name of the question, which stands behind the twelve bytes of the head.
const SAME_NAME: u16 = 0xC00C;

/// What the server says to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsAnswer {
    /// These addresses, for so many seconds. A family without one is answered with an empty list (NODATA).
    Addresses(Vec<IpAddr>, u32),
    /// The name does not exist (NXDOMAIN), for so many seconds.
    Unknown(u32),
    /// An error without an answer, such as 2 (SERVFAIL) or 5 (REFUSED).
    Code(u8),
    /// Nothing at all.
    Silence,
    /// As this says for A; nothing at all for AAAA.
    SilentAboutV6(Box<DnsAnswer>),
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsQuestion {
    /// In small letters, without the last dot.
    pub name: String,
    /// Whether it asks for AAAA.
    pub v6: bool,
    id: u16,
    kind: u16,
}

/// A DNS server, gone when dropped.
#[derive(Debug)]
pub struct Dns {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    zone: Mutex<HashMap<String, DnsAnswer>>,
    for_all: Mutex<Option<DnsAnswer>>,
    asked: Mutex<Vec<DnsQuestion>>,
}

/// A server whose zone is empty: every name is unknown for a second.
///
/// # Panics
/// When loopback has no free UDP port.
pub async fn dns() -> Dns {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let addr = socket.local_addr().expect("it is bound");
    let shared = Arc::new(Shared::default());
    let mut task = JoinSet::new();
    task.spawn(serve(socket, Arc::clone(&shared)));
    Dns { addr, shared, _task: task }
}

impl Dns {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it says to `name` from now on.
    pub fn set(&self, name: &str, answer: DnsAnswer) {
        lock(&self.shared.zone).insert(name.to_owned(), answer);
    }

    /// What it says to all names from now on, whatever the zone says; `None` for the zone again.
    pub fn set_all(&self, answer: Option<DnsAnswer>) {
        *lock(&self.shared.for_all) = answer;
    }

    /// The names it was asked for, in order: one entry for both families together.
    pub fn names(&self) -> Vec<String> {
        let asked = lock(&self.shared.asked);
        asked.iter().filter(|question| !question.v6).map(|question| question.name.clone()).collect()
    }

    /// How often it was asked for `name`, both families together counting once.
    pub fn asked(&self, name: &str) -> usize {
        self.names().iter().filter(|asked| *asked == name).count()
    }
}

impl Shared {
    /// Remembers the question and says what it is answered with.
    fn asked(&self, question: &DnsQuestion) -> DnsAnswer {
        let mut asked = lock(&self.asked);
        if !asked.contains(question) {
            asked.push(question.clone());
        }
        let of_zone = || lock(&self.zone).get(&question.name).cloned();
        let answer = lock(&self.for_all).clone().or_else(of_zone).unwrap_or(DnsAnswer::Unknown(1));
        match answer {
            DnsAnswer::SilentAboutV6(_) if question.v6 => DnsAnswer::Silence,
            DnsAnswer::SilentAboutV6(about_v4) => *about_v4,
            answer => answer,
        }
    }
}

async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    loop {
        // An error here is a client that has closed its socket.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Some((question, end)) = read(&buffer[..length]) else { continue };
        let answer = shared.asked(&question);
        if let Some(message) = reply(&buffer[12..end], &question, &answer) {
            let _ = socket.send_to(&message, peer).await;
        }
    }
}

/// The question of a message, and where it ends.
fn read(message: &[u8]) -> Option<(DnsQuestion, usize)> {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = number(at)?;
    let question = DnsQuestion { name: labels.join("."), v6: kind == AAAA, id: number(0)?, kind };
    Some((question, at + 4))
}

/// `asked` is the question as it came.
fn reply(asked: &[u8], question: &DnsQuestion, answer: &DnsAnswer) -> Option<Vec<u8>> {
    let (flags, addresses, ttl) = match answer {
        DnsAnswer::Addresses(addresses, ttl) => (ANSWER, addresses.as_slice(), *ttl),
        DnsAnswer::Unknown(ttl) => (ANSWER | NAME_ERROR, &[][..], *ttl),
        DnsAnswer::Code(code) => (ANSWER | u16::from(*code), &[][..], 0),
        DnsAnswer::Silence | DnsAnswer::SilentAboutV6(_) => return None,
    };
    let wanted =
        |address: &&IpAddr| (question.kind == A && address.is_ipv4()) || (question.v6 && address.is_ipv6());
    let records: Vec<Vec<u8>> = addresses.iter().filter(wanted).map(bytes).collect();
    let is_negative = records.is_empty() && !matches!(answer, DnsAnswer::Code(_));
    let count = u16::try_from(records.len()).ok()?;
    let head = [question.id, flags, 1, count, u16::from(is_negative), 0];
    let mut message: Vec<u8> = head.into_iter().flat_map(u16::to_be_bytes).collect();
    message.extend_from_slice(asked);
    for record in records {
        push(&mut message, question.kind, ttl, &record);
    }
    if is_negative {
        // Its own root as server and mailbox, five numbers of which the last is the TTL of the refusal.
        let numbers = [1, 60, 60, 60, ttl];
        let start = [0, 0].into_iter();
        let soa: Vec<u8> = start.chain(numbers.into_iter().flat_map(u32::to_be_bytes)).collect();
        push(&mut message, SOA, ttl, &soa);
    }
    Some(message)
}

fn push(message: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    message.extend(SAME_NAME.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    message.extend(ttl.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(data);
}

fn bytes(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
