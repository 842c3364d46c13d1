//! A Postgres server for one test.
//!
//! ```text
//! initdb, once per machine ──► template ──cp──► started ◄──freeze/thaw──► frozen
//!                                                │  ▲
//!                                           stop │  │ start (same port, same data)
//!                                                ▼  │
//!                                               stopped ──drop──► gone, directory and all
//! ```
//!
//! Durability is off: a test's data need not survive a power cut, and `fsync` would be most of the time.
//! Postgres refuses to run as root; when the tests do, it runs as the user `postgres` of the Debian package.
//! No function here may be called while the server is frozen, except `thaw` and `port`-like getters: they
//! would wait for it.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::port::Port;
use crate::process::{Process, Slot, blocking, command, wait_until_ready};
use crate::scratch::{Scratch, beside, cache_dir, made_once, on_path};

const SUPERUSER: &str = "postgres";
const USER: &str = "app";
const PASSWORD: &str = "app-password";
/// What a server keeps of that password, made with one iteration instead of 4,096: in a build without optimisation
/// those take 50 ms of processor time for each connection, which would be most of what a test does.
const VERIFIER: &str = "SCRAM-SHA-256$1:dGVzdGtpdC1zYWx0LTE2Yg==$oV6BB6qmbjV2tJj9H0cxYq3vh1oAbpudiVzUNPeTbFM=:vQVYa28oVHlFBBPblHsl0jvLUoYMDR5d1o4GpHA50Ic=";
const DATABASE: &str = "app";
/// Raise when the template's content changes, so that machines make a new one.
const TEMPLATE: &str = "postgres-v3";

/// What a test may want different from the defaults.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The server's own limit. Three of these are kept for superusers.
    pub max_connections: u32,
    /// Further settings, as `name = value` in postgresql.conf.
    pub settings: Vec<(String, String)>,
    /// Offers TLS with this certificate.
    pub tls: Option<ServerTls>,
}

/// What a server shows of itself in a TLS handshake, both as PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// Its certificate.
    pub certificate: String,
    /// The certificate's private key.
    pub key: String,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Default for PostgresOptions {
    /// 100 connections, as Postgres itself.
    fn default() -> Self {
        Self { max_connections: 100, settings: Vec::new(), tls: None }
    }
}

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: running statements are cancelled, clients are told (`57P01`), the data is written.
    Fast,
    /// SIGQUIT: as after a crash; clients may get no more than a closed connection.
    Immediate,
    /// SIGKILL for the server and all its children at once: nobody is told anything, nothing is written.
    Kill,
}

/// A running Postgres, removed when dropped.
#[derive(Debug)]
pub struct Postgres(Arc<Server>);

#[derive(Debug)]
struct Server {
    // Fields drop in this order: the process must be gone before its directory and its port are.
    slot: Slot,
    scratch: Scratch,
    port: Port,
    programs: PathBuf,
    options: PostgresOptions,
}

/// A fresh Postgres with the default options.
///
/// # Panics
/// When Postgres is not installed or does not start; the message holds its log.
pub async fn postgres() -> Postgres {
    postgres_with(PostgresOptions::default()).await
}

/// A fresh Postgres with these options.
///
/// # Panics
/// As [`postgres`].
pub async fn postgres_with(options: PostgresOptions) -> Postgres {
    blocking(move || {
        let programs = programs();
        let template = template(&programs);
        let scratch = Scratch::new("pg");
        copy(&template, &scratch.path().join("data"));
        let owner = fs::metadata(&template).expect("BUG: the template was made above");
        chown(scratch.path(), Some(owner.uid()), Some(owner.gid())).expect("BUG: the folder is ours");
        if let Some(tls) = &options.tls {
            write_tls(&scratch, tls, &owner);
        }
        let server = Server { slot: Slot::default(), scratch, port: Port::reserve(), programs, options };
        server.start();
        Postgres(Arc::new(server))
    })
    .await
}

impl Postgres {
    /// `postgres://app:…@127.0.0.1:port/app`: an ordinary role that owns its database, with a password.
    pub fn url(&self) -> String {
        self.url_for(USER)
    }

