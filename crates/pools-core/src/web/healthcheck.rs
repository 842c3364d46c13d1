//! The health check of a container image that holds nothing but the service: `<service> healthcheck`, the same
//! binary run a second time, asks the running one on this machine whether it lives.
//!
//! It opens one connection, waits at most two seconds for each step and leaves by its exit code. Blocking calls
//! are right here: nothing else happens in this process.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use clap::{ArgMatches, Command};

const NAME: &str = "healthcheck";

/// Container engines ask every few seconds, and `/health/live` looks at no dependency: slower than this is ill.
const PATIENCE: Duration = Duration::from_secs(2);

const REQUEST: &[u8] =
    b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nUser-Agent: healthcheck\r\nConnection: close\r\n\r\n";

/// The subcommand to add to a service's command line.
pub fn healthcheck_command() -> Command {
    Command::new(NAME)
        .about("Ask the service that listens on this machine whether it lives: exit code 0 or 1")
}

/// Whether the command line asks for it.
pub fn is_healthcheck(matches: &ArgMatches) -> bool {
    matches.subcommand_name() == Some(NAME)
}

/// Asks the service on `port` of this machine. 0 when it lives, else 1 and the reason on standard error.
pub fn healthcheck(port: u16) -> ExitCode {
    match ask(port) {
        Ok(status) if status == *b"HTTP/1.1 200" => ExitCode::SUCCESS,
        Ok(status) => fail(format_args!("port {port} answered {:?}", String::from_utf8_lossy(&status))),
        Err(cause) => fail(format_args!("port {port} does not answer: {cause}")),
    }
}

fn ask(port: u16) -> io::Result<[u8; 12]> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status)
}

fn fail(reason: std::fmt::Arguments<'_>) -> ExitCode {
    // Nothing can be done about a standard error that is gone; the exit code still tells.
    let _ = writeln!(io::stderr(), "healthcheck: {reason}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What the check says of a server that gives `answer` to one request and closes.
    fn verdict(answer: &'static [u8]) -> ExitCode {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            request
        });
        let verdict = healthcheck(port);
        assert_eq!(server.join().unwrap(), REQUEST);
        verdict
    }

    #[test]
    fn a_service_that_answers_200_lives() {
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), ExitCode::SUCCESS);
    }

    #[test]
    fn another_status_and_a_connection_that_just_closes_are_failures() {
        assert_eq!(verdict(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), ExitCode::FAILURE);
        assert_eq!(verdict(b""), ExitCode::FAILURE);
    }

    #[test]
    fn nobody_listening_is_a_failure() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(healthcheck(port), ExitCode::FAILURE);
    }

    #[test]
    fn a_service_that_accepts_and_stays_silent_is_a_failure() {
        // The backlog accepts; nobody reads.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(healthcheck(listener.local_addr().unwrap().port()), ExitCode::FAILURE);
    }

    #[test]
    fn the_subcommand_is_seen_among_flags() {
        let command = || Command::new("service").subcommand(healthcheck_command());
        assert!(is_healthcheck(&command().try_get_matches_from(["service", "healthcheck"]).unwrap()));
        assert!(!is_healthcheck(&command().try_get_matches_from(["service"]).unwrap()));
    }
}
