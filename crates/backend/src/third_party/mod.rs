//! What the features that ask a third party have in common: how its failures are told, and whether it is up.

mod error;
mod verdict;

pub use error::ThirdPartyError;
pub use verdict::Verdict;
