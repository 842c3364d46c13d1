//! PgBouncer in front of a Postgres, pooling by transaction: what a client says between two transactions may reach
//! another server process each time.
//!
//! It refuses to run as root and then runs as the user `postgres`, as the server does.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use rustix::process::Signal;

use crate::port::Port;
use crate::postgres::{Postgres, service_user};
use crate::process::{Process, Slot, blocking, command, wait_until_ready};
use crate::scratch::{Scratch, on_path};

/// A running PgBouncer, removed when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    // Fields drop in this order: the process must be gone before its directory and its port are.
    _slot: Slot,
    scratch: Scratch,
    port: Port,
    target: u16,
}

/// A PgBouncer in transaction mode with two server connections per database and user: two clients are enough to
/// get into each other's way.
///
/// # Panics
/// When PgBouncer is not installed or does not start; the message holds its log.
pub async fn pgbouncer(server: &Postgres) -> PgBouncer {
    let (target, beside) = (server.port(), server.socket_dir().to_owned());
    blocking(move || start(target, &beside)).await
}

impl PgBouncer {
    /// The loopback port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A URL of the server, leading through the proxy instead.
    ///
    /// # Panics
    /// When the URL does not name the server.
    pub fn through(&self, url: &str) -> String {
        let (target, own) = (format!("127.0.0.1:{}", self.target), format!("127.0.0.1:{}", self.port()));
        assert!(url.contains(&target), "not a URL of {target}");
        url.replace(&target, &own)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.log_path()).unwrap_or_default()
    }
}

fn start(target: u16, beside: &Path) -> PgBouncer {
    let program = on_path("pgbouncer").or_else(|| {
        // Debian's place, which an ordinary user's PATH lacks.
        let debian = Path::new("/usr/sbin/pgbouncer");
        debian.is_file().then(|| debian.to_owned())
    });
    let program = program.expect("no PgBouncer found: install it (Debian: apt-get install pgbouncer)");
    let (scratch, port) = (Scratch::new("pgbouncer"), Port::reserve());
    // Passwords in clear, which it needs to log in by SCRAM on the server's side.
    fs::write(scratch.path().join("users"), "\"app\" \"app-password\"\n").expect("BUG: the folder is ours");
    let config = format!(
        "[databases]\n* = host=127.0.0.1 port={target}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = users\npool_mode = transaction\n\
         default_pool_size = 2\nserver_lifetime = 3600\nlogfile =\n",
        port.number()
    );
    fs::write(scratch.path().join("config"), config).expect("BUG: the folder is ours");
    let owner = fs::metadata(beside).expect("BUG: the server's folder is there");
    for path in [scratch.path().to_owned(), scratch.path().join("users"), scratch.path().join("config")] {
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("BUG: the file is ours");
    }
    let mut pgbouncer = command(&program, service_user(), "KILL");
    pgbouncer.current_dir(scratch.path()).arg("config");
    pgbouncer.stdout(scratch.log()).stderr(scratch.log());
    let started = Process::start(pgbouncer, Signal::KILL).expect("the system starts no more processes");
    wait_until_ready(&started, &scratch, || std::net::TcpStream::connect(port.addr()).is_ok());
    let slot = Slot::default();
    slot.start(|| started);
    PgBouncer { _slot: slot, scratch, port, target }
}
