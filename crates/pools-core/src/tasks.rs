//! The only place that spawns: every background task has a name and an owner that shutdown waits for.
//!
//! States of a task: running → ended, panicked (logged and counted), or cut at the deadline of
//! [`Tasks::shutdown`]. A task is asked to stop through [`Tasks::stopping`]; one that does not listen is aborted
//! at the deadline and named.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Background tasks of this process that ended in a panic.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

#[derive(Debug)]
struct Inner {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    /// `None` between the entry and the spawn.
    handle: Option<AbortHandle>,
    /// Shutdown wanted to abort it in that moment.
    cut: bool,
}

/// Owner of background tasks. Clones share the same tasks.
///
/// All of them run on the runtime that was current in [`Tasks::new`]: actix gives each of its workers a runtime
/// that ends before the pools are drained, and would take along what was spawned from a handler.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Inner>);

impl Tasks {
    /// An owner without tasks, on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[expect(clippy::new_without_default, reason = "it needs a runtime, which `default` does not suggest")]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            runtime: Handle::current(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            running: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    /// Runs `task` until it ends or [`shutdown`](Self::shutdown) cuts it. A panic is logged under `name`,
    /// counted, and hurts nobody else. May be called from any thread, `Drop` included.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let key = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.running.lock().insert(key, Entry { name, handle: None, cut: false });
        let leave = Running { inner: Arc::clone(&self.0), key };
        // Without the lock: a runtime that is shutting down drops the task, and with it `leave`, in here.
        let guarded = async move {
            let _leave = leave;
            match std::panic::AssertUnwindSafe(task).catch_unwind().await {
                Ok(value) => Some(value),
                Err(_) => {
                    PANICS.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(task = name, "background task panicked");
                    None
                }
            }
        };
        let handle = self.0.tracker.spawn_on(guarded, &self.0.runtime);
        if let Some(entry) = self.0.running.lock().get_mut(&key) {
            entry.handle = Some(handle.abort_handle());
            if entry.cut {
                handle.abort();
            }
        }
        handle
    }

    /// Resolves when [`shutdown`](Self::shutdown) begins.
    pub fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.0.stop.clone().cancelled_owned()
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.0.running.lock().len()
    }

    /// Asks every task to stop, waits until `deadline`, aborts the rest and returns their names.
    ///
    /// # Cancel safety
    /// Dropped while waiting, the tasks have been asked to stop but none is aborted; call it again.
    pub async fn shutdown(&self, deadline: Instant) -> Vec<&'static str> {
        self.0.stop.cancel();
        self.0.tracker.close();
        if tokio::time::timeout_at(deadline, self.0.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let (mut names, mut handles) = (Vec::new(), Vec::new());
        for entry in self.0.running.lock().values_mut() {
            entry.cut = true;
            names.push(entry.name);
            handles.extend(entry.handle.clone());
        }
        for handle in handles {
            handle.abort();
        }
        self.0.tracker.wait().await;
        names
    }
}

struct Running {
    inner: Arc<Inner>,
    key: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_tasks_that_listen_and_cuts_and_names_the_others() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping();
        tasks.spawn("listens", stopping);
        tasks.spawn("deaf", std::future::pending::<()>());

        let cut = tasks.shutdown(Instant::now() + Duration::from_secs(1)).await;

        assert_eq!(cut, ["deaf"]);
        assert_eq!(tasks.running(), 0);
    }

    #[test]
    fn a_task_spawned_while_the_runtime_ends_does_not_hang_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = runtime.block_on(async { Tasks::new() });
        struct SpawnsWhenDropped(Tasks);
        impl Drop for SpawnsWhenDropped {
            fn drop(&mut self) {
                drop(self.0.spawn("late", std::future::pending::<()>()));
            }
        }
        let last = SpawnsWhenDropped(tasks.clone());
        runtime.block_on(async {
            tasks.spawn("early", async move {
                let _last = last;
                std::future::pending::<()>().await;
            });
            tokio::task::yield_now().await;
        });
        drop(runtime);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_the_entry_leaves() {
        let before = panics();
        let tasks = Tasks::new();
        let ended = tasks.spawn("panics", async { panic!("on purpose") }).await;
        assert_eq!(ended.expect("the panic is caught"), None::<()>);
        assert_eq!(panics(), before + 1);
        assert_eq!(tasks.running(), 0);
    }
}
