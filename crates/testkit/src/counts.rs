//! What a server of the kit counts about its connections, seen from its own side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Shared counters; every test reads them while connections come and go.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    accepted: AtomicU64,
    open: AtomicUsize,
    peak_open: AtomicUsize,
}

impl Counts {
    /// Counts a connection until the answer is dropped; also says its number, from 1.
    pub(crate) fn connection(self: &Arc<Self>) -> (u64, Open) {
        let number = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak_open.fetch_max(open, Ordering::SeqCst);
        (number, Open(Arc::clone(self)))
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn peak_open(&self) -> usize {
        self.peak_open.load(Ordering::SeqCst)
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
