//! Loans in CSV files: columns are found by name, others are ignored, and what is wrong is named by row and column.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    rc::Rc,
};

use csv::{ByteRecord, ReaderBuilder};

use crate::risk::{Example, FEATURE_COUNT, Feature, TrainingData};

#[cfg(test)]
mod tests;

/// Rows that are trained on at once: each takes some 560 bytes while it is.
pub const MAX_ROWS: usize = 1_000_000;
/// Bytes of one row, quoted line breaks included; a row of ours is 200.
pub const LONGEST_ROW: usize = 1 << 20;

/// The label's column.
const LABEL: &str = "default";
/// Says where a row comes from.
const SOURCE: &str = "source";
const SYNTHETIC: &str = "synthetic";
/// Rows between two reports of progress.
const PROGRESS: usize = 10_000;
/// Characters of a wrong value that are shown.
const SHOWN: usize = 40;

/// Why a file is refused. Rows are counted from 1, without the header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The system says why.
    #[error("cannot be read")]
    Read {
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no header.
    #[error("the file is empty: the first row must name the columns")]
    Empty,
    /// There is nothing below it.
    #[error("there is no row below the header")]
    NoRows,
    /// A column is not there.
    #[error("row 0 (the header): column {column} is missing")]
    MissingColumn {
        /// Its name.
        column: &'static str,
    },
    /// A column is there twice.
    #[error("row 0 (the header): column {column} is there twice")]
    Twice {
        /// Its name.
        column: &'static str,
    },
    /// A row has more or fewer values than there are columns.
    #[error("row {row}: {found} values, where the header has {expected} columns")]
    Length {
        /// Which row.
        row: usize,
        /// Its values.
        found: usize,
        /// The header's columns.
        expected: usize,
    },
    /// A value breaks its rule.
    #[error("row {row}, column {column}: must be {expected}, not {shown}")]
    Value {
        /// Which row.
        row: usize,
        /// Which column.
        column: &'static str,
        /// The rule.
        expected: &'static str,
        /// Its beginning, quoted.
        shown: String,
    },
    /// There is nothing to tell apart.
    #[error("rows 1 to {rows}, column {LABEL}: all are {}, and training needs both", u8::from(*.default))]
    OneClass {
        /// All of them.
        rows: usize,
        /// Their label.
        default: bool,
    },
    /// More rows than are trained on at once.
    #[error("row {}: training keeps all rows in memory, and takes at most {limit}", limit + 1)]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// A row has no end.
    #[error("row {row}: longer than {LONGEST_ROW} bytes")]
    TooLong {
        /// Which row.
        row: usize,
    },
}

/// The rows of a file.
#[derive(Debug)]
pub struct Rows {
    /// In the file's order.
    pub examples: Vec<Example>,
    /// Synthetic if every row says so, else a file's.
    pub training_data: TrainingData,
}

/// Reads all rows, telling their number now and then.
///
/// # Errors
/// The first row that is wrong: see [`RowsError`].
pub fn read(input: impl Read, progress: impl Fn(usize)) -> Result<Rows, RowsError> {
    read_up_to(MAX_ROWS, input, progress)
}

fn read_up_to(limit: usize, input: impl Read, progress: impl Fn(usize)) -> Result<Rows, RowsError> {
    let left = Rc::new(Cell::new(0));
    let input = Bounded { input, left: Rc::clone(&left) };
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
    let mut record = ByteRecord::new();
    let mut next = |record: &mut ByteRecord, row| {
        left.set(LONGEST_ROW);
        let more = reader.read_byte_record(record).map_err(|error| failed(error, left.get(), row))?;
        Ok::<_, RowsError>(more)
    };
    if !next(&mut record, 0)? {
        return Err(RowsError::Empty);
    }
    let columns = Columns::find(&record)?;
    let mut examples = Vec::new();
    let mut synthetic = columns.source.is_some();
    while next(&mut record, examples.len() + 1)? {
        let row = examples.len() + 1;
        if row > limit {
            return Err(RowsError::TooMany { limit });
        }
        examples.push(columns.example(&record, row)?);
        synthetic &= columns.source.is_some_and(|place| &record[place] == SYNTHETIC.as_bytes());
        if row.is_multiple_of(PROGRESS) {
            progress(row);
        }
    }
    let Some(first) = examples.first() else { return Err(RowsError::NoRows) };
    if examples.iter().all(|example| example.default == first.default) {
        return Err(RowsError::OneClass { rows: examples.len(), default: first.default });
    }
    let training_data = if synthetic { TrainingData::Synthetic } else { TrainingData::File };
    Ok(Rows { examples, training_data })
}

