//! `docs/CONFIG.md` holds what `--help` says, for both services.

use pools_core::settings::{Section, markdown};

const HEAD: &str = "# Settings

Every setting is an environment variable and a flag of the service; the flag wins. A secret may also come from the file that
`VARIABLE_FILE` names. A value out of range, and an unknown variable that begins with `DB_`, `HTTP_`, `RPC_` or `REDIS_`, stop the
start with an error that names it (`HTTP_PROXY` excepted: it belongs to proxies).

This page is written by the test that checks it: `UPDATE_DOCS=1 cargo test -p backend --test e2e config_doc`.
";

fn document() -> String {
    let backend = backend::settings::sections();
    let is_shared = |section: &Section| backend.iter().any(|known| known.title == section.title);
    let mut ml_api = ml_api::settings::sections();
    ml_api.retain(|section| !is_shared(section));
    format!(
        "{HEAD}\n## backend\n{}\n## ml-api\n\nBeside the section *Service* above:\n{}",
        markdown(&backend),
        markdown(&ml_api)
    )
}

#[test]
fn every_setting_is_documented_as_declared() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIG.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "docs/CONFIG.md has drifted: run this test with UPDATE_DOCS=1");
}
