//! docs/components.md says what the code says. `make docs` writes the part of it that is made of the descriptions.
#![cfg(all(feature = "postgresql", feature = "redis", feature = "sqlite"))]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use components::field::{Description, Field, Kind};
use components::state::EVERY_STORE;
use components::{Faults, Registry, manifest};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/components.md");
/// The last line of what people write.
const MARK: &str = "<!-- What follows is made by `make docs` of the descriptions in the code. -->\n";

#[test]
fn every_component_type_is_described_as_the_code_has_it() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (prose, described) = page.split_once(MARK).expect("the mark");
    let expected = descriptions();
    if env::var_os("WRITE_DOCS").is_some() {
        fs::write(PAGE, format!("{prose}{MARK}{expected}")).unwrap();
    } else {
        assert!(described == expected, "docs/components.md is not what the code says: run `make docs`");
    }
}

#[test]
fn the_documents_in_the_page_can_be_read() {
    let page = fs::read_to_string(PAGE).unwrap();
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let folder = tempfile::tempdir().unwrap();
    for (number, example) in examples.iter().enumerate() {
        fs::write(folder.path().join(format!("{number}.yaml")), example).unwrap();
    }
    let mut faults = Faults::default();
    let documents = manifest::read(&manifest::sources(&[folder.path()]), &mut faults);
    assert!(faults.is_empty(), "{faults}");
    assert!(!examples.is_empty() && documents.components.len() >= examples.len());
}

/// The tables name what keeps each promise.
#[test]
fn every_test_that_state_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = String::new();
    for folder in ["components/src", "components/tests", "conformance/src"] {
        read_all(&root.join(folder), &mut sources);
    }
    let page = fs::read_to_string(root.join("docs/state.md")).unwrap();
    let cells = page.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_test =
        |name: &&str| name.matches('_').count() > 1 && !name.contains(|c: char| !(c.is_alphanumeric() || c == '_'));
    let names: Vec<&str> = cells.filter(is_test).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "docs/state.md names {name}, and there is no such test");
    }
}

/// Whoever copies the blocks has the guest that is tested.
#[test]
fn the_tutorial_shows_its_guest_file_by_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/first-guest.md")).unwrap();
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| Some(block.split_once('\n')?.1));
    let blocks: Vec<&str> = blocks.collect();
    for file in ["Cargo.toml", "src/lib.rs", "config.yaml", "components/state.yaml"] {
        let path = root.join("conformance/guests/greeter").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(blocks.contains(&text.as_str()), "no block of docs/first-guest.md is the greeter's {file}");
    }
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

fn descriptions() -> String {
    let registry = Registry::builtin();
    let types = registry.types().map(|(name, description)| section(&format!("`{name}`"), &description));
    let mut sections: Vec<String> = types.collect();
    sections.push(section("Every state store", &EVERY_STORE));
    sections.concat()
}

fn section(title: &str, Description { about, fields, without_effect }: &Description) -> String {
    let mut section = format!("\n### {title}\n\n{about}\n");
    if !fields.is_empty() {
        section += "\n| name | value | default | meaning |\n|---|---|---|---|\n";
        section.extend(fields.iter().map(row));
    }
    if !without_effect.is_empty() {
        let names: Vec<String> = without_effect.iter().map(|name| format!("`{name}`")).collect();
        writeln!(section, "\nWithout effect: {}.", names.join(", ")).unwrap();
    }
    section
}

fn row(field: &Field) -> String {
    let names: Vec<String> = field.names().map(|name| format!("`{name}`")).collect();
    let value = match field.kind {
        Kind::Text => "text",
        Kind::Secret => "secret",
        Kind::Flag => "flag",
        Kind::Integer => "number",
        Kind::Seconds => "seconds",
        Kind::Milliseconds => "milliseconds",
        Kind::Refused => "refused",
    };
    let default = match field.default {
        Some(default) => format!("`{default}`"),
        None if field.is_required => "needed".to_owned(),
        None => String::new(),
    };
    let meaning = field.meaning.replace("||", "\\|\\|");
    format!("| {} | {value} | {default} | {meaning} |\n", names.join(", "))
}
