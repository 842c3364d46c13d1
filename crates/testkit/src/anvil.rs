//! An Ethereum node for one test: Foundry's anvil, the real program.
//!
//! Found in this order: the variable `ANVIL`, a native `anvil` in `PATH`, the copy that testkit installs
//! once from npm into the target directory. The package's command is a Node script around the program for
//! the platform; the program itself is started, so that signals reach it.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::port::Port;
use crate::process::{Process, Slot, blocking, command, wait_until_ready};
use crate::scratch::{Scratch, beside, cache_dir, made_once, on_path};

/// The npm release that is installed when no anvil is found.
const VERSION: &str = "1.7.1";

/// What a test may want different from the defaults.
#[derive(Debug, Clone, Default)]
pub struct AnvilOptions {
    /// Seconds between blocks; by default a block is mined for each transaction.
    pub block_time: Option<u64>,
    /// anvil's own default is 31337.
    pub chain_id: Option<u64>,
    /// The genesis block's time in seconds since 1970; by default now.
    pub timestamp: Option<u64>,
    /// How many funded development accounts there are; anvil's own default is 10.
    pub accounts: Option<u32>,
    /// Keep the chain when the node is stopped and started again; by default it begins anew.
    pub keep_state: bool,
    /// Further arguments of the command line.
    pub arguments: Vec<String>,
}

/// A running anvil, removed when dropped.
#[derive(Debug)]
pub struct Anvil(Arc<Server>);

#[derive(Debug)]
struct Server {
    // Fields drop in this order: the process must be gone before its directory and its port are.
    slot: Slot,
    scratch: Scratch,
    port: Port,
    program: PathBuf,
    options: AnvilOptions,
    next_id: AtomicU64,
}

/// A fresh anvil with the default options.
///
/// # Panics
/// When anvil is neither found nor installable, or does not start; the message holds its log.
pub async fn anvil() -> Anvil {
    anvil_with(AnvilOptions::default()).await
}

/// A fresh anvil with these options.
///
/// # Panics
/// As [`anvil`].
pub async fn anvil_with(options: AnvilOptions) -> Anvil {
    blocking(move || {
        let program = program();
        let (slot, scratch, port) = (Slot::default(), Scratch::new("anvil"), Port::reserve());
        let server = Server { slot, scratch, port, program, options, next_id: AtomicU64::new(1) };
        server.start();
        Anvil(Arc::new(server))
    })
    .await
}

impl Anvil {
    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The loopback port; the same for the node's whole life.
    pub fn port(&self) -> u16 {
        self.0.port.number()
    }

    /// What the node has logged since it was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.0.scratch.log_path()).unwrap_or_default()
    }

    /// Calls one method in a connection of its own and returns its result.
    ///
    /// # Panics
    /// When the node cannot be reached, or answers with an error.
    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self.post(call.to_string()).await;
        let mut answer: Value = serde_json::from_slice(&answer).expect("anvil answers in JSON");
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }

    async fn post(&self, body: String) -> Vec<u8> {
        let socket = tokio::net::TcpStream::connect(self.0.port.addr()).await;
        let socket = TokioIo::new(socket.expect("anvil is not running"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(socket).await.expect("BUG: nothing is sent yet");
        let request = Request::post("/").header("host", "anvil").header("content-type", "application/json");
        let request =
            request.body(Full::<bytes::Bytes>::from(body)).expect("BUG: the request is well-formed");
        let exchange = async move {
            // The sender moves in and ends the connection with this block.
            let answer = sender.send_request(request).await.expect("anvil closed the connection");
            answer.into_body().collect().await.expect("anvil cut its answer").to_bytes().to_vec()
        };
        // The answer's own error says more than the connection's.
        let (answer, _ended) = tokio::join!(exchange, connection);
        answer
    }

    /// Stops the node in the middle of what it does (SIGSTOP): it takes connections (the kernel does), and
    /// never answers.
    ///
    /// # Panics
    /// When the node is not running.
    pub fn freeze(&self) {
        self.0.slot.freeze();
    }

    /// Lets a frozen node go on.
    ///
    /// # Panics
    /// When the node is not running.
    pub fn thaw(&self) {
        self.0.slot.thaw();
    }

    /// Ends the node (SIGINT) and waits for it. Nothing when it is stopped already.
    pub async fn stop(&self) {
        let server = Arc::clone(&self.0);
        blocking(move || server.slot.stop(Signal::INT)).await;
    }

    /// Starts a stopped node again on the same port. Nothing when it runs.
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
        let mut anvil = command(&self.program, None, "KILL");
        // It would keep caches in the home directory.
        anvil.current_dir(self.scratch.path()).env("HOME", self.scratch.path());
        anvil.args(["--host", "127.0.0.1", "--port", &self.port.number().to_string()]);
        anvil.args(self.arguments());
        anvil.stdout(self.scratch.log()).stderr(self.scratch.log());
        let started = Process::start(anvil, Signal::KILL).expect("the system starts no more processes");
        // It listens only once its chain is there.
        wait_until_ready(&started, &self.scratch, || TcpStream::connect(self.port.addr()).is_ok());
        started
    }

    fn arguments(&self) -> Vec<String> {
        let options = &self.options;
        let numbers = [
            ("--block-time", options.block_time),
            ("--chain-id", options.chain_id),
            ("--timestamp", options.timestamp),
            ("--accounts", options.accounts.map(u64::from)),
        ];
        let given =
            numbers.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?.to_string()]));
        let state = options.keep_state.then(|| ["--state".to_owned(), "state.json".to_owned()]);
        given.chain(state).flatten().chain(options.arguments.iter().cloned()).collect()
    }
}

fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("ANVIL") {
        return named.into();
    }
    on_path("anvil").filter(|program| is_native(program)).unwrap_or_else(installed)
}

/// Whether this is a program of the machine's own format, not a script.
fn is_native(program: &Path) -> bool {
    let mut magic = [0; 4];
    let read = fs::File::open(program).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"\x7fELF"
}

/// The copy in the target directory, installed with npm the first time.
fn installed() -> PathBuf {
    let home = cache_dir().join(format!("anvil-{VERSION}"));
    made_once(&home, || {
        let unfinished = beside(&home, ".new");
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&unfinished);
        npm.arg(format!("@foundry-rs/anvil@{VERSION}"));
        let output = npm.output().expect("no anvil found, and no npm to install it with");
        let reason = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{npm:?} failed:\n{reason}");
        fs::rename(&unfinished, &home).expect("the target directory cannot be written to");
    });
    let processor = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    home.join(format!("node_modules/@foundry-rs/anvil-linux-{processor}/bin/anvil"))
}