fn failed(error: csv::Error, left: usize, row: usize) -> RowsError {
    match error.into_kind() {
        csv::ErrorKind::Io(_) if left == 0 => RowsError::TooLong { row },
        csv::ErrorKind::Io(cause) => RowsError::Read { cause },
        // Bytes are read, of any number of values: nothing else can be wrong.
        kind => RowsError::Read { cause: io::Error::other(format!("{kind:?}")) },
    }
}

/// Writes loans as [`read`] reads them, each called synthetic.
///
/// # Errors
/// The output fails.
pub fn write_synthetic(output: impl Write, loans: impl Iterator<Item = Example>) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(output);
    writer.write_record(Feature::ALL.into_iter().map(Feature::name).chain([LABEL, SOURCE]))?;
    for Example { features, default } in loans {
        for value in features {
            writer.write_field(value.to_string())?;
        }
        writer.write_record([if default { "1" } else { "0" }, SYNTHETIC])?;
    }
    writer.flush()
}

/// Where the columns are that are read.
struct Columns {
    features: [usize; FEATURE_COUNT],
    label: usize,
    source: Option<usize>,
    count: usize,
}

impl Columns {
    fn find(header: &ByteRecord) -> Result<Self, RowsError> {
        let place = |column: &'static str| {
            let mut places =
                (0..header.len()).filter(|&place| header[place].trim_ascii() == column.as_bytes());
            match (places.next(), places.next()) {
                (Some(_), Some(_)) => Err(RowsError::Twice { column }),
                (place, _) => Ok(place),
            }
        };
        let required = |column: &'static str| place(column)?.ok_or(RowsError::MissingColumn { column });
        let mut features = [0; FEATURE_COUNT];
        for feature in Feature::ALL {
            features[feature as usize] = required(feature.name())?;
        }
        Ok(Self { features, label: required(LABEL)?, source: place(SOURCE)?, count: header.len() })
    }

    fn example(&self, record: &ByteRecord, row: usize) -> Result<Example, RowsError> {
        if record.len() != self.count {
            return Err(RowsError::Length { row, found: record.len(), expected: self.count });
        }
        let wrong = |place: usize, column, expected| RowsError::Value {
            row,
            column,
            expected,
            shown: shown(&record[place]),
        };
        let mut features = [0.0; FEATURE_COUNT];
        for feature in Feature::ALL {
            let place = self.features[feature as usize];
            let value = number(&record[place]).filter(|value| value.is_finite());
            features[feature as usize] =
                value.ok_or_else(|| wrong(place, feature.name(), "a finite number"))?;
        }
        let label = number(&record[self.label]).filter(|&label| label == 0.0 || label == 1.0);
        let label = label.ok_or_else(|| wrong(self.label, LABEL, "0 or 1"))?;
        Ok(Example { features, default: label == 1.0 })
    }
}

fn number(value: &[u8]) -> Option<f64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(4 * SHOWN)]);
    format!("{:?}", text.chars().take(SHOWN).collect::<String>())
}

/// Gives no more than what is left, so that a row without an end cannot fill the memory.
struct Bounded<R> {
    input: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let length = buffer.len().min(left);
        let read = self.input.read(&mut buffer[..length])?;
        self.left.set(left - read);
        Ok(read)
    }
}
