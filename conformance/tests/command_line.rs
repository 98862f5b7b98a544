//! The suite as its users run it. `make guests` must have been run before.

use std::process::{Command, Output};

fn conformance(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn every_engine_conforms() {
    let output = conformance(&["--engine", "all"]);
    let report = stdout(&output);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    let totals: Vec<_> = report.lines().last().unwrap().split(", ").collect();
    assert!(matches!(totals[..], [_, "0 failed", _]), "{totals:?}");
    assert!(!report.contains("is not installed"), "{report}");
}

#[test]
fn a_filter_leaves_the_cases_with_the_text_in_their_name() {
    let list = conformance(&["--list", "--filter", "modules::"]);
    let names: Vec<_> = stdout(&list).lines().collect();
    assert!(names.contains(&"modules::an_unknown_import_is_named"));
    assert!(names.iter().all(|name| name.starts_with("modules::")));
    let report = conformance(&["--filter", "modules::", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(stdout(&report)).unwrap();
    let mut run: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| run["case"].as_str().unwrap()).collect();
    run.dedup();
    assert_eq!(run, names);
}

#[test]
fn one_engine_can_be_chosen() {
    let engine = if cfg!(feature = "wasmer") { "wasmer" } else { "wasmtime" };
    let output = conformance(&["--engine", engine, "--filter", "traps::unreachable"]);
    assert_eq!(
        stdout(&output),
        format!("case                {engine}\ntraps::unreachable  ok\n\n1 passed, 0 failed, 0 skipped\n")
    );
}

#[test]
fn what_leaves_no_case_is_an_error() {
    for arguments in [["--filter", "no such case"], ["--engine", "no-such-engine"]] {
        let output = conformance(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(arguments[1]), "{stderr}");
    }
}
