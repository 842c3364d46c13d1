//! Child programs, bounded waits, and what happens when a test process is killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::{Signal, until, until_async};

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_service_sees_only_its_variables_and_its_exit_code_is_seen() {
    let script = "env; trap 'echo bye; exit 3' TERM; echo up >&2; while :; do sleep 0.01; done";
    let service = testkit::service("/bin/sh", &["-c", script], &[("PORT", "3001")]);
    service.wait_for_line(BOUND, "up").await;
    assert!(service.is_running());

    service.signal(Signal::Term);

    assert_eq!(service.wait(BOUND).await, 3);
    assert!(service.line_with("bye").is_some());
    let variables: Vec<String> = service.lines().into_iter().filter(|line| line.contains('=')).collect();
    assert!(variables.contains(&"PORT=3001".to_owned()));
    // The shell itself sets PWD and its kin.
    assert!(!variables.iter().any(|line| line.starts_with("HOME=") || line.starts_with("CARGO")));
}

#[tokio::test]
async fn a_signal_shows_in_the_exit_code() {
    let service = testkit::service("/bin/sleep", &["60"], &[]);
    service.signal(Signal::Kill);
    assert_eq!(service.wait(BOUND).await, 128 + 9);
}

#[tokio::test]
#[should_panic(expected = "service.rs")]
async fn until_names_its_caller_when_the_bound_is_over() {
    until(Duration::from_millis(20), || false).await;
}

#[tokio::test]
#[should_panic(expected = "service.rs")]
async fn until_async_cuts_a_question_that_gets_no_answer() {
    until_async(Duration::from_millis(20), async || std::future::pending().await).await;
}

/// Not a test of its own: the body of the process that the next test kills.
#[tokio::test]
async fn helper_that_waits_to_be_killed() {
    if std::env::var_os("TESTKIT_WAIT_TO_BE_KILLED").is_none() {
        return;
    }
    let postgres = testkit::postgres().await;
    let _redis = testkit::redis().await;
    postgres.freeze();
    let line = format!("folder={}\n", postgres.socket_dir().parent().unwrap().display());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_process_leaves_neither_process_nor_directory() {
    let program = std::env::current_exe().unwrap();
    let path = std::env::var_os("PATH").unwrap().into_string().unwrap();
    let arguments = ["--exact", "helper_that_waits_to_be_killed", "--nocapture"];
    let service =
        testkit::service(program, &arguments, &[("TESTKIT_WAIT_TO_BE_KILLED", "1"), ("PATH", &path)]);
    let line = service.wait_for_line(6 * BOUND, "folder=").await;
    let folder = PathBuf::from(line.split_once('=').unwrap().1);
    assert!(!processes_below(&folder).is_empty());

    service.signal(Signal::Kill);

    until(BOUND, || !folder.exists()).await;
    until(BOUND, || processes_below(&folder).is_empty()).await;
}

/// Servers work in their folder, so that is how to find them.
fn processes_below(folder: &Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter(|path| path.join("cwd").read_link().is_ok_and(|cwd| cwd.starts_with(folder))).collect()
}
