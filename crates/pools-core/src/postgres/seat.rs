//! The connection that was given back last, kept at hand: with its slot, which bb8 counts as taken, and with its place.
//!
//! ```text
//!  given back ─ nobody waits ─► seated ─ the next acquire ─► out
//!                                 └─ unseat, or the next that is given back ─► in bb8's queue, its place free
//! ```
//!
//! Who acquires and gives back in turn passes by the gate and bb8's queue, as do those who hand a connection on. All else
//! is as for any idle connection: it is counted as one, checked when it is due, and outdated when a new epoch begins.
//!
//! **Rule**: nobody waits for a place that the seat keeps. It is filled only while the gate is open, nobody waits and no
//! place is owed. Who changes that (by waiting, by taking places away) empties the seat afterwards; who fills it looks
//! afterwards whether that has changed. One of the two sees the other, since both take the seat's lock in between. Who
//! looks for idle connections or for free places empties it before.
//!
//! **Owners.** What is seated has no reference to the pool, which would then never end. **Cancel, panic**: nothing here waits.

use super::{Shared, conn::Conn, held::SlotGuard};

#[derive(Debug)]
pub(super) struct Seated {
    pub(super) conn: Box<Conn>,
    pub(super) slot: SlotGuard,
}

impl Seated {
    /// Puts it back into bb8's queue.
    pub(super) fn queue(self) {
        let Self { conn, mut slot } = self;
        slot.conn = Some(conn);
    }
}

impl Shared {
    /// What is seated, with its place; unless somebody waits, who comes first.
    pub(super) fn take_seated(&self) -> Option<Seated> {
        if self.gate.is_waited_for() {
            return None;
        }
        self.seat.lock().take()
    }

    /// Keeps it at hand, with its place; what was there goes into bb8's queue, so that the latest is always found first.
    ///
    /// # Errors
    /// It comes back when somebody waits.
    pub(super) fn seat(&self, seated: Seated) -> Result<(), Seated> {
        if self.gate.is_waited_for() {
            return Err(seated);
        }
        let before = self.seat.lock().replace(seated);
        self.dismiss(before);
        if self.gate.is_waited_for() {
            self.unseat();
        }
        Ok(())
    }

    /// Puts what is seated where idle connections are, and leaves its place.
    pub(super) fn unseat(&self) {
        let seated = self.seat.lock().take();
        self.dismiss(seated);
    }

    fn dismiss(&self, seated: Option<Seated>) {
        if let Some(seated) = seated {
            // Before its place: whoever enters next must find it.
            seated.queue();
            self.gate.leave();
        }
    }

    /// Whether one more connection could be had without waiting for somebody to give one back.
    pub(super) fn has_room(&self) -> bool {
        self.gate.inside() < self.gate.limit() || self.seat.lock().is_some()
    }
}
