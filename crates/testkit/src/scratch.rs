//! Where a test process keeps its servers' files, and who removes them.
//!
//! Each test process has one directory under `/dev/shm` or the temporary directory, with one folder per server
//! in it. A folder goes when its server is dropped, and the directory with its last folder. If the process
//! is killed instead, its *guardian* cleans up: a shell in a session of its own that does nothing but wait
//! for the end of a pipe which the kernel closes with the process, then ends whoever still works below the
//! directory and removes it.
//!
//! What is worth keeping between runs (a Postgres template, an installed anvil) lives in [`cache_dir`],
//! inside cargo's target directory, so that `cargo clean` removes it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use crate::process::{lock, spawn};

/// Waits for the end of its input, then ends what works below `$1` and removes it.
///
/// SIGQUIT before SIGKILL: a Postgres ended by the former also gives back its shared memory segment.
const GUARDIAN: &str = r#"
read -r _
[ -d "$1" ] || exit 0
rmdir "$1" 2>/dev/null && exit 0
below() {
    for process in /proc/[0-9]*; do
        case "$(readlink "$process/cwd" 2>/dev/null)" in "$1"/*) echo "${process#/proc/}" ;; esac
    done
}
round=0
while pids=$(below "$1") && [ -n "$pids" ] && [ "$round" -lt 30 ]; do
    kill -QUIT $pids 2>/dev/null
    kill -CONT $pids 2>/dev/null
    sleep 0.1
    round=$((round + 1))
done
[ -z "$pids" ] || kill -KILL $pids 2>/dev/null
rm -rf "$1"
"#;

/// Memory where there is plenty, else the temporary directory.
///
/// A Postgres is a thousand small files. Copying them takes 40 ms in memory and on a warm disk, but up to 1 s
/// on ext4 whenever it opens a new block group for them.
fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if room >= PLENTY { memory.to_owned() } else { std::env::temp_dir() }
}

/// Some dozens of servers at 30 MB and more; a container's usual 64 MB are not enough for two.
const PLENTY: u64 = 2 << 30;

struct Root {
    path: PathBuf,
    /// Holds the pipe's writing end, which is all the guardian is told by.
    _guardian: Child,
}

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let root = tempfile::Builder::new().prefix("testkit-").tempdir_in(base());
    let path = root.expect("the temporary directory cannot be written to").keep();
    // Postgres runs as another user when the tests run as root, and must be able to walk through.
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("BUG: the directory is ours");
    let mut guardian = Command::new("setsid");
    guardian.args(["sh", "-c", GUARDIAN, "testkit-guardian"]).arg(&path).current_dir("/");
    guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let guardian = spawn(guardian).expect("setsid (util-linux) is needed to clean up after killed tests");
    Root { path, _guardian: guardian }
});

/// Guards the root directory: made with its first folder, removed with its last.
static FOLDERS: Mutex<()> = Mutex::new(());
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A server's own folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(kind: &str) -> Self {
        let path = ROOT.path.join(format!("{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let _guard = lock(&FOLDERS);
        fs::create_dir_all(&path).expect("the temporary directory cannot be written to");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file for a server's output.
    pub(crate) fn log(&self) -> File {
        File::options().create(true).append(true).open(self.log_path()).expect("BUG: the folder is ours")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The last lines a server wrote, for the message of a failed start.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _guard = lock(&FOLDERS);
        // A test that already unwinds must not abort on this; the guardian tries again at the end.
        if fs::remove_dir_all(&self.0).is_ok() {
            // Refused while other servers of this process have folders there.
            drop(fs::remove_dir(&ROOT.path));
        }
    }
}

/// What outlives a test run: `target/testkit`, or a directory of this user's when the tests run elsewhere.
pub(crate) fn cache_dir() -> PathBuf {
    let program = std::env::current_exe().expect("BUG: Linux knows the running program");
    // Cargo marks its target directory by this file.
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let cache = target.map_or_else(
        || std::env::temp_dir().join(format!("testkit-cache-{}", rustix::process::getuid().as_raw())),
        |target| target.join("testkit"),
    );
    fs::create_dir_all(&cache).expect("the target directory cannot be written to");
    cache
}

/// Makes `path` once on this machine: `make` runs under a file lock, and only when `path` is not there.
///
/// `make` must let `path` appear complete (by a rename), since readers do not take the lock.
pub(crate) fn made_once(path: &Path, make: impl FnOnce()) {
    if path.exists() {
        return;
    }
    let lock = File::create(beside(path, ".lock")).expect("the target directory cannot be written to");
    lock.lock().expect("the target directory's file system cannot lock files");
    if !path.exists() {
        make();
    }
    assert!(path.exists(), "{} was not made", path.display());
}

/// The path with something appended to its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

/// The first executable of this name in `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}
