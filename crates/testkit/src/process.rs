//! One child process that cannot outlive its test.
//!
//! ```text
//! spawned ──► running ◄──thaw/freeze──► stopped (SIGSTOP, with its whole tree)
//!                │ end, drop, or it dies by itself
//!                └──► reaped
//! ```
//!
//! Three nets, each for a case the one before it misses: `Drop` ends the process (a panicking test unwinds
//! through it); the kernel's parent-death signal, set by `setpriv`, ends it when the test process is killed;
//! the guardian of [`crate::scratch`] ends what neither reached, such as the stopped children of a frozen
//! server.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::scratch::{Scratch, on_path};

/// How often a blocking wait looks again.
const POLL: Duration = Duration::from_millis(1);
/// How long a signalled tree may take to be seen stopped; the kernel needs microseconds.
const STOP_BOUND: Duration = Duration::from_secs(2);
/// A start takes 0.1 s or less; a loaded machine may take many times that.
const START_BOUND: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts every child.
///
/// The parent-death signal fires when the *thread* that made the child ends, not the process. A test's
/// thread ends before the statics do and a blocking thread of tokio ends after ten idle seconds, so one
/// thread that never ends does all the starting.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("testkit-spawner".into())
        .spawn(move || queue.into_iter().for_each(|job| job()))
        .expect("the system has no thread left for testkit");
    Mutex::new(jobs)
});

/// Locks, also after a panic elsewhere: clean-up must go on while a test unwinds.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command that gets `SIGKILL` when the spawning process dies, run as `user` where one is named.
///
/// Its environment is empty but for `PATH` and a fixed locale, so that a developer's own settings
/// (`PGHOST`, `REDISCLI_AUTH`, proxies) cannot leak into a test.
pub(crate) fn command(program: &std::path::Path, user: Option<&str>, death: &str) -> Command {
    // By its full path: the child's own PATH, which may be empty, would be searched otherwise.
    let mut command = Command::new(on_path("setpriv").expect("setpriv (util-linux) is needed"));
    if let Some(user) = user {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
    }
    command.args(["--pdeathsig", death, "--"]).arg(program);
    command.env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Starts a command on the spawner thread.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    let (answer, started) = mpsc::channel();
    let job: Job = Box::new(move || {
        // The receiver waits below; it can only be gone if its thread was, and then nobody wants the child.
        if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
            drop(orphan.kill().and_then(|()| orphan.wait()));
        }
    });
    lock(&SPAWNER).send(job).expect("BUG: the spawner thread never ends");
    started.recv().expect("BUG: the spawner answers every job")
}

/// A running child and, for freezing, its descendants.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    /// Signals are sent under this lock: a reaped pid may belong to somebody else already.
    child: Mutex<Child>,
    /// What `Drop` sends first; `SIGKILL` follows when that does not help.
    last_signal: Signal,
}

impl Process {
    pub(crate) fn start(command: Command, last_signal: Signal) -> io::Result<Self> {
        Ok(Self::adopt(spawn(command)?, last_signal))
    }

    pub(crate) fn adopt(child: Child, last_signal: Signal) -> Self {
        Self { pid: Pid::from_child(&child), child: Mutex::new(child), last_signal }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().expect("BUG: our own child can be waited for")
    }

    /// Sends a signal; false when the process has ended already.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let mut child = lock(&self.child);
        let alive = child.try_wait().expect("BUG: our own child can be waited for").is_none();
        alive && rustix::process::kill_process(self.pid, signal).is_ok()
    }

    /// Stops the process and all its descendants, and waits until the kernel says they are.
    ///
    /// The parent goes first: stopped, it cannot make a child that the walk below would miss.
    pub(crate) fn freeze(&self) {
        assert!(self.signal(Signal::STOP), "process {} has ended and cannot be frozen", self.pid());
        let stopped = poll(STOP_BOUND, || {
            let mut moving = tree(self.pid());
            moving.retain(|member| !member.at_rest());
            moving.iter().for_each(|member| member.signal(Signal::STOP));
            moving.is_empty().then_some(())
        });
        stopped.expect("SIGSTOP did not stop a process");
    }

    /// Lets a frozen tree go on, children first: they must be awake when the parent asks something of them.
    pub(crate) fn thaw(&self) {
        let mut members = tree(self.pid());
        members.reverse();
        members.iter().for_each(|member| member.signal(Signal::CONT));
    }

    /// Waits for the end, at most `bound`.
    pub(crate) fn wait(&self, bound: Duration) -> Option<ExitStatus> {
        poll(bound, || self.ended())
    }

    /// Ends the process: `signal`, then `SIGKILL` for it and its descendants if it is still there after `grace`.
    pub(crate) fn end(&self, signal: Signal, grace: Duration) -> ExitStatus {
        if self.signal(signal) {
            self.thaw();
        }
        if let Some(status) = self.wait(grace) {
            return status;
        }
        self.kill()
    }

    /// `SIGKILL` for the process and its descendants. The children of one that is frozen cannot be missed.
    fn kill(&self) -> ExitStatus {
        let members = tree(self.pid());
        members.iter().for_each(|member| member.signal(Signal::KILL));
        let bound = Duration::from_secs(10);
        let gone = poll(bound, || members.iter().all(Member::is_over).then_some(()));
        gone.expect("SIGKILL did not end a process within 10 s");
        self.wait(bound).expect("SIGKILL did not end a process within 10 s")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.last_signal, Duration::from_secs(5));
    }
}

