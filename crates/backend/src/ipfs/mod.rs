//! Documents on IPFS, pinned by Pinata through the HTTP pool.
//!
//! ```text
//!  browser ──form──► incoming ──pieces──► service ──checked──► client ──form──► Pinata
//!                     32 KiB               inspects             one piece in a channel
//! ```
//!
//! * `model.rs` knows what a document is, how content ids look and how the outgoing form is framed; `incoming.rs` reads the
//!   browser's form; `service.rs` moves pieces from one to the other while it inspects them; `answers.rs` is what Pinata says.
//! * A document is never held whole, in memory or on disk: what has been read and not sent is at most a few pieces, and a
//!   browser is read no faster than Pinata reads.
//!
//! **Cancel, time-out, panic**: whatever ends the work before the last byte ends the upstream request in the middle of its
//! body, whose length was told beforehand, so that Pinata can never take half a document for a whole one. **Shutdown**:
//! uploads are requests, which shutdown waits for. **Not here**: retries of an upload, since its bytes are gone.

mod answers;
pub mod client;
pub mod error;
mod incoming;
pub mod model;
pub mod routes;
pub mod service;
