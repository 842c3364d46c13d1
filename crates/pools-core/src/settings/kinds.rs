//! The kinds of values that a setting may have.

use std::{ops::RangeInclusive, time::Duration};

use secrecy::SecretString;

use super::Row;

/// How a setting's text becomes a value.
pub trait Kind {
    /// The type of the field.
    type Value;
    /// Environment variable.
    fn variable(&self) -> &'static str;
    /// Value when nothing is given.
    fn default(&self) -> Self::Value;
    /// The value, or `None` when the text is not accepted.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// Default as text; empty for none.
    fn default_text(&self) -> String;
    /// Unit, for people.
    fn unit(&self) -> &'static str;
    /// What is accepted, for people.
    fn range(&self) -> String;
    /// Whether the value must not be printed.
    fn secret(&self) -> bool {
        false
    }
    /// Everything about the setting, with its documentation.
    fn row(&self, doc: &str) -> Row {
        Row {
            variable: self.variable(),
            doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
            default: self.default_text(),
            unit: self.unit(),
            range: self.range(),
            secret: self.secret(),
        }
    }
}

/// A whole number; see [`count`].
#[derive(Debug)]
pub struct Count {
    variable: &'static str,
    unit: &'static str,
    default: u32,
    range: RangeInclusive<u32>,
}

/// A whole number of `unit`.
pub const fn count(
    variable: &'static str,
    unit: &'static str,
    default: u32,
    range: RangeInclusive<u32>,
) -> Count {
    Count { variable, unit, default, range }
}

impl Kind for Count {
    type Value = u32;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> u32 {
        self.default
    }

    fn parse(&self, text: &str) -> Option<u32> {
        text.parse().ok().filter(|number| self.range.contains(number))
    }

    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn range(&self) -> String {
        format!("{}..={}", self.range.start(), self.range.end())
    }
}

/// A TCP port to listen on; see [`port`].
#[derive(Debug)]
pub struct Port {
    variable: &'static str,
    default: u16,
}

/// A TCP port, 1 to 65535: a random one (0) would be of no use to callers.
pub const fn port(variable: &'static str, default: u16) -> Port {
    Port { variable, default }
}

impl Kind for Port {
    type Value = u16;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> u16 {
        self.default
    }

    fn parse(&self, text: &str) -> Option<u16> {
        text.parse().ok().filter(|port| *port > 0)
    }

    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn unit(&self) -> &'static str {
        "port"
    }

    fn range(&self) -> String {
        "1..=65535".to_owned()
    }
}

/// A duration written in milliseconds; see [`millis`].
#[derive(Debug)]
pub struct Millis(Count);

/// A duration written as a whole number of milliseconds.
pub const fn millis(variable: &'static str, default: u32, range: RangeInclusive<u32>) -> Millis {
    Millis(count(variable, "ms", default, range))
}

/// A duration written in seconds; see [`seconds`].
#[derive(Debug)]
pub struct Seconds(Count);

/// A duration written as seconds; a fraction is accepted.
pub const fn seconds(variable: &'static str, default: u32, range: RangeInclusive<u32>) -> Seconds {
    Seconds(count(variable, "s", default, range))
}

macro_rules! duration_kind {
    ($kind:ident, $from:expr, $parse:expr) => {
        impl Kind for $kind {
            type Value = Duration;

            fn variable(&self) -> &'static str {
                self.0.variable
            }

            fn default(&self) -> Duration {
                $from(u64::from(self.0.default))
            }

            fn parse(&self, text: &str) -> Option<Duration> {
                let value: Duration = $parse(text)?;
                let (start, end) = (u64::from(*self.0.range.start()), u64::from(*self.0.range.end()));
                ($from(start)..=$from(end)).contains(&value).then_some(value)
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
        }
    };
}

duration_kind!(Millis, Duration::from_millis, |text: &str| text.parse().ok().map(Duration::from_millis));
duration_kind!(Seconds, Duration::from_secs, |text: &str| {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
});

/// A switch; see [`flag`].
#[derive(Debug)]
pub struct Flag {
    variable: &'static str,
    default: bool,
}

/// `true`/`on`/`1` or `false`/`off`/`0`.
pub const fn flag(variable: &'static str, default: bool) -> Flag {
    Flag { variable, default }
}

impl Kind for Flag {
    type Value = bool;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> bool {
        self.default
    }

    fn parse(&self, text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Some(true),
            "false" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn unit(&self) -> &'static str {
        "switch"
    }

    fn range(&self) -> String {
        "true, on, 1, false, off or 0".to_owned()
    }
}

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