/// A server that a test may stop and start again.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Option<Process>>);

impl Slot {
    /// Puts what `start` makes in the slot, unless something runs there.
    pub(crate) fn start(&self, start: impl FnOnce() -> Process) {
        let mut slot = lock(&self.0);
        if slot.is_none() {
            *slot = Some(start());
        }
    }

    /// Ends the process and waits for it; nothing when the slot is empty.
    pub(crate) fn stop(&self, signal: Signal) {
        if let Some(process) = lock(&self.0).take() {
            process.end(signal, Duration::from_secs(20));
        }
    }

    /// Ends the process and its descendants without a chance to react; nothing when the slot is empty.
    pub(crate) fn kill(&self) {
        if let Some(process) = lock(&self.0).take() {
            process.freeze();
            process.kill();
        }
    }

    pub(crate) fn freeze(&self) {
        lock(&self.0).as_ref().expect("a stopped server cannot be frozen").freeze();
    }

    pub(crate) fn thaw(&self) {
        lock(&self.0).as_ref().expect("a stopped server cannot be thawed").thaw();
    }
}

/// Runs blocking work off the test's thread; a paused tokio clock stands still meanwhile.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Waits until a started server is `ready`.
///
/// # Panics
/// With the tail of its log, when it ends instead or takes longer than any machine needs.
pub(crate) fn wait_until_ready(process: &Process, scratch: &Scratch, ready: impl Fn() -> bool) {
    let is_up = poll(START_BOUND, || match process.ended() {
        Some(_) => Some(false),
        None => ready().then_some(true),
    });
    assert_eq!(is_up, Some(true), "a server did not start:\n{}", scratch.log_tail());
}

/// Looks until there is something or `bound` is over, blocking its thread.
///
/// On real time and without the runtime: it also runs in `Drop`, and a server's start takes no less because
/// the test has paused tokio's clock.
#[expect(clippy::disallowed_methods, reason = "see above; asynchronous callers go through `blocking`")]
fn poll<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = std::time::Instant::now();
    loop {
        let found = look();
        if found.is_some() || started.elapsed() >= bound {
            return found;
        }
        std::thread::sleep(POLL);
    }
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, Copy)]
struct Member {
    pid: u32,
    parent: u32,
    state: char,
}

impl Member {
    /// Stopped by a signal or a tracer, or dead and waiting to be reaped.
    fn at_rest(&self) -> bool {
        matches!(self.state, 'T' | 't' | 'Z' | 'X')
    }

    /// Gone, or dead and waiting to be reaped.
    fn is_over(&self) -> bool {
        Self::read(self.pid).is_none_or(|now| matches!(now.state, 'Z' | 'X'))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // A descendant may end between the walk and the signal; that is what was wanted, or harmless.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name) state parent …": the name may hold blanks and brackets, so count from its last bracket.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        Some(Self { pid, state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
    }
}

/// The process and its descendants, parents before their children.
fn tree(root: u32) -> Vec<Member> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let everyone: Vec<Member> =
        pids.filter_map(|entry| Member::read(entry.file_name().to_str()?.parse().ok()?)).collect();
    let mut found: Vec<Member> = everyone.iter().filter(|member| member.pid == root).copied().collect();
    let mut known: HashSet<u32> = HashSet::from([root]);
    loop {
        let next: Vec<Member> = everyone
            .iter()
            .filter(|member| known.contains(&member.parent) && !known.contains(&member.pid))
            .copied()
            .collect();
        if next.is_empty() {
            return found;
        }
        known.extend(next.iter().map(|member| member.pid));
        found.extend(next);
    }
}
