//! The liquidation bot: every ten seconds it reads every loan of the contract and liquidates the ones that are
//! overdue or under-collateralised.
//!
//! ```text
//!  idle ──tick, or POST /check──► reading at one block ──► judging ──► paying, one loan after the other ──► idle
//!   ▲ start                          │ node away: the scan ends, the next one tries again
//!   │ stop ──► stopped               └ one loan fails: it is reported, the others go on
//! ```
//!
//! **Owner**: one job of the service's tasks; scans hold a lock and never overlap. **A loan is never paid twice**: the
//! contract takes it once, and a transaction whose end is unknown keeps its loan out of later scans until its
//! receipt is found. **Shutdown**: between two loans the job looks whether it is to stop; a payment under way ends
//! first. **Not here**: several replicas; run one with a key.

pub mod client;
pub mod model;
pub mod routes;
pub mod scan;
pub mod service;
