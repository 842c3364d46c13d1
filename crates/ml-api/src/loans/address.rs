//! Wallet addresses: 0x and 40 hex digits, with a right checksum where there is one.

use sha3::{Digest, Keccak256};

/// An address in lower case, so that all spellings of a wallet are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Accepts all-lower, all-upper, and mixed case with a right EIP-55 checksum.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x")?;
        if digits.len() != 40 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let lower = digits.to_ascii_lowercase();
        let one_case = digits == lower || digits == digits.to_ascii_uppercase();
        (one_case || digits == checksummed(&lower)).then(|| Self(format!("0x{lower}")))
    }

    /// The address as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// EIP-55: a letter is a capital where the hash of the lower-case digits has a nibble of 8 or more.
fn checksummed(lower: &str) -> String {
    let hash = Keccak256::digest(lower);
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
    let digits = lower.chars().zip(nibbles);
    digits.map(|(digit, nibble)| if nibble >= 8 { digit.to_ascii_uppercase() } else { digit }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From EIP-55 itself.
    const RIGHT: [&str; 4] = [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn every_accepted_spelling_of_a_wallet_is_one_address() {
        for mixed in RIGHT {
            let lower = mixed.to_ascii_lowercase();
            let upper = format!("0x{}", mixed[2..].to_ascii_uppercase());
            let expected = Some(Address(lower.clone()));
            assert_eq!(Address::parse(mixed), expected, "{mixed}");
            assert_eq!(Address::parse(&lower), expected);
            assert_eq!(Address::parse(&upper), expected);
        }
    }

    #[test]
    fn a_wrong_checksum_length_prefix_or_digit_is_refused() {
        let wrong = [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae",
            "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "0X5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaeg",
            "",
        ];
        for text in wrong {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
