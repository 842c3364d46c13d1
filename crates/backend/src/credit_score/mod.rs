//! A credit score from 300 to 850, from what is known of a wallet.
//!
//! ```text
//!  wallet::analyse ─► four parts, 0..1 each ─► weights of those that are there, scaled to 100 % ─► score
//! ```
//!
//! A score of which no part failed is cached for `CREDIT_SCORE_TTL` under one key per wallet and network, however the address is
//! written. One that lacks a part because something failed is good for one answer: the next looks again. A part
//! whose source is not configured is missing for good, and does not keep the score out of the cache.
//!
//! **Batch**: a few wallets at a time, in order, until one deadline for all; what is not done by then says so.
//!
//! **Cancel safety**: a caller may go at any point.

pub mod model;
pub mod routes;
pub mod service;
