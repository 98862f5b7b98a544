//! A module that has taken over its compiler finds itself without rights.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use images::Image;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use support::{Node, Run, busybox, engine, operator_config, programs, wasm_image};
use testbed::containerd::PATIENCE;

const ENGINE: &str = "hostile";

/// A node whose compiler does what modules say.
struct HostileNode {
    node: Node,
    config: String,
}

/// One that has its compiler do this.
fn module(what: &str) -> Vec<u8> {
    let text = format!(r#"(module (func (export "_start")) (@custom "attempt" (after last) "{what}"))"#);
    wat::parse_str(text).expect("text of a module")
}

/// A process whose end can be waited for.
struct Watched(OwnedFd);

impl Watched {
    fn of(pid: i32) -> Self {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        Self(pidfd_open(pid, PidfdFlags::empty()).expect("a process"))
    }

    fn assert_ends(&self) {
        let patience = Timespec::try_from(PATIENCE).expect("a short time");
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience)).expect("a pidfd");
        assert_eq!(ready, 1, "it goes on");
    }
}

impl HostileNode {
    fn start(compiler: &str) -> Self {
        let node = Node::start();
        let guest_host = programs().join("examples/hostile-guest-host");
        let cache = node.containerd.folder().join("cache");
        let text = format!(
            "guestHost: {}\nartifactCache: {{folder: {}}}\ncompiler: {compiler}\n",
            guest_host.display(),
            cache.display()
        );
        let config = operator_config(&node, &text);
        Self { node, config }
    }

    /// Imports an image whose module has its compiler do this.
    fn image(&self, what: &str) -> String {
        let image = format!("localhost/test/{}:1", what.replace(' ', "-"));
        self.node.import(&wasm_image(&image, module(what)));
        image
    }

    fn run(&self, what: &str) -> Run {
        let image = self.image(what);
        self.node.run(&[&self.config, &engine(ENGINE)], &image, &what.replace(' ', "-"), &[])
    }
}

#[test]
fn a_compiler_has_no_files_no_network_and_no_other_processes() {
    let node = HostileNode::start("{}");
    let attempts = [
        "read a file",
        "read a folder",
        "write a file",
        "look for a file",
        "connect",
        "execute",
        "signal",
        "become root",
        "share memory",
    ];
    let reports = attempts.map(|what| {
        let run = node.run(what);
        assert!(run.stdout().starts_with(&format!("{what}: ")), "{}{}", run.stdout(), run.stderr());
        run.stdout()
    });
    let successes: Vec<_> = reports.iter().filter(|report| !report.contains("not permitted")).collect();
    assert!(successes.is_empty(), "{successes:?}");
    assert_eq!(node.run("use threads").stdout(), "use threads: done\n");
    node.node.assert_nothing_left();
}

#[test]
fn a_compiler_is_a_user_of_its_own_without_capabilities_or_descriptors() {
    let node = HostileNode::start("{}");
    let image = node.image("loop");
    let command = node.node.run_command(&["--rm", &node.config, &engine(ENGINE)], &image, "loop", &[]);
    let run = thread::spawn(move || Run({ command }.output().expect("ctr")));
    let compiler = confined_compiler(&node.node.containerd.folder().join("cache"));

    let status = fs::read_to_string(format!("/proc/{compiler}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).to_owned()
    };
    let user = (2_000_000_000 + compiler).to_string();
    assert_eq!(field("Uid"), [&*user; 4].join("\t"));
    assert_eq!(field("Gid"), [&*user; 4].join("\t"));
    assert_eq!(field("Groups").trim(), "");
    for kind in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(kind), "0000000000000000", "{kind}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".to_owned(), "2".to_owned()));
    for descriptor in fs::read_dir(format!("/proc/{compiler}/fd")).expect("its descriptors") {
        let descriptor = descriptor.expect("a descriptor").path();
        let file = fs::read_link(&descriptor).expect("a link");
        assert!(file.to_string_lossy().starts_with("/memfd:"), "{}: {}", descriptor.display(), file.display());
    }

    kill(Pid::from_raw(compiler), Signal::SIGKILL).expect("it is there");
    run.join().expect("ctr").assert_refused(&["/app.wasm", "the compiler ended with signal: 9"]);
    node.node.assert_nothing_left();
}

/// The process that compiles for the containers of a node, once it has given up its rights. Its guest host holds a lock
/// in the node's cache.
fn confined_compiler(cache: &Path) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let processes = fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path()));
        let compiler = processes.filter(|process| is_confined_compiler(process)).find(|process| is_for(process, cache));
        if let Some(pid) = compiler.and_then(|process| process.file_name()?.to_str()?.parse().ok()) {
            return pid;
        }
        assert!(Instant::now() < deadline, "nobody compiles");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_confined_compiler(process: &Path) -> bool {
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    arguments.windows(16).any(|words| words == b"\0compile\0hostile") && status.contains("Seccomp:\t2")
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("a parent");
    parent.parse().expect("a number")
}

fn is_for(process: &Path, cache: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap_or_default();
    let files = fs::read_dir(PathBuf::from(format!("/proc/{parent}/fd"))).into_iter().flatten();
    files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|file| file.starts_with(cache))
}

