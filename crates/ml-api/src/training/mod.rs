//! `ml-api generate` and `ml-api train`: a model from a file, without a service.
//!
//! ```text
//!  seed ──generate──► CSV (source = synthetic)
//!  CSV ──rows──► Example ──stratified──┬► Model::fit ──► MODEL.json
//!                                      └► held out ──► report ──► REPORT.json, plots as SVG
//! ```
//!
//! A file counts as synthetic when its column `source` says so in every row, which is what `generate` writes; all
//! that comes out of it then says synthetic too. All calls block: the process does nothing else.
//!
//! # Limits
//! [`rows::MAX_ROWS`] rows, for which training takes some 600 MB; one row is at most [`rows::LONGEST_ROW`] bytes.
//! Nothing else of the file is kept, however large it is.

pub mod command;
pub mod report;
pub mod rows;

mod plots;
mod svg;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

pub use self::{
    command::{Generate, Train},
    report::Report,
    rows::RowsError,
};
use crate::risk::{FitError, Model, Split, generator, stratified};

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The rows cannot be read, or one of them is wrong.
    #[error("{}", path.display())]
    Rows {
        /// Of the file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: RowsError,
    },
    /// The rows cannot be learnt from.
    #[error("{}: column default", path.display())]
    Fit {
        /// Of the file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: FitError,
    },
    /// The held-out part would be empty.
    #[error("{} has too few rows to hold some of them out: give --held-out 0, or more rows", path.display())]
    NothingHeldOut {
        /// Of the file.
        path: PathBuf,
    },
    /// A result cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Of the file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Writes synthetic loans.
///
/// # Errors
/// The file cannot be written.
pub fn generate(options: &Generate) -> Result<(), TaskError> {
    let write = || -> io::Result<()> {
        let file = BufWriter::new(File::create(&options.out)?);
        rows::write_synthetic(file, generator::loans(options.seed).take(options.rows))
    };
    write().map_err(|cause| unwritten(&options.out, cause))?;
    tell(format_args!("{}: {} synthetic loans, seed {}", options.out.display(), options.rows, options.seed))
}

/// Trains on a file, and writes what was asked for.
///
/// # Errors
/// See [`TaskError`].
pub fn train(options: &Train) -> Result<(), TaskError> {
    let path = &options.data;
    let unread = |cause| TaskError::Rows { path: path.clone(), cause };
    let file = File::open(path).map_err(|cause| unread(RowsError::Read { cause }))?;
    let progress = Progress(io::stderr().is_terminal());
    let rows = rows::read(BufReader::new(file), |rows| progress.show(format_args!("{rows} rows read")));
    let rows = rows.map_err(unread)?;
    progress.show(format_args!("training on {} rows", rows.examples.len()));
    let split = split(rows.examples, options);
    let unfit = |cause| TaskError::Fit { path: path.clone(), cause };
    let model = Model::fit(&split.train, rows.training_data, 1).map_err(unfit)?;
    if options.held_out > 0.0 && split.held_out.is_empty() {
        return Err(TaskError::NothingHeldOut { path: path.clone() });
    }
    progress.end();
    let report = Report::of(&model, &split.held_out);
    if let Some(out) = &options.out {
        write_json(out, &model)?;
    }
    if let Some(out) = &options.report {
        write_json(out, &report)?;
    }
    if let Some(directory) = &options.plots {
        write_plots(directory, &report)?;
    }
    tell(format_args!("{report}"))
}

fn split(examples: Vec<crate::risk::Example>, options: &Train) -> Split {
    if options.held_out > 0.0 {
        stratified(&examples, options.held_out, options.seed)
    } else {
        Split { train: examples, held_out: Vec::new() }
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), TaskError> {
    let text = serde_json::to_string_pretty(value).expect("BUG: models and reports are JSON");
    fs::write(path, text + "\n").map_err(|cause| unwritten(path, cause))
}

fn write_plots(directory: &Path, report: &Report) -> Result<(), TaskError> {
    fs::create_dir_all(directory).map_err(|cause| unwritten(directory, cause))?;
    for (name, svg) in plots::all(report) {
        let path = directory.join(name);
        fs::write(&path, svg).map_err(|cause| unwritten(&path, cause))?;
    }
    Ok(())
}

fn unwritten(path: &Path, cause: io::Error) -> TaskError {
    TaskError::Write { path: path.to_owned(), cause }
}

fn tell(line: std::fmt::Arguments<'_>) -> Result<(), TaskError> {
    writeln!(io::stdout(), "{line}").map_err(|cause| unwritten(Path::new("standard output"), cause))
}

/// One line on a terminal that is written over; nothing anywhere else.
struct Progress(bool);

impl Progress {
    fn show(&self, text: std::fmt::Arguments<'_>) {
        if self.0 {
            // Progress that nobody can see is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn end(&self) {
        self.show(format_args!(""));
    }
}
