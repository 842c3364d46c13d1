use super::*;
use crate::risk::generator::generate;

/// Enough for both classes.
const ROWS: usize = 20;

fn text(rows: usize) -> String {
    let mut bytes = Vec::new();
    write_synthetic(&mut bytes, generate(rows, 7).into_iter()).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn refused(text: &str) -> String {
    read(text.as_bytes(), |_| ()).unwrap_err().to_string()
}

/// The file's lines, with one value of a row (0: the header) replaced.
fn with(row: usize, column: &str, value: &str) -> String {
    let text = text(ROWS);
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let place = lines[0].iter().position(|name| *name == column).unwrap();
    lines[row][place] = value;
    lines.iter().map(|line| line.join(",") + "\n").collect()
}

#[test]
fn generated_rows_are_read_as_they_were_and_are_called_synthetic() {
    let rows = read(text(50).as_bytes(), |_| ()).unwrap();
    assert_eq!(rows.examples, generate(50, 7));
    assert_eq!(rows.training_data, TrainingData::Synthetic);
}

#[test]
fn a_single_row_from_elsewhere_makes_it_a_file() {
    for text in [with(2, SOURCE, "mainnet"), with(0, SOURCE, "other")] {
        assert_eq!(read(text.as_bytes(), |_| ()).unwrap().training_data, TrainingData::File);
    }
}

#[test]
fn columns_are_found_in_any_order_with_a_byte_order_mark_and_windows_line_ends() {
    let text = text(ROWS);
    let reversed: String =
        text.lines().map(|line| line.split(',').rev().collect::<Vec<_>>().join(",") + "\r\n").collect();
    let rows = read(format!("\u{feff}{reversed}").as_bytes(), |_| ()).unwrap();
    assert_eq!(rows.examples, generate(ROWS, 7));
}

#[test]
fn what_is_wrong_is_named_by_row_and_column() {
    let cases = [
        (String::new(), "the file is empty"),
        (text(0), "no row below the header"),
        (with(0, "tx_count", "txs"), "row 0 (the header): column tx_count is missing"),
        (with(0, "default", "label"), "row 0 (the header): column default is missing"),
        (with(0, SOURCE, "tx_count"), "column tx_count is there twice"),
        (
            with(2, "interest_rate", "high"),
            "row 2, column interest_rate: must be a finite number, not \"high\"",
        ),
        (with(3, "loan_amount", "NaN"), "row 3, column loan_amount: must be a finite number, not \"NaN\""),
        (with(1, "loan_amount", "1e999"), "row 1, column loan_amount"),
        (with(1, "loan_amount", ""), "row 1, column loan_amount: must be a finite number, not \"\""),
        (with(1, "default", "2"), "row 1, column default: must be 0 or 1, not \"2\""),
        (text(2), "rows 1 to 2, column default: all are 0, and training needs both"),
        (text(2) + "1,2,3\n", "row 3: 3 values, where the header has 24 columns"),
    ];
    for (text, expected) in cases {
        assert!(refused(&text).contains(expected), "{expected}: {}", refused(&text));
    }
}

#[test]
fn a_row_without_an_end_is_refused_without_being_kept() {
    let endless = text(1).into_bytes();
    let endless = endless.as_slice().chain(io::repeat(b'7'));
    let error = read(endless, |_| ()).unwrap_err();
    assert!(matches!(error, RowsError::TooLong { row: 2 }), "{error}");
}

#[test]
fn a_file_with_too_many_rows_is_refused_at_the_bound_and_progress_was_told() {
    let (limit, told) = (2 * PROGRESS, Cell::new(0));
    let text = text(limit + 1);
    let error = read_up_to(limit, text.as_bytes(), |rows| told.set(rows)).unwrap_err();
    assert_eq!(error.to_string(), "row 20001: training keeps all rows in memory, and takes at most 20000");
    assert_eq!(told.get(), limit);
    assert!(read_up_to(limit + 1, text.as_bytes(), |_| ()).is_ok());
}
