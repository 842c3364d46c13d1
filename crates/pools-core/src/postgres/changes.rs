//! Somebody waits for connections to come back: a pause or a drain. Nearly always nobody does, and then a return
//! costs no more than a look.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, futures::Notified};

/// A connection became idle or ceased to exist.
#[derive(Debug, Default)]
pub(super) struct Changes {
    happened: Notify,
    watched: AtomicBool,
}

impl Changes {
    /// After the change itself: whoever does not see it yet is told.
    pub(super) fn tell(&self) {
        if self.watched.load(Ordering::SeqCst) {
            self.happened.notify_waiters();
        }
    }

    /// Before looking at what may change. From then on no change is missed, once the future is enabled.
    pub(super) fn watch(&self) -> Notified<'_> {
        self.watched.store(true, Ordering::SeqCst);
        self.happened.notified()
    }
}
