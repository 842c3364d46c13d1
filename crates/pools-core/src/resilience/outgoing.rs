//! The moment at which an incoming request first does something outside of its process.
//!
//! Before it, a handler has looked at nothing but the request itself: media type, size, syntax, fields, authorisation. Some
//! answers must not depend on anything beyond that, and some requests may do nothing beyond it: a caller over its rate limit is
//! still told what is wrong with the request, and costs no upstream anything. So every pool and the cache call [`begin`]
//! before they do something for a caller, and [`up_to_first_call`] runs a handler no further.
//!
//! **Cancel safety**: the held-back work is dropped at the point where it began its first call, of which nothing has happened.

use std::sync::Arc;

use tokio::sync::Notify;

tokio::task_local! {
    static HELD_BACK: Arc<Notify>;
}

/// An outgoing call begins. Inside of [`up_to_first_call`] this never returns.
pub async fn begin() {
    if let Ok(held) = HELD_BACK.try_with(Arc::clone) {
        held.notify_one();
        std::future::pending::<()>().await;
    }
}

/// Whether the current task may do nothing outside of the process; for what acts without a pool.
pub fn is_held_back() -> bool {
    HELD_BACK.try_with(|_| ()).is_ok()
}

/// Runs `work` until it ends or begins an outgoing call, where it is dropped and `None` returned.
pub async fn up_to_first_call<F: Future>(work: F) -> Option<F::Output> {
    let called = Arc::new(Notify::new());
    let work = HELD_BACK.scope(Arc::clone(&called), work);
    tokio::select! {
        biased;
        output = work => Some(output),
        () = called.notified() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn held_back_work_ends_where_its_first_call_begins() {
        let reached = std::cell::Cell::new(0);
        let work = async {
            tokio::task::yield_now().await;
            reached.set(1);
            begin().await;
            reached.set(2);
        };
        assert!(up_to_first_call(work).await.is_none());
        assert_eq!(reached.get(), 1);
        assert_eq!(up_to_first_call(async { is_held_back() }).await, Some(true));
        begin().await;
        assert!(!is_held_back());
    }
}
