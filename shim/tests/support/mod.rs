//! A node: a containerd with the shim of this build, and the ways of a user with it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod events;
pub mod task_client;
pub mod terminal;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use images::Image;
use testbed::containerd::{Containerd, PATIENCE};

pub const RUNTIME: &str = "io.containerd.dapr.v1";
/// The engines compiled in.
pub const ENGINES: &[&str] = &[
    #[cfg(feature = "wasmtime")]
    "wasmtime",
    #[cfg(feature = "wasmer")]
    "wasmer",
];
pub const HELLO: &str = "localhost/dapr-wasm/hello:dev";

/// The folder of the programs under test.
pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_containerd-shim-dapr-v1")).parent().expect("a program is in a folder").to_owned()
}

/// A guest that `make guests` compiled.
pub fn guest(name: &str) -> Vec<u8> {
    let path = programs().join(format!("../guests/{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `make guests` compiles it", path.display()))
}

/// Linux's usual tools in one program that needs no other file.
pub fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("busybox, from the Debian package busybox-static")
}

/// A guest written in text.
pub fn wat_guest(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../conformance/guests/wat/{name}.wat"));
    wat::parse_file(path).expect("a valid module")
}

/// An image of one Wasm file, its entry point.
pub fn wasm_image(name: &str, module: impl Into<Vec<u8>>) -> Image {
    Image::new(name).file("/app.wasm", module).entrypoint(["/app.wasm"])
}

pub struct Node {
    pub containerd: Containerd,
}

impl Node {
    /// A node that has the image of `hello`.
    pub fn start() -> Self {
        Self::start_with_environment(&[])
    }

    /// The same, with variables for the shim.
    pub fn start_with_environment(environment: &[(&str, &str)]) -> Self {
        let node = Self { containerd: Containerd::start_with_environment(&[&programs()], environment) };
        node.import(&Image::new(HELLO).file("/hello.wasm", guest("hello")).entrypoint(["/hello.wasm"]));
        node
    }

    pub fn import(&self, image: &Image) {
        let archive = self.containerd.folder().join("image.tar");
        image.write_archive(fs::File::create(&archive).expect("an archive")).expect("an image");
        self.containerd.import(&archive);
    }

    /// `ctr run` with this runtime: options before the image, then the container's name and its arguments.
    pub fn run_command(&self, options: &[&str], image: &str, name: &str, arguments: &[&str]) -> Command {
        let mut words = vec!["run", "--runtime", RUNTIME];
        words.extend(options);
        words.extend([image, name]);
        words.extend(arguments);
        self.containerd.ctr_command(&words)
    }

    /// Runs a container to its end and removes it.
    pub fn run(&self, options: &[&str], image: &str, name: &str, arguments: &[&str]) -> Run {
        let mut all = vec!["--rm"];
        all.extend(options);
        Run(self.run_command(&all, image, name, arguments).output().expect("ctr"))
    }

    /// Starts a container without streams and leaves it running.
    pub fn start_detached(&self, options: &[&str], image: &str, name: &str, arguments: &[&str]) {
        let mut all = vec!["--null-io"];
        all.extend(options);
        self.start_logged(&all, image, name, arguments);
    }

    /// The same with the streams that an option says.
    pub fn start_logged(&self, options: &[&str], image: &str, name: &str, arguments: &[&str]) {
        let mut all = vec!["--detach"];
        all.extend(options);
        let run = Run(self.run_command(&all, image, name, arguments).output().expect("ctr"));
        assert!(run.0.status.success(), "{}", run.stderr());
    }

    /// The pid of a container's first process.
    pub fn pid(&self, container: &str) -> i32 {
        let tasks = self.ctr(&["task", "ls"]).stdout();
        let task = tasks.lines().find(|line| line.starts_with(&format!("{container} "))).expect("a task");
        task.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid")
    }

    /// Sends a signal to a detached container, waits for its end, removes it and answers its exit code.
    pub fn end(&self, name: &str, signal: &str) -> i32 {
        let killed = self.ctr(&["task", "kill", "-s", signal, name]);
        assert_eq!(killed.status(), 0, "{name}: {}", killed.stderr());
        self.exit_code(name)
    }

    /// Waits for the end of a container, removes it and answers its exit code.
    pub fn exit_code(&self, name: &str) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        let deleted = loop {
            let deleted = self.ctr(&["task", "delete", name]);
            if !deleted.stderr().contains("must be stopped") || Instant::now() > deadline {
                break deleted.stderr();
            }
        };
        assert_eq!(self.ctr(&["container", "delete", name]).status(), 0, "{name}: {deleted}");
        // `task delete` succeeds, and says the code where it is not 0.
        let code = deleted.split("non-zero exit code ").nth(1).map(|rest| rest.trim_end_matches(['"', '\n']));
        code.map_or(0, |code| code.parse().expect("a number"))
    }

    pub fn ctr(&self, words: &[&str]) -> Run {
        Run(self.containerd.ctr(words))
    }

    /// Nothing may be left of the containers that were removed.
    pub fn assert_nothing_left(&self) {
        let leftovers = self.containerd.leftovers();
        assert!(leftovers.is_empty(), "left behind:\n{}", leftovers.join("\n"));
    }
}

/// A finished `ctr`.
#[derive(Debug)]
pub struct Run(pub Output);

impl Run {
    pub fn status(&self) -> i32 {
        self.0.status.code().expect("ctr was not killed")
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The run failed before the guest ran, and said all of this.
    pub fn assert_refused(&self, words: &[&str]) {
        assert_ne!(self.status(), 0, "{self:?}");
        for word in words {
            assert!(self.stderr().contains(word), "no {word:?} in: {}", self.stderr());
        }
    }
}

/// `ctr` hands the operator's configuration to the runtime by this option.
pub fn operator_config(node: &Node, text: &str) -> String {
    let path = node.containerd.folder().join("operator.yaml");
    fs::write(&path, text).expect("a file");
    format!("--runtime-config-path={}", path.display())
}

/// A port of this machine that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// The option that chooses an engine.
pub fn engine(name: &str) -> String {
    format!("--annotation=dapr.wasm/engine={name}")
}

/// A program that prints what it reads: each line at once, and all of it before its end.
pub fn assert_echoes_until_its_input_ends(mut command: Command) {
    let mut ctr = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ctr");
    let mut stdin = ctr.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(ctr.stdout.take().expect("a pipe"));
    stdin.write_all(b"one\n").expect("ctr reads");
    let mut line = String::new();
    stdout.read_line(&mut line).expect("text");
    assert_eq!(line, "one\n", "{command:?}");
    // Once it runs: the ctr of 1.6 forgets to pass on the end of an input that is over before the task exists.
    stdin.write_all(b"two\n").expect("ctr reads");
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "two\n", "{command:?}");
    assert!(ctr.wait().expect("ctr ends").success(), "{command:?}");
}
