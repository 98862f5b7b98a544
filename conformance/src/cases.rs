//! What is promised of a guest, whichever engine runs it.

mod cancellation;
mod examples;
mod http;
mod memory;
mod modules;
mod on_stores;
mod original_abi;
mod secrets;
mod state;
mod traps;
mod wasi;

use crate::runner::{Case, ExpectedFailure};

/// Where an engine falls short, and why. One that passes must leave this list.
pub(crate) const EXPECTED_FAILURES: &[ExpectedFailure] = &[ExpectedFailure {
    case: "wasi::nothing_is_there_without_a_preopened_root",
    engine: "wasmer",
    reason: "wasmer-wasix shows an empty root",
}];

pub(crate) fn all() -> Vec<Case> {
    [
        wasi::cases(),
        state::cases(),
        examples::cases(),
        secrets::cases(),
        http::cases(),
        traps::cases(),
        memory::cases(),
        original_abi::cases(),
        cancellation::cases(),
        modules::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::guest::Program;

    const GUESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests");
    /// A crate that is no guest: what some of them share.
    const SHARED: &str = "store";

    /// The crates and the files in the folder of guests, as they are named there.
    fn files() -> BTreeSet<String> {
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            entries.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        let guests = Path::new(GUESTS);
        let is_guest = |name: &String| name != SHARED && guests.join(name).join("Cargo.toml").is_file();
        let crates = names(guests).into_iter().filter(is_guest);
        let in_c = names(&guests.join("c")).into_iter().filter(|name| name.ends_with(".c"));
        let in_c = in_c.map(|name| format!("c/{name}"));
        let texts = names(&guests.join("wat")).into_iter().map(|name| format!("wat/{name}"));
        crates.chain(in_c).chain(texts).collect()
    }

    fn file(program: Program) -> String {
        match program {
            Program::Rust(name) => name.to_owned(),
            Program::C(name) => format!("c/{name}.c"),
            Program::Wat(name, _) => format!("wat/{name}.wat"),
        }
    }

    #[test]
    fn every_guest_has_a_case() {
        let used: BTreeSet<_> = all().iter().map(|case| file(case.program)).collect();
        assert_eq!(files(), used);
    }

    #[test]
    fn every_guest_has_a_line_in_the_readme() {
        let readme = fs::read_to_string(Path::new(GUESTS).join("README.md")).unwrap();
        for file in files() {
            assert!(readme.contains(&format!("\n| `{file}` | ")), "{file} is not in guests/README.md");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names = BTreeSet::new();
        assert!(all().iter().all(|case| names.insert(case.full_name())));
    }

    #[test]
    fn every_expected_failure_is_of_a_case() {
        let names: BTreeSet<_> = all().iter().map(Case::full_name).collect();
        assert!(EXPECTED_FAILURES.iter().all(|failure| names.contains(failure.case)));
    }
}
