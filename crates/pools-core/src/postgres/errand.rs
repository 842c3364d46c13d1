//! For whom a connection is checked out, and how much time that may take.

use std::{panic::Location, time::Duration};

use tokio::time::Instant;

use crate::holders::Record;

/// What a checkout is for.
#[derive(Clone, Copy)]
pub(super) struct Errand {
    /// `None` for the pool itself.
    pub(super) caller: Option<Caller>,
    /// Since when it is waited for.
    pub(super) began: Instant,
    /// Longest time to open a connection.
    pub(super) limit: Duration,
}

/// Who wants a connection.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) site: &'static Location<'static>,
    /// It is for the lane: for many, of whom the first stood there.
    pub(super) shared: bool,
}

impl Caller {
    /// Who stands there.
    pub(super) fn at(site: &'static Location<'static>) -> Self {
        Self { site, shared: false }
    }

    /// As the holder of a connection from now on.
    pub(super) fn record(self, now: Instant) -> Record {
        if self.shared { Record::shared(self.site, now) } else { Record::new(self.site, now) }
    }
}
