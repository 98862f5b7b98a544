//! What becomes of containers when something around them dies.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use images::Image;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::events::Events;
use support::{ENGINES, HELLO, Node, busybox, engine, guest};
use testbed::containerd::PATIENCE;

/// The shim of a container: the parent of its process.
fn shim_of(node: &Node, container: &str) -> Pid {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid(container))).expect("a process");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(parent.trim().parse().expect("a number"))
}

/// Asks again and again until it is so.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_killed_shim_leaves_is_removed_and_its_container_ends_with_137() {
    let node = Node::start();
    node.import(
        &Image::new("localhost/test/tools:1")
            .file("/hello.wasm", guest("hello"))
            .file("/busybox", busybox())
            .entrypoint(["/hello.wasm"]),
    );
    for name in ENGINES {
        node.start_detached(&[&engine(name)], "localhost/test/tools:1", name, &["/hello.wasm", "daemon"]);
        let exec = ["task", "exec", "--detach", "--exec-id", "more", name, "/busybox", "sleep", "1000"];
        assert_eq!(node.ctr(&exec).status(), 0);
        let mut events = Events::of(&node);
        kill(shim_of(&node, name), Signal::SIGKILL).expect("a shim");
        assert!(events.topics_until("delete").contains(&"exit".to_owned()), "{name}");
        drop(events);
        assert_eq!(node.ctr(&["container", "delete", name]).status(), 0, "{name}");
        node.assert_nothing_left();
    }
}

#[test]
fn containers_go_on_while_containerd_is_away_and_what_happened_is_not_lost() {
    let node = Node::start();
    let log = |name: &str| node.containerd.folder().join(format!("{name}.log"));
    let logs: Vec<_> = ENGINES.iter().map(|name| log(name)).collect();
    for (name, log) in ENGINES.iter().zip(&logs) {
        let uri = format!("--log-uri=file://{}", log.display());
        node.start_logged(&[&engine(name), &uri], HELLO, name, &["/hello.wasm", "daemon"]);
        node.start_detached(&[&engine(name)], HELLO, &format!("{name}-ends"), &["/hello.wasm", "spin"]);
    }
    let ends: Vec<_> = ENGINES.iter().map(|name| node.pid(&format!("{name}-ends"))).collect();
    node.containerd.stop();
    for pid in ends {
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a guest host");
    }
    for log in &logs {
        let lines = || fs::read_to_string(log).unwrap_or_default().lines().count();
        let before = lines();
        wait_until("the guest goes on", || lines() > before + 1);
    }
    node.containerd.start_again();
    for name in ENGINES {
        assert_eq!(node.exit_code(&format!("{name}-ends")), 143, "{name}");
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn what_happens_after_a_restart_of_containerd_is_told_in_its_order() {
    let node = Node::start();
    for name in ENGINES {
        for container in [name, &*format!("{name}-exec")] {
            node.start_detached(&[&engine(name)], HELLO, container, &["/hello.wasm", "daemon"]);
        }
    }
    node.containerd.stop();
    node.containerd.start_again();
    for name in ENGINES {
        // The first event of each shim finds the connection to the containerd that was.
        let mut events = Events::of(&node);
        assert_eq!(node.end(name, "SIGKILL"), 137, "{name}");
        assert_eq!(events.topics_until("delete"), ["exit", "delete"], "{name}");
        let container = format!("{name}-exec");
        let exec = node.ctr(&["task", "exec", "--exec-id", "more", &container, "/hello.wasm", "echo", "hi"]);
        assert_eq!((exec.stdout().as_str(), exec.status()), ("hi\n", 0), "{name}: {}", exec.stderr());
        assert_eq!(node.end(&container, "SIGKILL"), 137, "{name}");
        let expected = ["exec-added", "exec-started", "exit of more", "exit", "delete"];
        assert_eq!(events.topics_until("delete"), expected, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn a_guest_host_that_is_killed_is_a_container_that_ended_with_137() {
    let node = Node::start();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], HELLO, name, &["/hello.wasm", "daemon"]);
        kill(Pid::from_raw(node.pid(name)), Signal::SIGKILL).expect("a guest host");
        assert_eq!(node.exit_code(name), 137, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn a_container_whose_reader_is_gone_can_be_ended() {
    let node = Node::start();
    for name in ENGINES {
        let mut command = node.run_command(&[&engine(name)], HELLO, name, &["/hello.wasm", "daemon"]);
        let mut ctr = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("ctr");
        let mut first = String::new();
        BufReader::new(ctr.stdout.take().expect("a pipe")).read_line(&mut first).expect("text");
        ctr.kill().expect("ctr runs");
        ctr.wait().expect("ctr ends");
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn a_cache_on_a_full_disk_is_no_reason_not_to_run() {
    let node = Node::start();
    let cache = node.containerd.folder().join("cache");
    fs::create_dir(&cache).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k,mode=0700", "tmpfs"]).arg(&cache).status();
    assert!(mounted.expect("mount").success());
    let operator = node.containerd.folder().join("operator.yaml");
    fs::write(&operator, format!("artifactCache: {{folder: {}}}\n", cache.display())).expect("a file");
    let operator = format!("--runtime-config-path={}", operator.display());
    for name in ENGINES {
        let run = node.run(&[&operator, &engine(name)], HELLO, name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "{name}: {}", run.stderr());
    }
    let unmounted = Command::new("umount").arg(&cache).status();
    assert!(unmounted.expect("umount").success());
    node.assert_nothing_left();
}

#[test]
fn a_guest_is_told_that_its_disk_is_full_and_the_container_ends_as_any() {
    let node = Node::start();
    let text = "x".repeat(64 << 10);
    for name in ENGINES {
        let options = [&engine(name), "--mount=type=tmpfs,src=tmpfs,dst=/small,options=size=16k"];
        let run = node.run(&options, HELLO, name, &["/hello.wasm", "write", "/small/file", &text]);
        assert_eq!(run.status(), 1, "{name}: {}", run.stderr());
        assert!(run.stderr().contains("/small/file: No space left on device"), "{name}: {}", run.stderr());
    }
    node.assert_nothing_left();
}
