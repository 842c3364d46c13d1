//! The market as a whole: every loan of the contract, read at one block.
//!
//! A loan is *paid out* once lenders have filled it: running, repaid or defaulted. Volume, average rate and default rate
//! speak of those; the collateral is what the contract holds now, for running loans and for open requests.
//!
//! A token whose price the contract does not give is in no sum: `unpriced` names it and says why. One loan that cannot be
//! read fails the whole: a part of the market is not the market.
//!
//! **Cancel safety**: a caller may go at any point; a scan that others wait for is done by one of them.

pub mod model;
pub mod routes;
pub mod service;
