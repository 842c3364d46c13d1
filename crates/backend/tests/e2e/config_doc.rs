//! `docs/CONFIG.md` holds what `--help` says.

use pools_core::settings::markdown;

/// Sections of both services, each once. ml-api's own are read from its `--help`-like listing in its tests.
#[test]
fn every_setting_of_the_backend_is_documented_as_declared() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIG.md");
    let document = std::fs::read_to_string(path).unwrap();
    for section in backend::settings::sections() {
        let expected = markdown(std::slice::from_ref(&section));
        assert!(
            document.contains(expected.trim()),
            "docs/CONFIG.md does not hold the section {:?} as declared; it should read:\n{expected}",
            section.title
        );
    }
}
