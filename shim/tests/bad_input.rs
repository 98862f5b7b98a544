//! Whatever is wrong with an image or its annotations is said before the guest runs, and leaves nothing behind.

mod support;

use std::fs;
use std::process::Command;

use images::Image;
use support::{ENGINES, HELLO, Node, engine, guest, wasm_image};

const EMPTY_COMMAND: &str = r#"(module (func (export "_start")))"#;

fn component(name: &str, kind: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, version: v1}}\n"
    )
}

#[test]
fn annotations_that_mean_nothing_are_refused_with_what_is_allowed() {
    let node = Node::start();
    let engines = ENGINES.join(", ");
    let cases: [(&str, &[&str]); 5] = [
        ("dapr.wasm/engine=quickjs", &["dapr.wasm/engine", "unknown engine", "quickjs", &engines]),
        ("dapr.wasm/colour=blue", &["dapr.wasm/colour", "dapr.wasm/engine", "dapr.wasm/trigger"]),
        ("dapr.wasm/trigger=cron", &["unknown trigger", "cron", "command, http, state"]),
        ("dapr.wasm/port=99999", &["dapr.wasm/port", "99999"]),
        ("dapr.wasm/components=/nowhere", &["/nowhere"]),
    ];
    for (index, (annotation, words)) in cases.into_iter().enumerate() {
        let run = node.run(&[&format!("--annotation={annotation}")], HELLO, &format!("c{index}"), &["/hello.wasm"]);
        run.assert_refused(words);
    }
    node.assert_nothing_left();
}

#[test]
fn modules_that_cannot_run_are_refused_with_the_reason() {
    let node = Node::start();
    let component = b"\0asm\x0d\0\x01\0".to_vec();
    let truncated = guest("hello")[..4000].to_vec();
    let unknown_import = r#"(module (import "env" "launch" (func)) (func (export "_start")))"#;
    let wrong_type = r#"(module (import "dapr:state/state-interface" "get" (func)) (func (export "_start")))"#;
    let invalid = r#"(module (func (export "_start") (result i32)))"#;
    let wat = |text: &str| wat::parse_str(text).expect("text of a module");
    let cases: [(&str, Vec<u8>, &[&str]); 8] = [
        ("empty", Vec::new(), &["/app.wasm", "is empty"]),
        ("text", b"#!/bin/sh\necho hi\n".to_vec(), &["/app.wasm", "is not WebAssembly"]),
        ("truncated", truncated, &["/app.wasm", "is damaged"]),
        ("component", component, &["/app.wasm", "Wasm component", "not supported yet"]),
        ("import", wat(unknown_import), &["env.launch", "wasi_snapshot_preview1", "dapr:state/state-interface.get"]),
        ("type", wat(wrong_type), &["dapr:state/state-interface.get", "() -> ()"]),
        ("start", wat("(module)"), &["exports no function _start"]),
        ("invalid", wat(invalid), &["/app.wasm"]),
    ];
    for (name, module, words) in cases {
        let image = format!("localhost/test/{name}:1");
        node.import(&wasm_image(&image, module));
        for engine_name in ENGINES {
            let run = node.run(&[&engine(engine_name)], &image, &format!("{name}-{engine_name}"), &[]);
            run.assert_refused(words);
        }
    }
    node.run(&[], HELLO, "missing", &["/nowhere.wasm"]).assert_refused(&["/nowhere.wasm"]);
    node.assert_nothing_left();
}

#[test]
fn an_image_s_configuration_that_is_wrong_is_refused_with_the_reason() {
    let node = Node::start();
    let module = || wat::parse_str(EMPTY_COMMAND).expect("text of a module");
    let outside = node.containerd.folder().join("outside.wasm");
    fs::write(&outside, module()).expect("a module on the node");
    let outside = format!("{}{}", "/..".repeat(20), outside.display());
    let leaves = format!("wasmPath: {outside}\ntrigger: command\n");
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "key",
            "wasmPath: /app.wasm\ncomponentsPath: /components\n",
            &["/config.yaml", "componentsPath", "componentPath"],
        ),
        (
            "instances",
            "wasmPath: /app.wasm\ninstances: once\n",
            &["instances in the image's /config.yaml", "fresh or reuse"],
        ),
        ("yaml", "wasmPath: [", &["/config.yaml"]),
        ("trigger", "wasmPath: /app.wasm\ntrigger: carrier-pigeon\n", &["carrier-pigeon", "command, http, state"]),
        ("port", "wasmPath: /app.wasm\ntrigger: http\nport: 0\n", &["port 0"]),
        ("documents", "wasmPath: /app.wasm\n---\n", &["/config.yaml", "more than one document"]),
        ("outside", &leaves, &[&outside]),
    ];
    for (name, config, words) in cases {
        let image = format!("localhost/test/config-{name}:1");
        node.import(&wasm_image(&image, module()).file("/config.yaml", config));
        node.run(&[], &image, name, &[]).assert_refused(words);
    }
    node.assert_nothing_left();
}

