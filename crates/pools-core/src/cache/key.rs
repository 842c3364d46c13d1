//! Names of cached values.

use std::{fmt, fmt::Write as _, sync::Arc};

/// One kind of value: the first part of its keys, its label in metrics, and the version of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: &'static str,
    version: u32,
}

impl Namespace {
    /// `name` begins the key and is the metrics' label. Raise `version` when the type changes: values of another
    /// version count as absent.
    pub const fn new(name: &'static str, version: u32) -> Self {
        Self { name, version }
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The version, which stands in the stored value, not in its key.
    pub fn version(self) -> u32 {
        self.version
    }
}

/// The name of one value, such as `tx_history:mainnet:0x…`.
///
/// ```
/// use pools_core::cache::{CacheKey, Namespace};
/// const HISTORY: Namespace = Namespace::new("tx_history", 1);
/// let key = CacheKey::new(HISTORY).part("mainnet").address("0xAB");
/// assert_eq!(key.as_str(), "tx_history:mainnet:0xab");
/// assert_ne!(CacheKey::new(HISTORY).part("a:b"), CacheKey::new(HISTORY).part("a").part("b"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    namespace: Namespace,
    text: Arc<str>,
}

impl CacheKey {
    /// The key of a namespace with a single value; add parts for more.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, text: namespace.name.into() }
    }

    /// Adds a part as it is. Bytes that could make two keys one (`:`, blanks, `%`) are percent-encoded.
    #[must_use]
    pub fn part(self, part: impl fmt::Display) -> Self {
        self.with(&part.to_string())
    }

    /// Adds an address in lower case: all its spellings are one value.
    #[must_use]
    pub fn address(self, address: impl fmt::Display) -> Self {
        self.with(&address.to_string().to_ascii_lowercase())
    }

    fn with(self, part: &str) -> Self {
        let mut text = format!("{}:", self.text);
        for byte in part.bytes() {
            match byte {
                b':' | b'%' | 0..=b' ' | 0x7f.. => {
                    // Writing to a String cannot fail.
                    let _written = write!(text, "%{byte:02X}");
                }
                _ => text.push(char::from(byte)),
            }
        }
        Self { text: text.into(), ..self }
    }

    /// The key in Redis.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its namespace.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}
