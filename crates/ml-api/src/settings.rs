//! Every setting of the service.

use std::{collections::BTreeMap, ffi::OsString};

use clap::Command;
use pools_core::{
    config::postgres::PgConfig,
    settings::{Section, StartError, Values, port},
    web::ServiceConfig,
};

pools_core::settings! {
    /// Knobs of ml-api alone.
    pub struct MlConfig in "ml-api" {
        /// Where the service listens, on all IPv4 addresses.
        pub port: u16 = port("ML_PORT", 3002);
    }
}

/// All of them, read once at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of ml-api alone.
    pub ml: MlConfig,
    /// Of every service.
    pub service: ServiceConfig,
    /// Of the Postgres pool.
    pub postgres: PgConfig,
}

/// The settings as `--help` and `docs/CONFIG.md` show them.
pub fn sections() -> Vec<Section> {
    vec![MlConfig::section(), ServiceConfig::section(), PgConfig::section()]
}

impl Settings {
    /// Reads flags (the program's name first) and environment.
    ///
    /// # Errors
    /// `--help`, a wrong flag, a value that is not accepted, or a misspelt variable.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, StartError> {
        let command = Command::new("ml-api")
            .version(env!("CARGO_PKG_VERSION"))
            .about("Answers whether a loan will default, and remembers how loans ended");
        let (values, _) = Values::from_args(command, &sections(), args, environment)?;
        Ok(Self {
            ml: MlConfig::read(&values)?,
            service: ServiceConfig::read(&values)?,
            postgres: PgConfig::read(&values)?,
        })
    }
}