#[test]
fn a_configuration_that_is_not_this_runtime_s_is_the_guest_s_own() {
    let node = Node::start();
    let image = "localhost/test/own:1";
    // Aliases that would take gigabytes, and what is an error elsewhere.
    let many = |what: &str| vec![what; 50_000].join(",");
    let own = format!(
        "port: \"8080\"\ninstances: 3\nhuge: 99999999999999999999\nhuge: 2\na: &a [{}]\nb: [{}]\n",
        many("0"),
        many("*a")
    );
    node.import(
        &Image::new(image)
            .file("/app.wasm", guest("hello"))
            .file("/config.yaml", own.clone())
            .entrypoint(["/app.wasm"]),
    );
    for name in ENGINES {
        let run = node.run(&[&engine(name)], image, name, &["/app.wasm", "cat", "/config.yaml"]);
        assert_eq!(run.stdout(), own, "{}", run.stderr());
    }
    node.assert_nothing_left();
}

#[test]
fn a_link_that_leads_out_of_the_root_finds_nothing() {
    let node = Node::start();
    let outside = node.containerd.folder().join("outside.wasm");
    fs::write(&outside, wat::parse_str(EMPTY_COMMAND).expect("text of a module")).expect("a file");
    let up = format!("/../../../../../../../..{}", outside.display());
    node.import(&Image::new("localhost/test/link:1").link("/app.wasm", up).entrypoint(["/app.wasm"]));
    node.run(&[], "localhost/test/link:1", "link", &[]).assert_refused(&["/app.wasm"]);
    node.assert_nothing_left();
}

/// A library that writes when it is loaded.
fn library(node: &Node) -> Vec<u8> {
    let source = r#"
        #include <unistd.h>
        __attribute__((constructor)) static void begin(void) { write(2, "loaded from the image", 21); }
    "#;
    let folder = node.containerd.folder();
    let (code, library) = (folder.join("library.c"), folder.join("library.so"));
    fs::write(&code, source).expect("a file");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &code]).status();
    assert!(compiled.expect("cc").success());
    fs::read(library).expect("a library")
}

/// The C library would have the image say how names are looked up, and take the code for it from there.
#[test]
fn a_name_is_looked_up_in_the_container_s_hosts_by_no_code_of_its_image() {
    let node = Node::start();
    let state = "kind: Component\nmetadata: {name: state}\nspec:\n  type: state.redis\n  metadata:\n  \
                 - {name: redisHost, value: \"database.test:6379\"}\n  - {name: dialTimeout, value: 100ms}\n";
    let image = "localhost/test/lookup:1";
    let looking = Image::new(image)
        .file("/state.wasm", guest("state"))
        .file("/config.yaml", "wasmPath: /state.wasm\ntrigger: state\ncomponentPath: /components\n")
        .file("/components/state.yaml", state)
        // libcontainer looks for the home of a user whose environment has none.
        .file("/etc/nsswitch.conf", "hosts: image\npasswd: image\ngroup: image\n")
        .file("/etc/hosts", "127.0.0.1 database.test\n")
        .file("/lib/libnss_image.so.2", library(&node))
        .entrypoint(["/state.wasm"]);
    node.import(&looking);
    for name in ENGINES {
        let run = node.run(&[&engine(name)], image, name, &[]);
        // The address was found, in a network that has none.
        let unreachable = "unavailable: component state: redis at database.test:6379: Network is unreachable";
        assert!(run.stderr().starts_with(unreachable), "{name}: {}", run.stderr());
    }
}

#[test]
fn components_that_cannot_be_are_refused_with_all_their_faults() {
    let node = Node::start();
    let module = || wat::parse_str(EMPTY_COMMAND).expect("text of a module");
    let image = |name: &str, files: &[(&str, String)]| {
        let image = wasm_image(name, module())
            .file("/config.yaml", "wasmPath: /app.wasm\ntrigger: command\ncomponentPath: /components\n");
        files.iter().fold(image, |image, (path, content)| image.file(*path, content.clone()))
    };
    node.import(&image("localhost/test/type:1", &[("/components/a.yaml", component("a", "state.punchcards"))]));
    node.run(&[], "localhost/test/type:1", "type", &[]).assert_refused(&[
        "a.yaml",
        "state.punchcards",
        "state.in-memory",
        "state.redis",
        "state.sqlite",
    ]);
    assert!(node.containerd.wait_for_log("the container failed").ends_with("container.id=type"));
    let twice = [
        ("/components/a.yaml", component("same", "state.in-memory")),
        ("/components/b.yaml", component("same", "state.in-memory")),
    ];
    node.import(&image("localhost/test/twice:1", &twice));
    node.run(&[], "localhost/test/twice:1", "twice", &[]).assert_refused(&["same", "b.yaml"]);
    node.assert_nothing_left();
}