    /// The same for the superuser `postgres`, who may use the reserved connections.
    pub fn admin_url(&self) -> String {
        self.url_for(SUPERUSER)
    }

    fn url_for(&self, role: &str) -> String {
        format!("postgres://{role}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port())
    }

    /// The loopback port; the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.0.port.number()
    }

    /// Where its Unix socket is; everybody is trusted there.
    pub fn socket_dir(&self) -> &Path {
        self.0.scratch.path()
    }

    /// What the server has logged since it was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.0.scratch.log_path()).unwrap_or_default()
    }

    /// Runs one or more statements as superuser over the Unix socket, each in a new connection.
    ///
    /// Returns the rows as text, NULL as an empty string.
    ///
    /// # Panics
    /// When the server is not there or refuses the statement.
    pub async fn admin_query(&self, sql: &str) -> Vec<Vec<String>> {
        let mut config = Config::new();
        config.host_path(self.socket_dir()).port(self.port()).user(SUPERUSER).dbname(DATABASE);
        config.application_name("testkit");
        let (client, connection) = config.connect(NoTls).await.expect("testkit could not reach its Postgres");
        let ask = async {
            let rows = client.simple_query(sql).await;
            // The connection ends when its client is gone, and with it the join below.
            drop(client);
            rows
        };
        let (rows, end) = tokio::join!(ask, connection);
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        end.expect("testkit lost its Postgres connection");
        rows.iter().filter_map(text_row).collect()
    }

    /// How many server processes serve clients of this `application_name` now.
    pub async fn connections(&self, application_name: &str) -> usize {
        let name = application_name.replace('\'', "''");
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        self.number(&sql).await
    }

    /// How many server processes serve clients now, testkit's own not counted.
    pub async fn all_connections(&self) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.number(sql).await
    }

    /// Terminates every client's server process, as an administrator would; returns how many.
    pub async fn kill_backends(&self) -> usize {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.number(sql).await
    }

    /// Makes a role that may have only `limit` connections; returns its URL to the same database.
    pub async fn create_role_with_limit(&self, role: &str, limit: u32) -> String {
        // Durable, unlike what tests write: a server that is killed a moment later comes back with the role.
        let sql = format!(
            "SET synchronous_commit = on; \
             CREATE ROLE \"{role}\" LOGIN PASSWORD '{VERIFIER}' CONNECTION LIMIT {limit}"
        );
        self.admin_query(&sql).await;
        self.url_for(role)
    }

    async fn number(&self, sql: &str) -> usize {
        let rows = self.admin_query(sql).await;
        rows[0][0].parse().expect("BUG: count() is a number")
    }

    /// Stops the server and all its children in the middle of what they do (SIGSTOP): it takes connections
    /// (the kernel does), and never answers.
    ///
    /// # Panics
    /// When the server is not running.
    pub fn freeze(&self) {
        self.0.slot.freeze();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.0.slot.thaw();
    }

    /// Ends the server and waits for it; its data stays. Nothing when it is stopped already.
    pub async fn stop(&self, how: Stop) {
        let server = Arc::clone(&self.0);
        blocking(move || match how {
            Stop::Fast => server.slot.stop(Signal::INT),
            Stop::Immediate => server.slot.stop(Signal::QUIT),
            Stop::Kill => server.slot.kill(),
        })
        .await;
    }

    /// Starts a stopped server again: same port, same data. Nothing when it runs.
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
        let data = self.scratch.path().join("data");
        let mut postgres = command(&self.programs.join("postgres"), service_user(), "QUIT");
        postgres.current_dir(self.scratch.path()).arg("-D").arg(&data).arg("-k").arg(self.scratch.path());
        postgres.arg("-p").arg(self.port.number().to_string());
        postgres.arg("-N").arg(self.options.max_connections.to_string());
        if self.options.tls.is_some() {
            for file in ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"] {
                postgres.arg("-c").arg(file);
            }
        }
        for (name, value) in &self.options.settings {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.stdout(self.scratch.log()).stderr(self.scratch.log());
        let started = Process::start(postgres, Signal::QUIT).expect("the system starts no more processes");
        let pid_file = data.join("postmaster.pid");
        wait_until_ready(&started, &self.scratch, || is_ready(&pid_file, started.pid()));
        started
    }
}

