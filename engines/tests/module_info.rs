//! Modules that would have their outline take what the node has.

use engines::module_info::{ModuleError, ModuleInfo};
use rustix::process::{Resource, Rlimit, setrlimit};

/// LEB128, as WebAssembly has its numbers.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [number(text.len()), text.into()].concat()
}

fn module(section: u8, content: &[u8]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0", [section].as_slice(), &number(content.len()), content].concat()
}

fn refusal(module: &[u8]) -> ModuleError {
    // Of what is repeated a million times, no copies are made.
    let limit = Some(1 << 30);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    match ModuleInfo::read(module) {
        Err(error) => error,
        Ok(_) => panic!("it is taken"),
    }
}

/// Imports that share the name of their module are written with that name once (the proposal "compact import section").
fn compact_imports(module_name: &str, name: &str, count: usize) -> Vec<u8> {
    let names = string(name).repeat(count);
    let group = [string(module_name), string(""), vec![0x7e, 0, 0], number(count), names].concat();
    module(2, &[number(1), group].concat())
}

#[test]
fn imports_that_share_a_long_name_cost_no_memory() {
    let error = refusal(&compact_imports(&"long".repeat(25_000), "", 900_000));
    assert!(matches!(error, ModuleError::UnknownImports { .. }), "{error}");
    let message = error.to_string();
    assert!(message.starts_with("imports what nobody provides: longlong") && message.contains(", and more; known are"));
    assert!(message.len() < 20_000, "{} bytes", message.len());
}

#[test]
fn a_module_has_a_million_imports_at_most() {
    // Of the ones that are known, too.
    let error = refusal(&compact_imports("wasi_snapshot_preview1", "fd_close", 1_100_000));
    assert_eq!(error.to_string(), "has imports beyond the 1000000 that are allowed");
}

#[test]
fn the_names_of_exports_do_not_fill_the_cache() {
    let exports = (0..300).flat_map(|index| [string(&format!("{index}").repeat(33_000)), vec![0, 0]].concat());
    let error = refusal(&module(7, &[number(300), exports.collect()].concat()));
    assert_eq!(error.to_string(), "has bytes of exported functions' names beyond the 16777216 that are allowed");
}

#[test]
fn a_name_in_a_message_does_nothing_to_a_terminal() {
    let import = [number(1), string("\x1b[2J"), string("é"), vec![0, 0]].concat();
    let message = refusal(&module(2, &import)).to_string();
    assert!(message.starts_with(r"imports what nobody provides: \u{1b}[2J.é; known are"), "{message}");
}
