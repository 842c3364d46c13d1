//! The only place that touches the process: environment, arguments, exit code. See the library for what it does.

use std::{collections::BTreeMap, process::ExitCode};

use ml_api::{settings::Task, startup, training};
use pools_core::{
    settings::StartError,
    web::{healthcheck, refuse},
};

#[tokio::main]
async fn main() -> ExitCode {
    // A variable that is no Unicode cannot be one of ours.
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = match Task::read(std::env::args_os(), environment) {
        Ok(Task::Serve(settings)) => settings,
        Ok(Task::HealthCheck { port }) => return healthcheck(port),
        Ok(Task::Generate(options)) => return end(training::generate(&options)),
        Ok(Task::Train(options)) => return end(training::train(&options)),
        Err(StartError::Usage(usage)) => usage.exit(),
        Err(error) => return refuse("ml-api", &error),
    };
    match startup::run(*settings).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => refuse("ml-api", &error),
    }
}

fn end(result: Result<(), training::TaskError>) -> ExitCode {
    result.map_or_else(|error| refuse("ml-api", &error), |()| ExitCode::SUCCESS)
}
