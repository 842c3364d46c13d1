//! A Redis server for one test: nothing on disk, everything gone with it.
//!
//! A stopped server that is started again is empty. Only `thaw` may be called while it is frozen.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::port::Port;
use crate::process::{Process, Slot, blocking, command, wait_until_ready};
use crate::scratch::{Scratch, on_path};

/// What a test may want different from the defaults.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// The password of the default user; none by default.
    pub password: Option<String>,
    /// The server's own limit on connections; Redis' own default is 10,000.
    pub max_clients: Option<u32>,
    /// In Redis' notation, such as `"10mb"`; unlimited by default.
    pub max_memory: Option<String>,
    /// Further settings, as `name value` in redis.conf.
    pub settings: Vec<(String, String)>,
}

/// A running Redis, removed when dropped.
#[derive(Debug)]
pub struct Redis(Arc<Server>);

#[derive(Debug)]
struct Server {
    // Fields drop in this order: the process must be gone before its directory and its port are.
    slot: Slot,
    scratch: Scratch,
    port: Port,
    options: RedisOptions,
}

/// A fresh Redis with the default options.
///
/// # Panics
/// When Redis is not installed or does not start; the message holds its log.
pub async fn redis() -> Redis {
    redis_with(RedisOptions::default()).await
}

/// A fresh Redis with these options.
///
/// # Panics
/// As [`redis`].
pub async fn redis_with(options: RedisOptions) -> Redis {
    blocking(move || {
        let scratch = Scratch::new("redis");
        let server = Server { slot: Slot::default(), scratch, port: Port::reserve(), options };
        server.start();
        Redis(Arc::new(server))
    })
    .await
}

impl Redis {
    /// `redis://127.0.0.1:port`, with the password where there is one.
    pub fn url(&self) -> String {
        let login = self.0.options.password.as_ref().map(|password| format!(":{password}@"));
        format!("redis://{}127.0.0.1:{}", login.unwrap_or_default(), self.port())
    }

    /// The loopback port; the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.0.port.number()
    }

    /// What the server has logged since it was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.0.scratch.log_path()).unwrap_or_default()
    }

    /// Runs one command with `redis-cli` in a connection of its own; an error reply is an answer as well.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let server = Arc::clone(&self.0);
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        blocking(move || server.cli(&arguments)).await
    }

    /// The connections that carry this name (`CLIENT SETNAME`); an empty name finds those without one,
    /// among them the one that asks.
    pub async fn clients(&self, name: &str) -> Vec<RedisClient> {
        let mut all = self.all_clients().await;
        all.retain(|client| client.name() == name);
        all
    }

    /// Every connection the server has, except the one that asks.
    pub async fn all_clients(&self) -> Vec<RedisClient> {
        let list = self.cli(&["CLIENT", "LIST"]).await;
        let clients = list.lines().map(RedisClient::parse);
        clients.filter(|client| client.field("cmd") != "client|list").collect()
    }

    /// Closes every client's connection from the server's side; returns how many.
    pub async fn kill_clients(&self) -> usize {
        let answer = self.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        answer.parse().unwrap_or_else(|_| panic!("CLIENT KILL: {answer}"))
    }

    /// Stops the server in the middle of what it does (SIGSTOP): it takes connections (the kernel does), and
    /// never answers.
    ///
    /// # Panics
    /// When the server is not running.
    pub fn freeze(&self) {
        self.0.slot.freeze();
    }

    /// Lets a frozen server go on.
    ///
    /// # Panics
    /// When the server is not running.
    pub fn thaw(&self) {
        self.0.slot.thaw();
    }

    /// Ends the server (SIGTERM) and waits for it. Nothing when it is stopped already.
    pub async fn stop(&self) {
        let server = Arc::clone(&self.0);
        blocking(move || server.slot.stop(Signal::TERM)).await;
    }

    /// Starts a stopped server again on the same port, empty. Nothing when it runs.
    ///
    /// # Panics
    /// When it does not start; the message holds its log.
    pub async fn start(&self) {
        let server = Arc::clone(&self.0);
        blocking(move || server.start()).await;
    }
}

impl Server {
    fn start(&self) {
        self.slot.start(|| self.launch());
    }

    fn launch(&self) -> Process {
        let program = on_path("redis-server");
        let program =
            program.expect("no redis-server in PATH: install it (Debian: apt-get install redis-server)");
        let mut redis = command(&program, None, "KILL");
        redis.current_dir(self.scratch.path()).arg("--dir").arg(self.scratch.path());
        redis.args(["--port", &self.port.number().to_string(), "--bind", "127.0.0.1"]);
        redis.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--protected-mode", "no"]);
        for (name, value) in self.settings() {
            redis.arg(format!("--{name}")).arg(value);
        }
        redis.stdout(self.scratch.log()).stderr(self.scratch.log());
        let started = Process::start(redis, Signal::KILL).expect("the system starts no more processes");
        wait_until_ready(&started, &self.scratch, || answers(self.port.addr()));
        started
    }

    fn settings(&self) -> Vec<(String, String)> {
        let options = &self.options;
        let own = [
            ("requirepass", options.password.clone()),
            ("maxclients", options.max_clients.map(|limit| limit.to_string())),
            ("maxmemory", options.max_memory.clone()),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        own.chain(options.settings.iter().cloned()).collect()
    }

    fn cli(&self, arguments: &[String]) -> String {
        // A frozen server would keep redis-cli for ever.
        let mut cli = Command::new("timeout");
        cli.args(["20", "redis-cli", "-h", "127.0.0.1", "-p", &self.port.number().to_string()]);
        cli.args(arguments).env_remove("REDISCLI_AUTH");
        if let Some(password) = &self.options.password {
            cli.env("REDISCLI_AUTH", password);
        }
        let output = cli.output().expect("timeout (coreutils) is needed");
        let reason = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "redis-cli {arguments:?}: {} {reason}", output.status);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

/// Whether a Redis answers here; an error is an answer (a password is asked for).
fn answers(addr: SocketAddr) -> bool {
    let ask = || -> std::io::Result<[u8; 1]> {
        let mut socket = TcpStream::connect(addr)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"PING\r\n")?;
        let mut first = [0];
        socket.read_exact(&mut first)?;
        Ok(first)
    };
    ask().is_ok()
}

/// One line of `CLIENT LIST`.
#[derive(Debug, Clone)]
pub struct RedisClient(BTreeMap<String, String>);

impl RedisClient {
    fn parse(line: &str) -> Self {
        let fields = line.split_whitespace().filter_map(|field| field.split_once('='));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// What the connection calls itself; may be empty.
    pub fn name(&self) -> &str {
        self.field("name")
    }

    /// The server's number for the connection, never used again.
    pub fn id(&self) -> u64 {
        self.field("id").parse().expect("BUG: every client has a number")
    }

    /// Any other field by Redis' name (`addr`, `idle`, `cmd`, `db`, `lib-name`, …); empty when absent.
    pub fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}
