//! Guests with Dapr state and with requests to answer.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use images::Image;
use support::{ENGINES, HELLO, Node, engine, free_port, guest, operator_config};
use testbed::containerd::PATIENCE;
use testbed::redis::RedisServer;

const STATE: &str = "localhost/dapr-wasm/state:dev";
const HTTP: &str = "localhost/dapr-wasm/http:dev";
const GREETER: &str = "localhost/dapr-wasm/greeter:dev";

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
fn the_operator_s_components_are_those_of_the_node() {
    let node = Node::start();
    // It has a component `state` itself, which the container's folder has not.
    let folder = node.containerd.folder().join("node-components");
    std::fs::create_dir_all(&folder).expect("a folder");
    let manifest = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: state}\nspec: {type: state.in-memory, version: v1}\n";
    std::fs::write(folder.join("state.yaml"), manifest).expect("a manifest");
    node.import(&image(STATE, "state", "state"));
    let config = operator_config(&node, &format!("components: {}\n", folder.display()));
    for name in ENGINES {
        let run = node.run(&[&config, &engine(name)], STATE, name, &[]);
        assert_eq!((run.stdout().trim_end(), run.status()), ("value", 0), "{name}: {}", run.stderr());
    }
    let config = operator_config(&node, "components: /nowhere\n");
    node.run(&[&config], STATE, "nowhere", &[]).assert_refused(&["/nowhere: cannot be read: No such file"]);
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

/// A component `name` of Redis whose `item` is the secret of this name.
fn with_secret(redis: &RedisServer, name: &str, item: &str, secret: &str) -> String {
    format!(
        "---\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: state.redis\n  metadata:\n  \
         - {{name: redisHost, value: '{}'}}\n  - {{name: {item}, secretKeyRef: {{name: {secret}}}}}\nauth: {{secretStore: file}}\n",
        redis.host()
    )
}

#[test]
fn a_secret_is_in_no_log_no_error_no_stream_and_no_environment() {
    const MARK: &str = "hunter2";
    let node = Node::start();
    node.import(&image(STATE, "state", "state"));
    let redis = RedisServer::start_with(&["--requirepass", "hunter2-right"]);
    let mount = |folder: &str, file: &str, text: &str| {
        let path = node.containerd.folder().join(folder);
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join(file), text).expect("a file");
        bind(&path, &format!("/{folder}"), "ro")
    };
    let secrets = mount("secrets", "s.json", r#"{"right": "hunter2-right", "wrong": "hunter2-wrong"}"#);
    let vault = "kind: Component\nmetadata: {name: file}\nspec:\n  type: secretstores.local.file\n  metadata:\n  \
                 - {name: secretsFile, value: /secrets/s.json}\n";
    let usable =
        [("state", "redisPassword", "right"), ("locked", "redisPassword", "wrong"), ("odd", "unheardOf", "wrong")];
    let usable = usable.map(|(name, item, secret)| with_secret(&redis, name, item, secret)).concat();
    let components = mount("components", "c.yaml", &format!("{vault}{usable}"));
    let unusable = mount("unusable", "c.yaml", &format!("{vault}{}", with_secret(&redis, "state", "redisDB", "wrong")));
    let mut written = String::new();
    let mut run = |image: &str, container: String, more: &[&str], words: &[&str]| {
        let options = [&["--net-host", &secrets, &components, &unusable], more].concat();
        let run = node.run(&options, image, &container, words);
        written += &format!("{}{}", run.stdout(), run.stderr());
        run
    };
    for name in ENGINES {
        let engine = engine(name);
        let right = run(STATE, format!("{name}-right"), &[&engine], &[]);
        assert_eq!((right.stdout().trim_end(), right.status()), ("value", 0), "{}", right.stderr());
        let wrong = ["/state.wasm", "get", "z", "--store", "locked"];
        let wrong = run(STATE, format!("{name}-wrong"), &[&engine], &wrong);
        assert!(wrong.stderr().starts_with("permission-denied: component locked: "), "{}", wrong.stderr());
        let folder = |path: &str| format!("--annotation=dapr.wasm/components=/{path}");
        let environment = ["/hello.wasm", "env"];
        let environment = run(HELLO, format!("{name}-env"), &[&engine, &folder("components")], &environment);
        assert!(environment.stdout().contains("PATH="), "{}", environment.stderr());
        let refused = run(STATE, format!("{name}-refused"), &[&engine, &folder("unusable")], &[]);
        refused.assert_refused(&["component state: `redisDB` must be a whole number"]);
    }
    let log = node.containerd.log();
    assert!(log.contains("component odd: state.redis knows no unheardOf"), "{log}");
    assert!(!written.contains(MARK), "{written}");
    assert!(!log.contains(MARK), "{log}");
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

/// The guest of docs/first-guest.md, with the files that its reader writes.
fn greeter() -> Image {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/guests/greeter");
    let file = |name: &str| std::fs::read(folder.join(name)).expect("a file of the tutorial");
    Image::new(GREETER)
        .file("/greeter.wasm", guest("greeter"))
        .file("/config.yaml", file("config.yaml"))
        .directory("/components")
        .file("/components/state.yaml", file("components/state.yaml"))
        .entrypoint(["/greeter.wasm"])
}

fn greet(port: u16, who: &str) -> String {
    request(port, &format!("GET /{who} HTTP/1.1"))
}

#[test]
fn the_guest_of_the_tutorial_greets_and_counts() {
    let node = Node::start();
    let redis = RedisServer::start();
    node.import(&greeter());
    let in_redis = components(&node, "state.redis", "redisHost", &format!("127.0.0.1:{}", redis.port()));
    let nothing = node.containerd.folder().join("no-components");
    std::fs::create_dir(&nothing).expect("a folder");
    let nowhere = bind(&nothing, "/components", "ro");
    for &name in ENGINES {
        let start = |more: &[&str]| {
            let port = free_port();
            let (engine, port_option) = (engine(name), format!("--annotation=dapr.wasm/port={port}"));
            let options = [&["--net-host", &engine, &port_option], more].concat();
            node.start_detached(&options, GREETER, name, &[]);
            port
        };
        let port = start(&[]);
        for count in 1..=2 {
            let answer = greet(port, "Ada");
            let greeting = format!("\r\n\r\nHello, Ada! This is greeting number {count}.\n");
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(&greeting), "{name}: {answer}");
        }
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");

        let port = start(&[&in_redis]);
        let many: Vec<String> = thread::scope(|scope| {
            let greetings: Vec<_> = (0..50).map(|_| scope.spawn(|| greet(port, name))).collect();
            greetings.into_iter().map(|greeting| greeting.join().expect("an answer")).collect()
        });
        let mut counts: Vec<&str> = many.iter().map(|answer| answer.rsplit(' ').next().unwrap_or_default()).collect();
        counts.sort_by_key(|count| (count.len(), *count));
        assert!(counts.iter().copied().eq((1..=50).map(|count| format!("{count}.\n"))), "{name}: {many:?}");
        let stored: String = redis.command(&["HGET", name, "data"]);
        assert_eq!(stored, "50", "{name}");
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");

        let port = start(&[&nowhere]);
        let answer = greet(port, "Ada");
        let error = "\r\n\r\nno state store \"state\"; configured: none\n";
        assert!(answer.starts_with("HTTP/1.1 500") && answer.ends_with(error), "{name}: {answer}");
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}

/// Asks a guest for what only this test's own server can give, and hands over that server's end of the connection
/// and what waits for the answer.
fn ask_for_something_slow(port: u16) -> (TcpStream, thread::JoinHandle<String>) {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = upstream.local_addr().expect("an address");
    let answer = thread::spawn(move || request(port, &format!("GET /upstream?url=http://{address}/ HTTP/1.1")));
    (upstream.accept().expect("the guest's own request").0, answer)
}

fn wait_until_connections_are_refused(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "the guest still takes connections");
    }
}

