//! Someone brings an engine of their own.

mod support;

use std::fs;

use support::{ENGINES, HELLO, Node, engine, guest, programs};

/// `ctr` hands the operator's configuration to the runtime by this option.
fn operator_config(node: &Node, text: &str) -> String {
    let path = node.containerd.folder().join("operator.yaml");
    fs::write(&path, text).expect("a file");
    format!("--runtime-config-path={}", path.display())
}

#[test]
fn an_engine_of_one_s_own_runs_beside_the_built_in_ones() {
    let node = Node::start();
    let guest_host = programs().join("examples/toy-guest-host");
    let config = operator_config(&node, &format!("guestHost: {}\n", guest_host.display()));
    let length = guest("hello").len();

    let run = node.run(&[&config, &engine("toy")], HELLO, "toy", &["/hello.wasm"]);
    assert_eq!(run.stdout(), format!("_start of a module of {length} bytes\n"), "{}", run.stderr());
    let run = node.run(&[&config, &engine(ENGINES[0])], HELLO, "built-in", &["/hello.wasm", "echo", "hi"]);
    assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    node.assert_nothing_left();
}

#[test]
fn the_operator_chooses_the_default_engine_and_the_cache() {
    let node = Node::start();
    let cache = node.containerd.folder().join("cache");
    let chosen = ENGINES.last().expect("an engine");
    let text =
        format!("defaultEngine: {chosen}\nartifactCache: {{folder: {}, maxBytes: 100000000}}\n", cache.display());
    let config = operator_config(&node, &text);
    let run = node.run(&[&config], HELLO, "default", &["/hello.wasm", "echo", "hi"]);
    assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    let cached: Vec<_> = fs::read_dir(&cache).expect("a cache").map(|entry| entry.expect("an entry")).collect();
    assert_eq!(cached.len(), 1, "{cached:?}");
    assert!(cached[0].file_name().to_string_lossy().starts_with(&format!("{chosen}-")), "{cached:?}");
}

#[test]
fn a_configuration_that_is_wrong_is_said() {
    let node = Node::start();
    let config = operator_config(&node, "artefactCache: {}\n");
    node.run(&[&config], HELLO, "wrong", &["/hello.wasm"]).assert_refused(&["operator.yaml", "artefactCache"]);
}
