//! A program of the workspace as a child process: what it prints, how it reacts to signals, how it exits.
//!
//! It starts with nothing but the variables it is given, in an empty directory of its own, so that neither a
//! developer's environment nor a file lying about can make a test pass. Dropped, it is killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::process::{Process, command, lock, spawn};
use crate::scratch::Scratch;
use crate::until::POLL;

/// What a service can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, the orchestrator's wish.
    Term,
    /// SIGINT, Ctrl-C.
    Int,
    /// SIGKILL, nobody's choice.
    Kill,
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Service {
    // Fields drop in this order: the process must be gone before its directory is.
    process: Process,
    _scratch: Scratch,
    lines: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
}

/// Starts `program` with `arguments` and, as its whole environment, `variables`.
///
/// In an integration test the program is `env!("CARGO_BIN_EXE_<name>")`. It returns at once: wait for a
/// line, or for the port to answer.
///
/// # Panics
/// When the program cannot be started.
pub fn service(program: impl AsRef<Path>, arguments: &[&str], variables: &[(&str, &str)]) -> Service {
    let program = program.as_ref();
    let scratch = Scratch::new("service");
    let mut command = command(program, None, "KILL");
    command.env_clear().envs(variables.iter().copied());
    command.args(arguments).current_dir(scratch.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let readers = [
        collect(child.stdout.take().expect("BUG: it is piped"), &lines),
        collect(child.stderr.take().expect("BUG: it is piped"), &lines),
    ];
    let process = Process::adopt(child, rustix::process::Signal::KILL);
    Service { process, _scratch: scratch, lines, readers }
}

/// Reads lines until the process closes its end.
///
/// A thread, not a task: a service that fills its pipe because a test blocks its runtime would stand still.
fn collect(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            lock(&lines).push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

impl Service {
    /// Everything printed so far, standard output and standard error in the order they were read.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// The first printed line that contains `text`.
    pub fn line_with(&self, text: &str) -> Option<String> {
        lock(&self.lines).iter().find(|line| line.contains(text)).cloned()
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Panics
    /// With everything printed, when no such line appears within `bound` or the program ends without it.
    pub async fn wait_for_line(&self, bound: Duration, text: &str) -> String {
        self.wait_for(bound, text, || self.line_with(text)).await
    }

    /// Waits for the end and returns the exit code; a program ended by signal n has 128 + n, as in a shell.
    ///
    /// # Panics
    /// With everything printed, when it still runs after `bound`.
    pub async fn wait(&self, bound: Duration) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status =
            self.wait_for(bound, "its end", || self.is_over().then(|| self.process.ended()).flatten()).await;
        status.code().unwrap_or_else(|| 128 + status.signal().expect("BUG: ended by code or by signal"))
    }

    async fn wait_for<T>(&self, bound: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + bound;
        loop {
            // Asked before the search: what is not found after this never comes.
            let over = self.is_over();
            if let Some(found) = find() {
                return found;
            }
            let lines = || self.lines().join("\n");
            assert!(!over, "the program ended without {what}; it printed:\n{}", lines());
            assert!(Instant::now() < end, "{what} did not come within {bound:?}; printed:\n{}", lines());
            sleep(POLL).await;
        }
    }

    /// Ended, and everything it printed has been read.
    fn is_over(&self) -> bool {
        self.process.ended().is_some() && self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Sends a signal; nothing when the program has ended.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Int => rustix::process::Signal::INT,
            Signal::Kill => rustix::process::Signal::KILL,
        });
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.ended().is_none()
    }

    /// The process id, for `/proc` and `ss`.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops the program in the middle of what it does (SIGSTOP).
    ///
    /// # Panics
    /// When it has ended.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets a frozen program go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }
}
