//! Someone brings an engine of their own.

mod support;

use std::fs;

use support::{ENGINES, HELLO, Node, engine, guest, operator_config, programs};

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
    let files = fs::read_dir(&cache).expect("a cache").map(|entry| entry.expect("an entry").file_name());
    let names: Vec<_> = files.map(|name| name.into_string().expect("text")).collect();
    let artifacts: Vec<_> = names.iter().filter(|name| name.ends_with(".artifact")).collect();
    assert_eq!(artifacts.len(), 1, "{names:?}");
    assert!(artifacts[0].starts_with(&format!("{chosen}-")), "{names:?}");
}

#[test]
fn a_configuration_that_is_wrong_is_said() {
    let node = Node::start();
    let config = operator_config(&node, "artefactCache: {}\n");
    node.run(&[&config], HELLO, "wrong", &["/hello.wasm"]).assert_refused(&["operator.yaml", "artefactCache"]);
}
