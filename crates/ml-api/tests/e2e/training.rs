//! `ml-api generate` and `ml-api train` as a person runs them.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use serde_json::{Value, json};

use crate::api::BOUND;

/// Runs the program in silence. Returns its exit code and all that it printed.
async fn run(arguments: &[&str]) -> (i32, String) {
    let service = testkit::service(env!("CARGO_BIN_EXE_ml-api"), arguments, &[]);
    let code = service.wait(BOUND).await;
    (code, service.lines().join("\n"))
}

async fn generate(rows: usize, out: &Path) {
    let (code, printed) =
        run(&["generate", "--rows", &rows.to_string(), "--seed", "7", "--out", &text(out)]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("synthetic"), "{printed}");
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of ours").to_owned()
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the file was written");
    serde_json::from_str(&text).expect("the file is JSON")
}

#[tokio::test]
async fn generated_loans_are_trained_on_and_everything_that_shows_them_says_synthetic() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    generate(3_000, &file("loans.csv")).await;

    let [data, out, report, plots] =
        ["loans.csv", "model.json", "report.json", "plots"].map(|n| text(&file(n)));
    let (code, printed) =
        run(&["train", "--data", &data, "--out", &out, "--report", &report, "--plots", &plots]).await;

    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("trained on 2400 rows (synthetic)"), "{printed}");
    let (model, report) = (read(&file("model.json")), read(&file("report.json")));
    for field in ["coefficients", "means", "deviations"] {
        assert_eq!(report[field].as_object().unwrap().len(), 22, "{field}");
        assert_eq!(model[field], report[field]);
    }
    assert!(report["intercept"].is_number() && report["iterations"].as_u64() > Some(1), "{report}");
    assert_eq!((&report["rows"], &report["training_data"]), (&json!(2400), &json!("synthetic")));
    let held_out = &report["held_out"];
    assert_eq!(held_out["rows"], 600);
    for measure in ["accuracy", "precision", "recall", "f1_score", "roc_auc", "log_loss", "brier"] {
        assert!(held_out[measure].is_number(), "{measure}: {held_out}");
    }
    assert_eq!(held_out["confusion_matrix"].as_array().unwrap().len(), 2);
    let bins = held_out["calibration"].as_array().unwrap();
    assert_eq!(bins.iter().map(|bin| bin["rows"].as_u64().unwrap()).sum::<u64>(), 600);
    for plot in ["roc", "calibration", "coefficients", "score_distribution"] {
        let svg = fs::read_to_string(file("plots").join(format!("{plot}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("synthetic"), "{svg}");
    }
}

#[tokio::test]
async fn the_same_rows_and_seed_give_the_same_model_and_another_seed_holds_out_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    generate(500, &file("loans.csv")).await;
    let data = text(&file("loans.csv"));
    for (out, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let (code, printed) =
            run(&["train", "--data", &data, "--seed", seed, "--out", &text(&file(out))]).await;
        assert_eq!(code, 0, "{printed}");
    }
    let model = |name: &str| read(&file(name));
    assert_eq!(model("a"), model("b"));
    assert_ne!(model("a")["intercept"], model("c")["intercept"]);
}

#[tokio::test]
async fn with_nothing_held_out_all_rows_are_trained_on_and_nothing_is_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    generate(300, &file("loans.csv")).await;
    let [data, report, plots] = ["loans.csv", "report.json", "plots"].map(|name| text(&file(name)));

    let (code, printed) =
        run(&["train", "--data", &data, "--held-out", "0", "--report", &report, "--plots", &plots]).await;

    assert_eq!(code, 0, "{printed}");
    let report = read(&file("report.json"));
    assert_eq!((&report["rows"], &report["held_out"]), (&json!(300), &Value::Null));
    let plots: Vec<_> =
        fs::read_dir(file("plots")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(plots, ["coefficients.svg"]);
}

#[tokio::test]
async fn what_cannot_be_trained_on_is_named_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    generate(40, &file("loans.csv")).await;
    let loans = fs::read_to_string(file("loans.csv")).unwrap();
    let label = loans.lines().next().unwrap().split(',').position(|name| name == "default").unwrap();
    let one_class: String = loans
        .lines()
        .filter(|line| line.split(',').nth(label) != Some("1"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let cases = [
        ("", "the file is empty"),
        ("a,b\n1,2\n", "column tx_count is missing"),
        (&loans.replacen(",synthetic", "5,synthetic", 1), "row 1, column default: must be 0 or 1"),
        (&one_class, &format!("rows 1 to {}, column default: all are 0", one_class.lines().count() - 1)),
    ];
    let [data, out] = ["bad.csv", "model.json"].map(|name| text(&file(name)));
    for (content, expected) in cases {
        fs::write(file("bad.csv"), content).unwrap();
        let (code, printed) = run(&["train", "--data", &data, "--out", &out]).await;
        assert_eq!(code, 2, "{printed}");
        assert!(printed.contains("bad.csv") && printed.contains(expected), "{expected}: {printed}");
        assert!(!file("model.json").exists());
    }
    let (code, printed) = run(&["train", "--data", &text(&file("nosuch.csv"))]).await;
    assert!(code == 2 && printed.contains("nosuch.csv"), "{printed}");
    let (code, printed) = run(&["train", "--data", &data, "--held-out", "1"]).await;
    assert!(code == 2 && printed.contains("0 to 0.9"), "{printed}");
}

/// Runs a command line in a shell, with the program as `$0`.
async fn shell(line: &str) -> (i32, String) {
    let service = testkit::service("/bin/sh", &["-c", line, env!("CARGO_BIN_EXE_ml-api")], &[]);
    let code = service.wait(3 * BOUND).await;
    (code, service.lines().join("\n"))
}

#[tokio::test]
async fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let data = text(&directory.path().join("loans.csv"));
    generate(10_000, Path::new(&data)).await;

    let (code, seen) = shell(&format!("script -qec \"$0 train --data {data}\" /dev/null </dev/null")).await;

    assert_eq!(code, 0, "{seen}");
    for progress in ["\r\x1b[K10000 rows read", "\r\x1b[Ktraining on 10000 rows", "\r\x1b[Ktrained on 8000"] {
        assert!(seen.contains(progress), "{progress:?}: {seen:?}");
    }
    let (code, piped) = run(&["train", "--data", &data]).await;
    assert_eq!((code, piped.contains('\x1b')), (0, false), "{piped:?}");
}

#[tokio::test]
async fn a_file_of_more_than_a_gigabyte_is_read_in_bounded_memory_or_refused_with_the_bound() {
    const GIGABYTE: u64 = 1 << 30;
    // Half of what the file would take; most of it is stacks and arenas that nobody touches.
    const LIMITED: &str = "ulimit -v 524288; exec $0 train --data";
    let directory = tempfile::tempdir().unwrap();
    let loans = directory.path().join("loans.csv");
    generate(1_100, &loans).await;
    let loans = fs::read_to_string(&loans).unwrap();

    // Each row ends with a column of a megabyte that is a hole in the file.
    let wide = directory.path().join("wide.csv");
    let mut file = File::create(&wide).unwrap();
    for (row, line) in loans.lines().enumerate() {
        file.write_all(line.as_bytes()).unwrap();
        file.write_all(if row == 0 { b",note" } else { b"," }).unwrap();
        file.seek(SeekFrom::Current(if row == 0 { 0 } else { 1_000_000 })).unwrap();
        file.write_all(b"\n").unwrap();
    }
    assert!(file.metadata().unwrap().len() > GIGABYTE);
    let (code, printed) = shell(&format!("{LIMITED} {}", text(&wide))).await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("trained on 880 rows"), "{printed}");

    // A row without an end.
    let endless = directory.path().join("endless.csv");
    fs::write(&endless, &loans).unwrap();
    File::options().write(true).open(&endless).unwrap().set_len(GIGABYTE + 1).unwrap();
    let (code, printed) = shell(&format!("{LIMITED} {}", text(&endless))).await;
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("row 1101: longer than 1048576 bytes"), "{printed}");
}
