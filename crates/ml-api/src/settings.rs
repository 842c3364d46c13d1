//! Every setting of the service.

use std::{collections::BTreeMap, ffi::OsString};

use clap::Command;
use pools_core::{
    config::postgres::PgConfig,
    settings::{Section, StartError, Values, count, port},
    web::{ServiceConfig, healthcheck_command, is_healthcheck},
};

use crate::training::{self, Generate, Train};

pools_core::settings! {
    /// Knobs of ml-api alone.
    pub struct MlConfig in "ml-api" {
        /// Where the service listens, on all IPv4 addresses.
        pub port: u16 = port("ML_PORT", 3002);
        /// Recorded loans with an outcome that one retraining takes; with more it is refused. Each needs up to 500 bytes
        /// while it runs: the default, 200 MB, fits into the 256 MB of `docker-compose.yml`. Raise both together.
        pub retrain_max_loans: u32 = count("RETRAIN_MAX_LOANS", "loans", 400_000, 1..=10_000_000);
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

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Task {
    /// Serve.
    Serve(Box<Settings>),
    /// Ask the service that listens on this port whether it lives.
    HealthCheck {
        /// Of this machine.
        port: u16,
    },
    /// Write synthetic loans to a file.
    Generate(Generate),
    /// Train on a file.
    Train(Train),
}

impl Task {
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
            .about("Answers whether a loan will default, and remembers how loans ended")
            .subcommand(healthcheck_command())
            .subcommands(training::command::commands());
        let (values, matches) = Values::from_args(command, &sections(), args, environment)?;
        match matches.subcommand() {
            Some(("generate", flags)) => return Ok(Self::Generate(Generate::read(flags))),
            Some(("train", flags)) => return Ok(Self::Train(Train::read(flags))),
            _ => {}
        }
        let ml = MlConfig::read(&values)?;
        if is_healthcheck(&matches) {
            return Ok(Self::HealthCheck { port: ml.port });
        }
        let service = ServiceConfig::read(&values)?;
        let postgres = PgConfig::read(&values)?;
        Ok(Self::Serve(Box::new(Settings { ml, service, postgres })))
    }
}
