//! Texts, words, addresses, secrets.

use std::net::{IpAddr, SocketAddr};

use secrecy::SecretString;

use super::Kind;

/// Any text with a default; see [`text`].
#[derive(Debug)]
pub struct Text {
    variable: &'static str,
    unit: &'static str,
    default: &'static str,
}

/// Any non-empty text.
pub const fn text(variable: &'static str, unit: &'static str, default: &'static str) -> Text {
    Text { variable, unit, default }
}

impl Kind for Text {
    type Value = String;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> String {
        self.default.to_owned()
    }

    fn parse(&self, text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn default_text(&self) -> String {
        self.default.to_owned()
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn range(&self) -> String {
        "a non-empty text".to_owned()
    }
}

/// One of a few words; see [`choice`].
#[derive(Debug)]
pub struct Choice {
    variable: &'static str,
    default: &'static str,
    words: &'static [&'static str],
}

/// One of `words`.
pub const fn choice(variable: &'static str, default: &'static str, words: &'static [&'static str]) -> Choice {
    Choice { variable, default, words }
}

impl Kind for Choice {
    type Value = &'static str;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> &'static str {
        self.default
    }

    fn parse(&self, text: &str) -> Option<&'static str> {
        self.words.iter().copied().find(|word| *word == text)
    }

    fn default_text(&self) -> String {
        self.default.to_owned()
    }

    fn unit(&self) -> &'static str {
        "word"
    }

    fn range(&self) -> String {
        format!("one of {}", self.words.join(", "))
    }
}

/// Addresses of servers, maybe none; see [`addresses`].
#[derive(Debug)]
pub struct Addresses {
    variable: &'static str,
    port: u16,
}

/// IP addresses separated by commas, each with a port (`[::1]:53`) or with this one. Absent or empty means none.
pub const fn addresses(variable: &'static str, port: u16) -> Addresses {
    Addresses { variable, port }
}

impl Kind for Addresses {
    type Value = Vec<SocketAddr>;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn parse(&self, text: &str) -> Option<Vec<SocketAddr>> {
        let with_port = |ip: IpAddr| SocketAddr::new(ip, self.port);
        let address = |text: &str| text.parse().ok().or_else(|| text.parse().ok().map(with_port));
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(address).collect()
    }

    fn default_text(&self) -> String {
        String::new()
    }

    fn unit(&self) -> &'static str {
        "addresses"
    }

    fn range(&self) -> String {
        format!("IP addresses with or without a port ({}), separated by commas", self.port)
    }
}

/// A text that may be absent; see [`optional_text`].
#[derive(Debug)]
pub struct OptionalText {
    variable: &'static str,
    unit: &'static str,
}

/// A text without a default: absent or empty means none.
pub const fn optional_text(variable: &'static str, unit: &'static str) -> OptionalText {
    OptionalText { variable, unit }
}

/// A secret that may be absent; see [`optional_secret`].
#[derive(Debug)]
pub struct OptionalSecret(OptionalText);

/// A secret without a default: never printed, and readable from the file that `VARIABLE_FILE` names.
pub const fn optional_secret(variable: &'static str, unit: &'static str) -> OptionalSecret {
    OptionalSecret(optional_text(variable, unit))
}

macro_rules! optional_kind {
    ($kind:ty, $value:ty, $inner:ident => $text:expr, $secret:literal) => {
        impl Kind for $kind {
            type Value = Option<$value>;

            fn variable(&self) -> &'static str {
                let $inner = self;
                $text.variable
            }

            fn default(&self) -> Option<$value> {
                None
            }

            fn parse(&self, text: &str) -> Option<Option<$value>> {
                Some((!text.is_empty()).then(|| text.into()))
            }

            fn default_text(&self) -> String {
                String::new()
            }

            fn unit(&self) -> &'static str {
                let $inner = self;
                $text.unit
            }

            fn range(&self) -> String {
                "any text".to_owned()
            }

            fn secret(&self) -> bool {
                $secret
            }
        }
    };
}

optional_kind!(OptionalText, String, this => this, false);
optional_kind!(OptionalSecret, SecretString, this => this.0, true);

/// A secret with a default, such as a URL that may hold a key; see [`secret_with_default`].
#[derive(Debug)]
pub struct SecretWithDefault(Text);

/// A secret that has a harmless default: printed never, readable from the file that `VARIABLE_FILE` names.
pub const fn secret_with_default(
    variable: &'static str,
    unit: &'static str,
    default: &'static str,
) -> SecretWithDefault {
    SecretWithDefault(text(variable, unit, default))
}

impl Kind for SecretWithDefault {
    type Value = SecretString;

    fn variable(&self) -> &'static str {
        self.0.variable
    }

    fn default(&self) -> SecretString {
        self.0.default.into()
    }

    fn parse(&self, text: &str) -> Option<SecretString> {
        (!text.is_empty()).then(|| text.into())
    }

    fn default_text(&self) -> String {
        self.0.default_text()
    }

    fn unit(&self) -> &'static str {
        self.0.unit
    }

    fn range(&self) -> String {
        self.0.range()
    }

    fn secret(&self) -> bool {
        true
    }
}
