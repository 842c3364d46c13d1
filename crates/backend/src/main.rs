//! backend, port 3001. See the library for what it does.

use std::{collections::BTreeMap, process::ExitCode};

use backend::{settings::Task, startup};
use pools_core::{settings::StartError, web::healthcheck};

#[tokio::main]
async fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let environment: BTreeMap<_, _> = std::env::vars().collect();
    let settings = match Task::load(std::env::args_os(), environment) {
        Ok(Task::Serve(settings)) => settings,
        Ok(Task::HealthCheck { port }) => return healthcheck(port),
        Err(StartError::Usage(usage)) => usage.exit(),
        Err(error) => return refuse(&error),
    };
    match startup::run(*settings).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => refuse(&error),
    }
}

#[expect(clippy::print_stderr, reason = "logging may be what could not be set up")]
fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("backend: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  because: {inner}");
        cause = inner.source();
    }
    ExitCode::from(2)
}