/// Whoever cleans up behind a container ends all that runs in its cgroup.
#[test]
fn a_cgroup_that_another_container_runs_in_is_refused_and_the_other_goes_on() {
    let node = Node::start();
    let parent = format!("--cgroup=/{}", node.containerd.namespace());
    let shared = format!("{parent}/shared");
    node.start_detached(&[&shared], HELLO, "first", &["/hello.wasm", "daemon"]);
    let pid = node.pid("first");
    for cgroup in [&shared, &parent] {
        for name in ENGINES {
            let run = node.run(&[cgroup, &engine(name)], HELLO, name, &["/hello.wasm", "echo", "hi"]);
            run.assert_refused(&[node.containerd.namespace(), &format!("is not empty: process {pid} runs in it")]);
        }
    }
    assert_eq!(node.pid("first"), pid);
    let tasks = node.ctr(&["task", "ls"]).stdout();
    assert!(tasks.lines().any(|line| line.starts_with("first ") && line.contains("RUNNING")), "{tasks}");
    assert_eq!(node.end("first", "SIGTERM"), 143);
    let run = node.run(&[&shared], HELLO, "second", &["/hello.wasm", "echo", "hi"]);
    assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "{}", run.stderr());
    node.assert_nothing_left();
}

#[test]
fn a_volume_that_is_not_there_is_named() {
    let node = Node::start();
    let missing = "--mount=type=bind,src=/nowhere/at/all,dst=/data,options=rbind:ro";
    node.run(&[missing], HELLO, "missing", &["/hello.wasm"]).assert_refused(&[
        "/nowhere/at/all",
        "/data",
        "No such file or directory",
    ]);
    node.assert_nothing_left();
}

#[test]
fn a_guest_host_that_dies_while_it_makes_a_container_is_said_to_have_done_so() {
    let node = Node::start();
    let operator = node.containerd.folder().join("operator.yaml");
    fs::write(&operator, "guestHost: /bin/true\n").expect("a file");
    let operator = format!("--runtime-config-path={}", operator.display());
    node.run(&[&operator], HELLO, "dies", &["/hello.wasm", "echo", "hi"])
        .assert_refused(&["the guest host ended before"]);
    node.assert_nothing_left();
}

#[test]
fn a_port_in_use_is_refused() {
    let node = Node::start();
    let taken = std::net::TcpListener::bind("[::]:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    node.import(
        &Image::new("localhost/test/http:1")
            .file("/http.wasm", guest("http"))
            .file("/config.yaml", "wasmPath: /http.wasm\ntrigger: http\n")
            .entrypoint(["/http.wasm"]),
    );
    for name in ENGINES {
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        let run = node.run(&["--net-host", &engine(name), &port_option], "localhost/test/http:1", name, &[]);
        run.assert_refused(&[&format!("port {port}"), "in use"]);
    }
    node.assert_nothing_left();
}

/// Of other shapes than this runtime's: what it says is nobody's concern.
#[test]
fn a_configuration_of_any_shape_can_be_the_guest_s_own() {
    let node = Node::start();
    let large = format!("wasmPath: /nowhere.wasm\n# {}\n", "x".repeat(1 << 20));
    for (name, own) in [("list", "- wasmPath: 1\n"), ("documents", "a: 1\n---\nb: 2\n"), ("large", &large)] {
        let image = format!("localhost/test/own-{name}:1");
        node.import(
            &Image::new(&image).file("/app.wasm", guest("hello")).file("/config.yaml", own).entrypoint(["/app.wasm"]),
        );
        let run = node.run(&[], &image, name, &["/app.wasm", "echo", "hi"]);
        assert_eq!(run.stdout(), "hi\n", "{name}: {}", run.stderr());
    }
    node.assert_nothing_left();
}

#[test]
fn dapr_s_port_is_refused_only_where_it_counts() {
    let node = Node::start();
    let annotation = "--annotation=dapr.io/app-port=99999";
    let run = node.run(&[annotation], HELLO, "command", &["/hello.wasm", "echo", "hi"]);
    assert_eq!(run.stdout(), "hi\n", "{}", run.stderr());
    let http = "--annotation=dapr.wasm/trigger=http";
    node.run(&[annotation, http], HELLO, "http", &["/hello.wasm"]).assert_refused(&["dapr.io/app-port", "99999"]);
    node.assert_nothing_left();
}