/// Postgres reads a key only if nobody but itself can.
fn write_tls(scratch: &Scratch, tls: &ServerTls, owner: &fs::Metadata) {
    for (name, content) in [("server.crt", &tls.certificate), ("server.key", &tls.key)] {
        let path = scratch.path().join(name);
        fs::write(&path, content).expect("BUG: the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("BUG: the file is ours");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("BUG: the file is ours");
    }
}

/// The server writes its state to the eighth line of `postmaster.pid`; `pg_ctl` waits for the same word.
fn is_ready(pid_file: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = text.lines();
    // A crashed server leaves its file behind: the first line tells whose it is.
    let ours = lines.next() == Some(pid.to_string().as_str());
    ours && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

fn text_row(message: &SimpleQueryMessage) -> Option<Vec<String>> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
}

/// Whom to run as what refuses to run as root.
pub(crate) fn service_user() -> Option<&'static str> {
    rustix::process::getuid().is_root().then_some(SUPERUSER)
}

/// The folder of the Postgres programs: where `PATH` finds `initdb`, else Debian's newest version.
fn programs() -> PathBuf {
    if let Some(initdb) = on_path("initdb") {
        return initdb.parent().expect("BUG: a program is in a folder").to_owned();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .max();
    newest.expect("no Postgres found: install it (Debian: apt-get install postgresql)").1
}

/// A data directory to copy from, shut down cleanly so that a copy needs no recovery.
fn template(programs: &Path) -> PathBuf {
    let kind = programs.display().to_string().replace('/', "-");
    let template = cache_dir().join(format!("{TEMPLATE}{kind}"));
    made_once(&template, || {
        // Made outside of it, since the other user may not be let into the target directory.
        let scratch = Scratch::new("pg-template");
        if let Some(user) = service_user() {
            run(Command::new("chown").arg(format!("{user}:")).arg(scratch.path()), "");
        }
        let data = scratch.path().join("data");
        init(programs, &scratch, &data);
        let unfinished = beside(&template, ".new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).expect("the target directory cannot be written to");
        }
        copy(&data, &unfinished);
        fs::rename(&unfinished, &template).expect("the target directory cannot be written to");
    });
    template
}

fn init(programs: &Path, scratch: &Scratch, data: &Path) {
    let password = scratch.path().join("password");
    fs::write(&password, PASSWORD).expect("BUG: the folder is ours");
    let mut initdb = command(&programs.join("initdb"), service_user(), "KILL");
    initdb.current_dir(scratch.path()).arg("-D").arg(data).arg("--pwfile").arg(&password).args([
        "--username=postgres",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
        // A copy costs what the files weigh, and two segments of 16 MB would be half of it.
        "--wal-segsize=1",
        "--no-sync",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    ]);
    run(&mut initdb, "");
    let settings = fs::File::options().append(true).open(data.join("postgresql.conf"));
    settings.and_then(|mut file| file.write_all(SETTINGS.as_bytes())).expect("BUG: initdb wrote that file");
    let mut single = command(&programs.join("postgres"), service_user(), "KILL");
    single.current_dir(scratch.path()).args(["--single", "-D"]).arg(data).arg("template1");
    // In this mode a statement ends with its line.
    let roles = format!(
        "CREATE ROLE {USER} LOGIN PASSWORD '{VERIFIER}'\n\
         ALTER ROLE {SUPERUSER} PASSWORD '{VERIFIER}'\n\
         ALTER DATABASE postgres RENAME TO {DATABASE}\n\
         ALTER DATABASE {DATABASE} OWNER TO {USER}\n"
    );
    run(&mut single, &roles);
}

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
autovacuum = off
jit = off
shared_buffers = 16MB
# The data may be in memory: no more log than needed.
max_wal_size = 32MB
min_wal_size = 2MB
# Inside the data directory, so that a killed server leaves nothing in /dev/shm.
dynamic_shared_memory_type = mmap
";

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to), "");
}

/// Runs a command to its end with this input.
fn run(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let fed = child.stdin.take().expect("BUG: it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let wrote = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && fed.is_ok(), "{command:?} failed:\n{wrote}");
}
