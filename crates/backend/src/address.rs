//! A wallet's address, whichever way it was written.

use std::fmt;

use pools_core::{
    chain::{Address, checksummed, parse_address},
    web::Problem,
};

/// The rule, for those who broke it.
const RULE: &str = "an address is 0x and 40 hex digits; in mixed case its EIP-55 checksum must be right";

/// An account's address: all accepted spellings are one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalletAddress(Address);

impl WalletAddress {
    /// All-lower, all-upper, or mixed case with a right checksum.
    pub fn parse(text: &str) -> Option<Self> {
        parse_address(text).map(Self)
    }

    /// The address of a path.
    ///
    /// # Errors
    /// 400.
    pub fn in_path(text: &str) -> Result<Self, Problem> {
        Self::parse(text).ok_or_else(|| Problem::bad_request(RULE).field("address"))
    }

    /// The address in a field of a body.
    ///
    /// # Errors
    /// 422.
    pub fn in_field(text: &str, field: impl Into<String>) -> Result<Self, Problem> {
        Self::parse(text).ok_or_else(|| Problem::invalid_field(field, RULE))
    }

    /// Its bytes.
    pub fn get(self) -> Address {
        self.0
    }

    /// As it stands in cache keys and upstream queries.
    pub fn lower(self) -> String {
        format!("{:?}", self.0)
    }
}

impl fmt::Display for WalletAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&checksummed(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

    #[test]
    fn every_accepted_spelling_is_one_address() {
        let upper = format!("0x{}", CHECKED[2..].to_uppercase());
        let all = [CHECKED, &CHECKED.to_lowercase(), &upper].map(|text| WalletAddress::parse(text).unwrap());
        assert!(all.iter().all(|address| *address == all[0]));
        assert_eq!((all[0].to_string(), all[0].lower()), (CHECKED.to_owned(), CHECKED.to_lowercase()));
    }

    #[test]
    fn a_wrong_checksum_and_anything_else_are_refused() {
        let wrong = CHECKED.replace("Fd", "fD");
        let long = format!("{CHECKED}0");
        for text in [
            &wrong,
            "",
            "0x",
            &CHECKED[2..],
            &CHECKED[..41],
            &long,
            "0Xf39fd6e51aad88f6f4ce6ab8827279cfffb92266",
        ] {
            assert_eq!(WalletAddress::parse(text), None, "{text}");
        }
    }
}