#[test]
fn a_guest_that_is_told_to_end_takes_no_new_requests_and_answers_the_one_it_has() {
    let node = Node::start();
    node.import(&image(HTTP, "http", "http"));
    for name in ENGINES {
        let port = free_port();
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        node.start_detached(&["--net-host", &engine(name), &port_option], HTTP, name, &[]);
        let (mut upstream, answer) = ask_for_something_slow(port);
        assert_eq!(node.ctr(&["task", "kill", "-s", "SIGTERM", name]).status(), 0, "{name}");
        wait_until_connections_are_refused(port);
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").expect("the guest waits for it");
        let answer = answer.join().expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"), "{name}: {answer}");
        assert_eq!(node.exit_code(name), 143, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn a_second_signal_does_not_wait_for_the_requests_in_flight() {
    let node = Node::start();
    node.import(&image(HTTP, "http", "http"));
    for name in ENGINES {
        let port = free_port();
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        node.start_detached(&["--net-host", &engine(name), &port_option], HTTP, name, &[]);
        let (_upstream, answer) = ask_for_something_slow(port);
        assert_eq!(node.ctr(&["task", "kill", "-s", "SIGTERM", name]).status(), 0, "{name}");
        wait_until_connections_are_refused(port);
        assert_eq!(node.end(name, "SIGINT"), 143, "{name}: the first one's");
        assert_eq!(answer.join().expect("no panic"), "", "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn one_more_process_of_a_container_has_its_components() {
    let node = Node::start();
    node.import(
        &Image::new(STATE)
            .file("/http.wasm", guest("http"))
            .file("/state.wasm", guest("state"))
            .file("/config.yaml", "wasmPath: /http.wasm\ntrigger: http\ncomponentPath: /components\n")
            .directory("/components")
            .entrypoint(["/http.wasm"]),
    );
    let components = components(&node, "state.sqlite", "connectionString", "/data/state.db");
    for name in ENGINES {
        let data = node.containerd.folder().join(name);
        std::fs::create_dir(&data).expect("a folder");
        let port = free_port();
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        let options = ["--net-host", &engine(name), &components, &bind(&data, "/data", "rw"), &port_option];
        node.start_detached(&options, STATE, name, &[]);
        assert!(request(port, "GET /visits HTTP/1.1").starts_with("HTTP/1.1 200"), "{name}");
        let exec = node.ctr(&["task", "exec", "--exec-id", "more", name, "/state.wasm", "get", "visits"]);
        assert_eq!((exec.stdout().trim_end(), exec.status()), ("1", 0), "{name}: {}", exec.stderr());
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}
