//! Guests with Dapr state and with requests to answer.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use images::Image;
use support::{ENGINES, Node, engine, free_port, guest};
use testbed::redis::RedisServer;

const STATE: &str = "localhost/dapr-wasm/state:dev";
const HTTP: &str = "localhost/dapr-wasm/http:dev";

/// An image of a guest with a trigger and components.
fn image(name: &str, guest_name: &str, trigger: &str) -> Image {
    let path = format!("/{guest_name}.wasm");
    let config = format!("wasmPath: {path}\ntrigger: {trigger}\ncomponentPath: /components\n");
    Image::new(name)
        .file(&path, guest(guest_name))
        .file("/config.yaml", config)
        .directory("/components")
        .entrypoint([path])
}

/// The option that puts a folder with a component `state` in the place of the image's.
fn components(node: &Node, kind: &str, item: &str, value: &str) -> String {
    let folder = node.containerd.folder().join(kind);
    std::fs::create_dir_all(&folder).expect("a folder");
    let manifest = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: state}}\n\
         spec:\n  type: {kind}\n  version: v1\n  metadata:\n  - {{name: {item}, value: \"{value}\"}}\n"
    );
    std::fs::write(folder.join("state.yaml"), manifest).expect("a manifest");
    bind(&folder, "/components", "ro")
}

fn bind(from: &Path, to: &str, mode: &str) -> String {
    format!("--mount=type=bind,src={},dst={to},options=rbind:{mode}", from.display())
}

fn request(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the guest listens");
    stream.write_all(format!("{request}\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn state_lies_in_redis_as_dapr_has_it() {
    let node = Node::start();
    let redis = RedisServer::start();
    node.import(&image(STATE, "state", "state"));
    let components = components(&node, "state.redis", "redisHost", &format!("127.0.0.1:{}", redis.port()));
    for (round, name) in ENGINES.iter().enumerate() {
        let version = (round + 1).to_string();
        let run = node.run(&["--net-host", &engine(name), &components], STATE, name, &[]);
        assert_eq!((run.stdout().trim_end(), run.status()), ("value", 0), "{name}: {}", run.stderr());
        let stored: Vec<String> = redis.command(&["HGETALL", "z"]);
        assert_eq!(stored, ["data", "value", "version", &version], "{name}");

        let app_id = "--annotation=dapr.wasm/app-id=myapp";
        let run = node.run(&["--net-host", &engine(name), &components, app_id], STATE, &format!("{name}-app"), &[]);
        assert_eq!(run.status(), 0, "{name}: {}", run.stderr());
        let stored: Vec<String> = redis.command(&["HGETALL", "myapp||z"]);
        assert_eq!(stored, ["data", "value", "version", &version], "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn state_in_sqlite_outlives_the_container() {
    let node = Node::start();
    node.import(&image(STATE, "state", "state"));
    let data = node.containerd.folder().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let components = components(&node, "state.sqlite", "connectionString", "/data/state.db");
    let data = bind(&data, "/data", "rw");
    for &name in ENGINES {
        let run = |container: &str, words: &[&str]| {
            let mut arguments = vec!["/state.wasm"];
            arguments.extend(words);
            node.run(&[&engine(name), &components, &data], STATE, &format!("{name}-{container}"), &arguments)
        };
        let set = run("set", &["set", "key", name]);
        assert_eq!(set.status(), 0, "{}", set.stderr());
        assert_eq!(run("get", &["get", "key"]).stdout().trim_end(), name);
    }
    node.assert_nothing_left();
}

#[test]
fn a_store_that_cannot_be_reached_is_an_error_that_the_guest_can_print() {
    let node = Node::start();
    node.import(&image(STATE, "state", "state"));
    let components = components(&node, "state.redis", "redisHost", &format!("127.0.0.1:{}", free_port()));
    for name in ENGINES {
        let run = node.run(&["--net-host", &engine(name), &components], STATE, name, &[]);
        assert_eq!(run.status(), 1, "{name}: {}", run.stderr());
        assert!(run.stderr().contains("unavailable: "), "{name}: {}", run.stderr());
    }
}

#[test]
fn the_next_call_works_once_a_store_is_back() {
    let node = Node::start();
    let mut redis = RedisServer::start();
    node.import(&image(HTTP, "http", "http"));
    let components = components(&node, "state.redis", "redisHost", &format!("127.0.0.1:{}", redis.port()));
    for name in ENGINES {
        let port = free_port();
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        node.start_detached(&["--net-host", &engine(name), &components, &port_option], HTTP, name, &[]);
        let visit = || request(port, "GET /visits HTTP/1.1");
        assert!(visit().starts_with("HTTP/1.1 200"), "{name}");
        redis.stop();
        let answer = visit();
        assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("unavailable: "), "{name}: {answer}");
        redis.restart();
        let answer = visit();
        assert!(answer.trim_end().ends_with("\r\n1"), "{name}: {answer}");
        node.end(name, "SIGKILL");
    }
}

#[test]
fn an_http_guest_answers_counts_and_ends_on_sigterm() {
    let node = Node::start();
    let redis = RedisServer::start();
    node.import(&image(HTTP, "http", "http"));
    let components = components(&node, "state.redis", "redisHost", &format!("127.0.0.1:{}", redis.port()));
    let mut visits = 0;
    for name in ENGINES {
        let port = free_port();
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        node.start_detached(&["--net-host", &engine(name), &components, &port_option], HTTP, name, &[]);
        let hello = request(port, "GET / HTTP/1.1");
        assert!(hello.starts_with("HTTP/1.1 200 OK") && hello.ends_with("Hello from WASM!"), "{name}: {hello}");
        for _ in 0..2 {
            visits += 1;
            let answer = request(port, "GET /visits HTTP/1.1");
            assert!(answer.trim_end().ends_with(&format!("\r\n{visits}")), "{name}: {answer}");
        }
        assert!(request(port, "GET /trap HTTP/1.1").starts_with("HTTP/1.1 500"), "{name}");
        assert!(request(port, "GET / HTTP/1.1").starts_with("HTTP/1.1 200"), "{name}: after a trap");
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}
