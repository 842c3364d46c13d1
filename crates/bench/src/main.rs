//! The same workload on our pools and on the pools others use, side by side.
//!
//! ```text
//!  server (testkit) ◄── subject: ours ──┐
//!                   ◄── subject: peer ──┼─ in turns, five times each ──► rows ──► ratios
//!                   ◄── subject: peer ──┘
//! ```
//!
//! Absolute figures belong to the machine; what counts is the ratio of medians of runs that alternated. Nothing
//! runs beside a subject, and nothing is left behind: each run opens its pool and closes it.

mod api;
mod chaos;
mod http;
mod load;
mod ml;
mod peer;
mod postgres;
mod proc;
mod program;
mod report;
mod runs;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};

/// What a benchmark may fail with. A subject's fault is printed and ends its rows, not the benchmark.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Runs our pools and others' on the same workload, and prints all runs and their medians.
#[derive(Debug, Parser)]
#[command(bin_name = "./scripts/bench", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// The benchmark; without one they are listed.
    name: Option<Name>,
    /// Print the result as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Runs of each subject.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Length of a run in seconds: by default 2, and 0.8 for `http`, which has many.
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Real servers that fail under load (./scripts/chaos).
    Chaos(chaos::Args),
    /// A subject of `http`, in a process of its own.
    #[command(hide = true)]
    HttpClient(http::ClientArgs),
    /// The server of `http`, in a process of its own.
    #[command(hide = true)]
    HttpServer,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The Postgres pool against SQLAlchemy, node-pg, deadpool, sqlx and bb8: pg.1 to pg.12.
    Postgres,
    /// The HTTP pool against a raw loop, hyper-util, reqwest, Go, undici and axios: http.1 to http.10.
    Http,
    /// ml-api against Flask and scikit-learn under gunicorn: ml.1 to ml.6.
    Ml,
}

/// How often and how long.
#[derive(Debug, Clone, Copy)]
struct Plan {
    runs: u32,
    measured: Duration,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 60".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.other {
        // These make the runtime that they measure.
        Some(Other::HttpClient(args)) => http::client(args).map(|()| ExitCode::SUCCESS),
        Some(Other::HttpServer) => http::server().map(|()| ExitCode::SUCCESS),
        _ => orchestrate(args),
    };
    match done {
        Ok(code) => code,
        Err(fault) => {
            say(&format!("failed: {fault}"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn orchestrate(args: Args) -> Result<ExitCode, Fault> {
    if let Some(Other::Chaos(args)) = args.other {
        return chaos::run(args).await;
    }
    let mut out = io::stdout();
    let Some(name) = args.name else {
        list::<Name>(&mut out)?;
        return Ok(ExitCode::SUCCESS);
    };
    let usual = if matches!(name, Name::Http) { 0.8 } else { 2.0 };
    let measured = Duration::from_secs_f64(args.seconds.unwrap_or(usual));
    let plan = Plan { runs: args.runs, measured };
    let report = match name {
        Name::Postgres => postgres::measure(plan).await?,
        Name::Http => http::measure(plan).await?,
        Name::Ml => ml::measure(plan).await?,
    };
    report.print(&mut out)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn list<N: ValueEnum>(out: &mut impl Write) -> io::Result<()> {
    for name in N::value_variants() {
        let value = name.to_possible_value().expect("BUG: none is hidden");
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "{:<12} {help}", value.get_name())?;
    }
    Ok(())
}

/// Progress, beside the result.
fn say(line: &str) {
    // There is nobody to tell that nobody listens.
    drop(writeln!(io::stderr(), "bench: {line}"));
}

/// This crate's folder, where the peers' programs are.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
