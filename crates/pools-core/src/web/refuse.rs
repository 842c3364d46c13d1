//! How a service says that it does not start.

use std::{error::Error, process::ExitCode};

/// Prints the error with its causes, one a line, on standard error. Returns exit code 2, which tells an
/// orchestrator's reader from a crash (101) and from work that was cut (1).
#[expect(clippy::print_stderr, reason = "logging may be what could not be set up")]
pub fn refuse(program: &str, error: &dyn Error) -> ExitCode {
    eprintln!("{program}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  because: {inner}");
        cause = inner.source();
    }
    ExitCode::from(2)
}