#[test]
fn nothing_is_compiled_for_a_client_that_has_gone() {
    let node = HostileNode::start("{}");
    let image = node.image("loop");
    let mut command = node.node.run_command(&[&node.config, &engine(ENGINE)], &image, "loop", &[]);
    let mut ctr = command.spawn().expect("ctr");
    let compiler = Watched::of(confined_compiler(&node.node.containerd.folder().join("cache")));
    ctr.kill().expect("it waits");
    ctr.wait().expect("its end");
    compiler.assert_ends();
    let deadline = Instant::now() + PATIENCE;
    while node.node.containerd.bundle("loop").exists() {
        assert!(Instant::now() < deadline, "its bundle stays");
        thread::sleep(Duration::from_millis(10));
    }
    let deleted = node.node.ctr(&["container", "delete", "loop"]);
    assert_eq!(deleted.status(), 0, "{}", deleted.stderr());
    node.node.assert_nothing_left();
}

#[test]
fn nothing_is_compiled_or_made_for_a_shim_that_was_killed() {
    let node = HostileNode::start("{}");
    let image = node.image("loop");
    let mut command = node.node.run_command(&[&node.config, &engine(ENGINE)], &image, "loop", &[]);
    let ctr = command.stderr(Stdio::piped()).spawn().expect("ctr");
    let compiler = confined_compiler(&node.node.containerd.folder().join("cache"));
    let guest_host = parent_of(compiler);
    let shim = parent_of(guest_host);
    let [compiler, guest_host] = [compiler, guest_host].map(Watched::of);
    kill(Pid::from_raw(shim), Signal::SIGKILL).expect("a shim");
    guest_host.assert_ends();
    compiler.assert_ends();
    assert!(!ctr.wait_with_output().expect("its end").status.success());
    node.node.ctr(&["container", "delete", "loop"]);
    node.node.assert_nothing_left();
}

#[test]
fn nothing_is_compiled_for_a_process_whose_container_has_ended() {
    let node = HostileNode::start("{}");
    let tools = "localhost/test/tools:1";
    node.node.import(&Image::new(tools).file("/loop.wasm", module("loop")).file("/bin/busybox", busybox()));
    let options = [&*node.config, &engine(ENGINE)];
    node.node.start_detached(&options, tools, "guest", &["/bin/busybox", "sleep", "1000"]);
    node.node.add_exec("guest", "loop", &["/loop.wasm"]).expect("a process to start");
    let (compiler, started) = thread::scope(|scope| {
        let start = scope.spawn(|| node.node.start_exec("guest", "loop"));
        let compiler = Watched::of(confined_compiler(&node.node.containerd.folder().join("cache")));
        kill(Pid::from_raw(node.node.pid("guest")), Signal::SIGKILL).expect("it sleeps");
        (compiler, start.join().expect("an answer"))
    });
    let (_, message) = started.expect_err("nowhere to run");
    assert!(message.contains("the container has ended"), "{message}");
    compiler.assert_ends();
    assert_eq!(node.node.exit_code("guest"), 137);
    node.node.assert_nothing_left();
}

#[test]
fn containers_that_start_at_once_share_one_compilation() {
    let node = HostileNode::start("{}");
    let image = node.image("tell its id");
    let start = |index: usize| {
        let options = ["--rm", &node.config, &engine(ENGINE)];
        node.node.run_command(&options, &image, &format!("c{index}"), &[]).stdout(Stdio::piped()).spawn().expect("ctr")
    };
    let runs: Vec<_> = (0..8).map(start).collect();
    let ended = runs.into_iter().map(|run| Run(run.wait_with_output().expect("ctr")));
    let compilers: BTreeSet<_> = ended.map(|run| run.stdout()).collect();
    assert_eq!(compilers.len(), 1, "{compilers:?}");
    assert!(compilers.iter().all(|compiler| compiler.starts_with("tell its id: ")), "{compilers:?}");
    node.node.assert_nothing_left();
}

#[test]
fn a_compiler_that_takes_too_much_memory_is_refused_with_the_limit() {
    let node = HostileNode::start("{maxMemoryBytes: 1000000000}");
    for what in ["allocate", "answer without end"] {
        node.run(what).assert_refused(&["/app.wasm", "1000000000 bytes of memory", "compiler.maxMemoryBytes"]);
    }
    node.node.assert_nothing_left();
}

#[test]
fn a_compiler_that_takes_too_long_is_refused_with_the_limit() {
    let node = HostileNode::start("{maxSeconds: 1}");
    node.run("loop").assert_refused(&["/app.wasm", "longer than 1 s", "compiler.maxSeconds"]);
    node.node.assert_nothing_left();
}

#[test]
fn a_compiler_s_message_has_an_end() {
    let node = HostileNode::start("{}");
    let run = node.run("say a lot");
    run.assert_refused(&["/app.wasm", "a lot, a lot"]);
    assert!(run.stderr().len() < 10_000, "{} bytes", run.stderr().len());
    node.node.assert_nothing_left();
}
