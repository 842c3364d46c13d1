//! Loopback ports that stay ours.
//!
//! The usual trick, to bind port 0 and close it again, gives a port that any outgoing connection of the
//! machine may take before the server does, and again while a server is stopped. So these come from below the
//! range the kernel uses for outgoing connections, and each is held by an abstract socket name, which is
//! machine-wide and vanishes with the process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::process::lock;

/// Above the well-known servers, below Linux' default `ip_local_port_range` (32768–60999).
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback TCP port that no other test takes while this lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _held: UnixDatagram,
}

static TRIED: AtomicU16 = AtomicU16::new(0);
static FOR_GOOD: Mutex<Vec<Port>> = Mutex::new(Vec::new());

impl Port {
    pub(crate) fn reserve() -> Self {
        // Processes start at different places, so that they rarely try the same port; 37 is prime to COUNT.
        let start = std::process::id().wrapping_mul(37);
        for _ in 0..COUNT {
            let tried = u32::from(TRIED.fetch_add(1, Ordering::Relaxed));
            let offset = start.wrapping_add(tried) % u32::from(COUNT);
            if let Some(port) = u16::try_from(offset).ok().and_then(|offset| Self::hold(FIRST + offset)) {
                return port;
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    fn hold(number: u16) -> Option<Self> {
        let name = UnixAddr::from_abstract_name(format!("testkit-port-{number}")).ok()?;
        let held = UnixDatagram::bind_addr(&name).ok()?;
        // Somebody who does not ask testkit may listen there.
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _held: held })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// A loopback port that nobody listens on, kept from other tests until this process ends.
pub fn free_port() -> u16 {
    let port = Port::reserve();
    let number = port.number();
    lock(&FOR_GOOD).push(port);
    number
}
