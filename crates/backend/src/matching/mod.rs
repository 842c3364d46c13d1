//! Borrowers and lenders find each other: rates, and pairs out of ml-api's matching book.
//!
//! ```text
//!  loan-request ──PUT──► book (ml-api, Postgres) ──GET──► open requests and offers ──pairs──► POST /matches, once each
//!  lending-offer ─┘                                          ▲                                     │ 409: somebody
//!                                                            └──────────── look again ◄────────────┘ was faster
//! ```
//!
//! **Pairs.** Requests take their turn by ascending risk. Each takes the offer of its token, with enough amount and its
//! duration within the bounds, that gives it the lowest rate both accept; of equals the oldest. The rate agreed on is that of
//! the formula, moved into what both accept. ml-api checks each pair again and matches both sides in one transaction.
//!
//! **Once.** The id of a match follows from its two sides, so that a repeated order is answered with the match it made.
//!
//! **Recommendations.** `marketRate` is the formula's. `optimalRate` is the lowest at which an open offer would take the loan now, below
//! `maxRate`; without one, the formula's. `waitTime` is 0 with such an offer, else null: nobody knows.
//!
//! **Without ml-api** or its database every route here answers 503: rates depend on supply and demand.
//!
//! **Cancel safety**: a caller who goes away after its order was recorded leaves it open; the next order pairs it.

pub mod client;
pub mod error;
pub mod model;
pub mod routes;
pub mod service;
