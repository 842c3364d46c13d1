//! The two subcommands' flags.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::risk::split::HELD_OUT;

/// As the service's starting model; any number would do.
const SEED: &str = "42";

/// `ml-api generate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// How many loans.
    pub rows: usize,
    /// Which loans.
    pub seed: u64,
    /// Where to.
    pub out: PathBuf,
}

/// `ml-api train`.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// The CSV file.
    pub data: PathBuf,
    /// Share of each class that is held out; 0: train on all rows.
    pub held_out: f64,
    /// Chooses what is held out.
    pub seed: u64,
    /// Where the model goes.
    pub out: Option<PathBuf>,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// The directory where the plots go.
    pub plots: Option<PathBuf>,
}

/// The subcommands to add to the service's command line.
pub fn commands() -> [Command; 2] {
    let seed = || {
        let arg = Arg::new("seed").long("seed").value_name("S").default_value(SEED);
        arg.value_parser(value_parser!(u64))
    };
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name(value).help(help);
        arg.value_parser(value_parser!(PathBuf))
    };
    let rows = Arg::new("rows").long("rows").value_name("N").required(true);
    let rows = rows.value_parser(value_parser!(u64).range(1..=100_000_000)).help("How many loans");
    let held_out = Arg::new("held-out").long("held-out").value_name("FRACTION");
    let held_out = held_out
        .value_parser(fraction)
        .default_value(HELD_OUT.to_string())
        .help("Share of each class to judge by, 0 to 0.9; 0 trains on all rows");
    [
        Command::new("generate")
            .about("Write synthetic loans to a CSV file")
            .args([rows, seed().help("Which loans: the same for a seed on every platform")])
            .arg(path("out", "FILE.csv", "The file to write").required(true)),
        Command::new("train")
            .about("Train a model on a CSV file of loans, and report how good it is on rows held out")
            .arg(
                path("data", "FILE.csv", "The 22 features and default (0 or 1), by column name")
                    .required(true),
            )
            .args([held_out, seed().help("Chooses what is held out")])
            .arg(path("out", "MODEL.json", "Write the model"))
            .arg(path("report", "REPORT.json", "Write the report"))
            .arg(path("plots", "DIR", "Write plots as SVG")),
    ]
}

impl Generate {
    /// From the matches of the subcommand.
    pub fn read(matches: &ArgMatches) -> Self {
        let rows = *matches.get_one::<u64>("rows").expect("BUG: required");
        Self {
            rows: usize::try_from(rows).expect("BUG: in range"),
            seed: seed(matches),
            out: matches.get_one::<PathBuf>("out").expect("BUG: required").clone(),
        }
    }
}

impl Train {
    /// From the matches of the subcommand.
    pub fn read(matches: &ArgMatches) -> Self {
        let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
        Self {
            data: path("data").expect("BUG: required"),
            held_out: *matches.get_one("held-out").expect("BUG: has a default"),
            seed: seed(matches),
            out: path("out"),
            report: path("report"),
            plots: path("plots"),
        }
    }
}

fn seed(matches: &ArgMatches) -> u64 {
    *matches.get_one("seed").expect("BUG: has a default")
}

fn fraction(text: &str) -> Result<f64, &'static str> {
    let fraction = text.parse().ok().filter(|fraction| (0.0..=0.9).contains(fraction));
    fraction.ok_or("must be a number, 0 to 0.9")
}
