//! The matching book: who wants to borrow, who wants to lend, and who found whom.
//!
//! ```text
//!            PUT                     POST /matches (both sides in one transaction)
//!  absent ─────────► open for 24 h ───────────────────────────────────────────────► matched, for good
//!    ▲                 │  ▲                                                          DELETE, PUT: 409
//!    └──── DELETE ─────┘  └── PUT: terms replaced, 24 h from now
//! ```
//!
//! An expired side is in no list and in no match; a PUT opens it again. For an hour whoever wants to match it is told that
//! it has expired, then a job removes it. Who fits whom is proposed by the caller, but
//! checked here: terms may have changed since they were read.
//!
//! **Once.** A match locks the request, then the offer, always in this order, so that no two matches wait for each
//! other. Whoever comes second finds the side matched. The table's unique columns would refuse what slips through.
//!
//! # Cancel safety
//! A match whose caller goes away is rolled back, or was committed and stays. Repeating it with the same `matchId`
//! answers with the match that was made; everything else is one statement and may be repeated as it is.
//!
//! # What it does not do
//! It computes no rates and looks for no pairs.

pub mod model;
pub mod routes;
pub mod service;
pub mod store;

mod error;

pub use error::{MatchingError, Refusal, Side};
pub use model::{BookId, LendingOffer, LoanRequest, MatchOrder};
pub use service::MatchingService;
