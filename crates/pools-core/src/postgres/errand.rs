//! For whom a connection is checked out, and how much time that may take.

use std::{panic::Location, time::Duration};

use tokio::time::Instant;

use crate::holders::Record;

/// What a checkout is for.
#[derive(Clone, Copy)]
pub(super) struct Errand {
    pub(super) who: Who,
    /// Since when it is waited for.
    pub(super) began: Instant,
    /// Longest time to open a connection.
    pub(super) limit: Duration,
}

/// Who wants a connection.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// The pool itself.
    Nobody,
    Caller(&'static Location<'static>),
    /// Callers of the lane, of whom the first stood there.
    Lane(&'static Location<'static>),
}

impl Who {
    /// Of somebody who holds a connection from now on.
    pub(super) fn record(self, now: Instant) -> Option<Record> {
        match self {
            Self::Nobody => None,
            Self::Caller(site) => Some(Record::new(site, now)),
            Self::Lane(site) => Some(Record::shared(site, now)),
        }
    }
}
