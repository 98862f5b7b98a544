//! What the task API shows of a container's life.

mod support;

use std::process::{Command, Stdio};

use containerd_shim::api::ShutdownRequest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::events::Events;
use support::task_client::context;
use support::{ENGINES, HELLO, Node, engine, programs};

const WAIT_DEBUGGER: (&str, &str) = ("CONTAINERD_SHIM_DAPR_V1_WAIT_DEBUGGER", "1");

/// The shim that waits for a debugger before it creates a container.
fn waiting_shim(node: &Node) -> Pid {
    let line = node.containerd.wait_for_log("waiting for SIGUSR1");
    let pid = line.split("pid=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a pid");
    Pid::from_raw(pid.parse().expect("a number"))
}

#[test]
fn sigkill_ends_an_endless_loop_with_137() {
    let node = Node::start();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], HELLO, name, &["/hello.wasm", "spin"]);
        assert_eq!(node.end(name, "SIGKILL"), 137, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn sigterm_ends_a_guest_wherever_it_is_with_143() {
    let node = Node::start();
    for name in ENGINES {
        for (place, arguments) in
            [("loop", vec!["/hello.wasm", "spin"]), ("sleep", vec!["/hello.wasm", "sleep", "1000"])]
        {
            let name = &format!("{name}-{place}");
            let chosen = engine(name.split('-').next().expect("an engine"));
            node.start_detached(&[&chosen], HELLO, name, &arguments);
            assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
        }
    }
}

#[test]
fn every_other_signal_that_ends_programs_ends_a_guest_with_its_number() {
    let node = Node::start();
    for name in ENGINES {
        for (signal, code) in [
            ("SIGHUP", 129),
            ("SIGINT", 130),
            ("SIGQUIT", 131),
            ("SIGUSR1", 138),
            ("SIGUSR2", 140),
            ("SIGRTMIN+3", 165),
        ] {
            let container = format!("{name}-{code}");
            node.start_detached(&[&engine(name)], HELLO, &container, &["/hello.wasm", "spin"]);
            assert_eq!(node.end(&container, signal), code, "{name}: {signal}");
        }
    }
    node.assert_nothing_left();
}

#[test]
fn events_come_in_the_order_of_a_container_s_life() {
    let node = Node::start();
    let mut events = Events::of(&node);
    node.run(&[], HELLO, "life", &["/hello.wasm", "echo", "hi"]);
    assert_eq!(events.topics_until("delete"), ["create", "start", "exit", "delete"]);
}

#[test]
fn a_container_that_was_created_and_never_started_can_be_removed() {
    let node = Node::start();
    let created =
        node.ctr(&["container", "create", "--runtime", support::RUNTIME, HELLO, "idle", "/hello.wasm", "spin"]);
    assert_eq!(created.status(), 0, "{}", created.stderr());
    assert_eq!(node.ctr(&["container", "delete", "idle"]).status(), 0);
    node.assert_nothing_left();
}

#[test]
fn the_version_is_printed() {
    let output = Command::new(programs().join("containerd-shim-dapr-v1")).arg("-v").output().expect("the shim");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains(env!("CARGO_PKG_VERSION")), "{printed}");
}

#[test]
fn containerd_is_told_what_the_runtime_is_without_runc() {
    let output = Command::new(programs().join("containerd-shim-dapr-v1"))
        .arg("-info")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the shim");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("io.containerd.dapr.v1"));
}

#[test]
fn a_debugger_can_be_attached_before_a_container_is_created() {
    let node = Node::start_with_environment(&[WAIT_DEBUGGER]);
    let mut command = node.run_command(&["--rm"], HELLO, "debugged", &["/hello.wasm", "echo", "hi"]);
    let ctr = command.stdout(Stdio::piped()).spawn().expect("ctr");
    let shim = waiting_shim(&node);
    kill(shim, Signal::SIGUSR1).expect("the shim waits");
    let output = ctr.wait_with_output().expect("ctr ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hi\n");
}

/// As containerd asks for it when it has removed the last container of a sandbox, while the next is on its way.
#[test]
fn a_shim_is_not_shut_down_while_it_creates_another_container() {
    let node = Node::start_with_environment(&[WAIT_DEBUGGER]);
    let mut command = node.run_command(&["--rm"], HELLO, "next", &["/hello.wasm", "echo", "hi"]);
    let ctr = command.stdout(Stdio::piped()).spawn().expect("ctr");
    let shim = waiting_shim(&node);
    let request = ShutdownRequest { id: "last".to_owned(), ..ShutdownRequest::default() };
    node.task_client("next").shutdown(context(), &request).expect("nothing to refuse");
    kill(shim, Signal::SIGUSR1).expect("the shim waits");
    let output = ctr.wait_with_output().expect("ctr ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hi\n");
    node.assert_nothing_left();
}
