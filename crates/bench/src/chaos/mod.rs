//! Real servers that fail under load, and the count of what came of it.
//!
//! ```text
//!  load ──► ours ──► server (testkit) ◄── restart, freeze, kill
//!    └────────── what was promised ──┐       │
//!                                    ▼       ▼
//!                                 compared with what is found ──► counts
//! ```
//!
//! A benchmark's median says how it usually goes; here the worst of all runs counts, since a loss is a loss.

mod http;
mod ml;
mod postgres;
mod report;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ValueEnum;

use crate::Fault;

/// Makes real servers fail under load, and counts what was lost.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to break; without it that is listed.
    name: Option<Name>,
    /// Print the result as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Runs of each case.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The HTTP pool: idle connections closed under it, resets, silence, bursts of 503; beside a healthy neighbour.
    Http,
    /// The Postgres pool: restart, crash, freeze, and backends killed one by one.
    Postgres,
    /// ml-api's writers while Postgres is killed and restarted: acknowledged rows against found ones.
    Ml,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Fault> {
    let mut out = io::stdout();
    let Some(name) = args.name else {
        crate::list::<Name>(&mut out)?;
        return Ok(ExitCode::SUCCESS);
    };
    let report = match name {
        Name::Http => http::measure(args.runs).await?,
        Name::Postgres => postgres::measure(args.runs).await?,
        Name::Ml => ml::measure(args.runs).await?,
    };
    report.print(&mut out)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    }
    out.flush()?;
    Ok(if report.met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
