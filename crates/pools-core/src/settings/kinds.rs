//! The kinds of values that a setting may have.

mod numbers;
mod texts;

pub use numbers::{Count, Flag, Millis, Port, Seconds, count, flag, millis, port, seconds};
pub use texts::{
    Addresses, Choice, OptionalSecret, OptionalText, SecretWithDefault, Text, addresses, choice,
    optional_secret, optional_text, secret_with_default, text,
};

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
