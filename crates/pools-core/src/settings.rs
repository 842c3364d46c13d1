//! Settings, each declared once: field, documentation, unit, range, default, variable.
//!
//! From one [`settings!`](crate::settings!) declaration come the struct, its `Default`, the environment reader,
//! the clap flag and the row in `docs/CONFIG.md`. A flag wins over the variable, the variable over `NAME_FILE`,
//! that over the default. A value out of range is an error that names variable, value and range: never a clamp.
//! A misspelt `DB_*`, `HTTP_*`, `RPC_*` or `REDIS_*` variable is an error too, since it would silently do nothing.
//!
//! Only a service's `main` passes the process environment in; tests pass a map.
//!
//! ```
//! use std::{collections::BTreeMap, time::Duration};
//! use pools_core::settings::{Section, Values, count, millis};
//!
//! pools_core::settings! {
//!     /// What the kettle may do.
//!     pub struct KettleConfig in "Kettle" {
//!         /// Cups at once; more than four boil over.
//!         pub cups: u32 = count("KETTLE_CUPS", "cups", 2, 1..=4);
//!         /// Time to boil.
//!         pub boil: Duration = millis("KETTLE_BOIL_MS", 1_000, 1..=60_000);
//!     }
//! }
//!
//! let environment = BTreeMap::from([("KETTLE_CUPS".to_owned(), "9".to_owned())]);
//! let values = Values::from_map(environment);
//! let error = KettleConfig::read(&values).unwrap_err();
//! assert_eq!(error.to_string(), "KETTLE_CUPS: \"9\" is not in 1..=4 cups");
//! assert_eq!(KettleConfig::default().boil, Duration::from_secs(1));
//! ```

mod kinds;
mod source;

pub use kinds::{
    Addresses, Choice, Count, Flag, Kind, Millis, OptionalSecret, OptionalText, Port, Seconds,
    SecretWithDefault, Text, addresses, choice, count, flag, millis, optional_secret, optional_text, port,
    seconds, secret_with_default, text,
};
pub use source::{StartError, Values, help_text, markdown};

use std::{path::PathBuf, time::Duration};

/// One setting as help texts and documentation show it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Environment variable.
    pub variable: &'static str,
    /// What it is for.
    pub doc: String,
    /// Default as it would be written; empty for none.
    pub default: String,
    /// Unit of the number, or kind of text.
    pub unit: &'static str,
    /// What is accepted.
    pub range: String,
    /// Whether it is a secret, readable from `VARIABLE_FILE` and never printed.
    pub secret: bool,
}

impl Row {
    /// The command-line flag without its dashes.
    pub fn flag(&self) -> String {
        self.variable.to_ascii_lowercase().replace('_', "-")
    }
}

/// Settings that belong together.
#[derive(Clone, Debug)]
pub struct Section {
    /// Heading in `docs/CONFIG.md` and `--help`.
    pub title: &'static str,
    /// Its settings.
    pub rows: Vec<Row>,
}

/// A setting that stops the start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The value is not accepted.
    #[error("{variable}: {shown} is not {expected}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// The value as written; `the given value` for a secret.
        shown: String,
        /// Range and unit.
        expected: String,
    },
    /// No setting has this name, but its prefix is ours.
    #[error("{variable}: no such setting{hint}")]
    Unknown {
        /// The variable.
        variable: String,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
    },
    /// The file of a `…_FILE` variable could not be read.
    #[error("{variable}_FILE: {} cannot be read", path.display())]
    Unreadable {
        /// The variable without `_FILE`.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// A default that is kept as a time, as [`millis`] takes it.
#[doc(hidden)]
pub fn in_millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Declares a struct of settings; see the [module](mod@crate::settings).
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $struct_doc:literal])+
        pub struct $name:ident in $title:literal {
            $( $(#[doc = $doc:literal])+ pub $field:ident : $type:ty = $kind:expr; )+
        }
    ) => {
        $(#[doc = $struct_doc])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $crate::settings::Kind::default(&$kind), )+ }
            }
        }

        impl $name {
            /// Reads every setting, or says which one is wrong.
            ///
            /// # Errors
            /// The first value that is not accepted.
            pub fn read(
                values: &$crate::settings::Values,
            ) -> Result<Self, $crate::settings::SettingError> {
                Ok(Self { $( $field: values.get(&$kind)?, )+ })
            }

            /// The settings with their documentation, in the order of the struct.
            pub fn section() -> $crate::settings::Section {
                $crate::settings::Section {
                    title: $title,
                    rows: vec![ $(
                        $crate::settings::Kind::row(&$kind, concat!($($doc, "\n"),+)),
                    )+ ],
                }
            }
        }
    };
}
