//! What the task API shows of a container's life.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use containerd_shim::api::{CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, WaitRequest};
use nix::libc::O_NONBLOCK;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};
use support::events::Events;
use support::task_client::{context, refusal};
use support::{ENGINES, HELLO, Node, Run, engine, guest, programs};

const WAIT_DEBUGGER: (&str, &str) = ("CONTAINERD_SHIM_DAPR_V1_WAIT_DEBUGGER", "1");

/// The shim that waits for a debugger before it creates a container.
fn waiting_shim(node: &Node) -> Pid {
    let line = node.containerd.wait_for_log("waiting for SIGUSR1");
    let pid = line.split("pid=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a pid");
    Pid::from_raw(pid.parse().expect("a number"))
}

/// A bundle of the guest `hello` with hooks, for the shim of a container that has started, and the request to create it.
fn bundle_with_hooks(node: &Node, like: &str, id: &str, hooks: &Value) -> CreateTaskRequest {
    let bundle = node.containerd.folder().join(id);
    fs::create_dir_all(bundle.join("rootfs")).expect("a folder");
    fs::write(bundle.join("rootfs/hello.wasm"), guest("hello")).expect("a file");
    let spec = fs::read(node.containerd.bundle(like).join("config.json")).expect("a spec");
    let mut spec: Value = serde_json::from_slice(&spec).expect("JSON");
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", node.containerd.cgroup()));
    spec["hooks"] = hooks.clone();
    fs::write(bundle.join("config.json"), spec.to_string()).expect("a file");
    CreateTaskRequest { id: id.to_owned(), bundle: bundle.display().to_string(), ..CreateTaskRequest::default() }
}

/// A hook that is a line of a shell.
fn hook(line: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/bin:/bin"]}])
}

/// The line that the hook of a create writes to a FIFO.
fn told_by_hook<T>(fifo: &Path, create: &JoinHandle<T>) -> String {
    let mut fifo = fs::File::options().read(true).custom_flags(O_NONBLOCK).open(fifo).expect("a FIFO");
    let mut line = [0; 64];
    loop {
        // Nothing, as long as nobody has opened it, and an error, as long as nothing was written.
        if let Ok(length @ 1..) = fifo.read(&mut line) {
            return String::from_utf8_lossy(&line[..length]).into_owned();
        }
        assert!(!create.is_finished(), "the create ended before its hook began");
        thread::sleep(Duration::from_millis(10));
    }
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

#[test]
fn a_create_that_fails_half_way_leaves_nothing_and_can_be_tried_again() {
    let node = Node::start();
    for name in ENGINES {
        // Found out inside the namespaces, once there is a cgroup.
        let impossible = "--mount=type=no-such-file-system,src=none,dst=/data";
        let failed = node.run(&[&engine(name), impossible], HELLO, name, &["/hello.wasm", "echo", "hi"]);
        failed.assert_refused(&["failed to prepare rootfs"]);
        // The cgroup, which has to be removed, is the shim's.
        assert!(!failed.stderr().contains("cleanup"), "{}", failed.stderr());
        let run = node.run(&[&engine(name)], HELLO, name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "{name}: {}", run.stderr());
    }
    node.assert_nothing_left();
}

/// As the kernel does it when memory is short: libcontainer has cloned the container's process, which waits for more.
#[test]
fn a_create_fails_when_its_guest_host_is_killed() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let [parent, go_on] = ["parent", "go-on"].map(|name| node.containerd.folder().join(name));
    for fifo in [&parent, &go_on] {
        mkfifo(fifo, Mode::S_IRWXU).expect("a FIFO");
    }
    let line = format!("echo $PPID > {}; read line < {}", parent.display(), go_on.display());
    let request = bundle_with_hooks(&node, "guest", "doomed", &json!({"createRuntime": hook(&line)}));
    let client = node.task_client("guest");
    let create = thread::spawn(move || client.create(context(), &request));
    let guest_host = told_by_hook(&parent, &create);
    kill(Pid::from_raw(guest_host.trim().parse().expect("a number")), Signal::SIGKILL).expect("a guest host");
    let answer = create.join().expect("an answer");
    // The hook goes on, if it was not ended with the guest host: then nobody reads, and another open would wait for ever.
    let go_on = fs::File::options().read(true).write(true).open(&go_on);
    go_on.and_then(|mut go_on| go_on.write_all(b"\n")).expect("a FIFO");
    let (_, message) = refusal(answer);
    // What it has cloned may notice, and end as well, before the shim has.
    assert!(message.contains("the guest host ended before"), "{message}");
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}

/// The processes of that name that run and whose parent is this one.
fn children(parent: i32, name: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("a folder").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("Name:\t{name}"))
            && status.lines().any(|line| line == format!("PPid:\t{parent}"))
            && !status.lines().any(|line| line.starts_with("State:\tZ"))
    };
    pids.filter(is_one).map(Pid::from_raw).collect()
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("a parent");
    parent.parse().expect("a number")
}

/// The guest host, and on cgroup v2 its clone, which makes the container's process.
#[test]
fn a_create_fails_when_one_of_those_is_killed_that_make_the_process() {
    let mut killed = 0;
    loop {
        let node = Node::start();
        node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
        let begun = node.containerd.folder().join("begun");
        mkfifo(&begun, Mode::S_IRWXU).expect("a FIFO");
        let line = format!("echo begun > {}; exec sleep 1000", begun.display());
        let request = bundle_with_hooks(&node, "guest", "doomed", &json!({"createContainer": hook(&line)}));
        let client = node.task_client("guest");
        let create = thread::spawn(move || client.create(context(), &request));
        assert_eq!(told_by_hook(&begun, &create), "begun\n");
        let guest = Pid::from_raw(node.pid("guest"));
        let mut makers = children(parent_of(guest.as_raw()), "dapr-guest-host");
        makers.retain(|pid| *pid != guest);
        kill(makers[killed], Signal::SIGKILL).expect("a guest host");
        killed += 1;
        let (_, message) = refusal(create.join().expect("an answer"));
        let reasons = ["the guest host ended before", "that was to make the container's was ended"];
        assert!(reasons.iter().any(|reason| message.contains(reason)), "{message}");
        node.end("guest", "SIGKILL");
        node.assert_nothing_left();
        if killed == makers.len() {
            break;
        }
    }
}

/// It may be there to change the node, and have use for what the container must not use.
#[test]
fn a_hook_runs_outside_of_the_container() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    for kind in ["createRuntime", "poststart"] {
        let told = node.containerd.folder().join("told");
        let line = format!("(cat /proc/self/cgroup; readlink /proc/self/ns/mnt) > {}", told.display());
        let request = bundle_with_hooks(&node, "guest", "hooked", &json!({kind: hook(&line)}));
        let client = node.task_client("guest");
        client.create(context(), &request).expect("a container");
        let told = fs::read_to_string(&told).expect("what the hook told");
        let own = fs::read_link("/proc/self/ns/mnt").expect("the node's mounts");
        assert!(told.ends_with(&format!("{}\n", own.display())), "{kind}: {told}");
        assert!(!told.contains("hooked"), "{kind}: {told}");
        client.delete(context(), &DeleteRequest { id: request.id, ..DeleteRequest::default() }).expect("its removal");
    }
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}

#[test]
fn a_create_is_ended_by_a_delete_and_by_a_kill() {
    for by in ["delete", "kill"] {
        let node = Node::start_with_environment(&[WAIT_DEBUGGER]);
        let mut command = node.run_command(&["--rm"], HELLO, by, &["/hello.wasm", "echo", "hi"]);
        let ctr = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ctr");
        waiting_shim(&node);
        let client = node.task_client(by);
        if by == "delete" {
            let delete = DeleteRequest { id: by.to_owned(), ..DeleteRequest::default() };
            let deleted = client.delete(context(), &delete).expect("its end");
            assert_eq!((deleted.pid, deleted.exit_status), (0, 137));
        } else {
            let request = KillRequest { id: by.to_owned(), signal: 9, ..KillRequest::default() };
            client.kill(context(), &request).expect("its end");
        }
        let run = Run(ctr.wait_with_output().expect("ctr ends"));
        run.assert_refused(&["the create was cancelled"]);
        node.assert_nothing_left();
    }
}

/// A folder of the cgroup of a process, in one of the hierarchies that there are.
fn cgroup_of(pid: i32) -> PathBuf {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let folders = cgroups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        Some(Path::new("/sys/fs/cgroup").join(controllers).join(path))
    });
    folders.into_iter().find(|folder| folder.is_dir()).expect("a cgroup")
}

#[test]
fn a_delete_that_cannot_clean_up_fails_and_can_be_asked_for_again() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let held = cgroup_of(node.pid("guest")).join("held");
    fs::create_dir(&held).expect("a cgroup in the container's");
    // What something is mounted on cannot be removed.
    mount(Some("tmpfs"), &held, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a mount");
    let (client, id) = (node.task_client("guest"), || "guest".to_owned());
    let request = KillRequest { id: id(), signal: 9, ..KillRequest::default() };
    client.kill(context(), &request).expect("a signal for the guest");
    let wait = WaitRequest { id: id(), ..WaitRequest::default() };
    assert_eq!(client.wait(context(), &wait).expect("its end").exit_status, 137);
    let deleted = client.delete(context(), &DeleteRequest { id: id(), ..DeleteRequest::default() });
    umount(&held).expect("the mount");
    let (_, message) = refusal(deleted);
    assert!(message.contains("cannot remove the cgroup"), "{message}");
    assert_eq!(node.exit_code("guest"), 137);
    node.assert_nothing_left();
}

#[test]
fn a_poststop_hook_is_run_with_the_container_s_state_once_it_is_gone() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let told = node.containerd.folder().join("told");
    let hooks = json!({"poststop": hook(&format!("cat > {}", told.display()))});
    let request = bundle_with_hooks(&node, "guest", "hooked", &hooks);
    let client = node.task_client("guest");
    client.create(context(), &request).expect("a container");
    assert!(!told.exists());
    client.delete(context(), &DeleteRequest { id: request.id, ..DeleteRequest::default() }).expect("its removal");
    let state: Value = serde_json::from_slice(&fs::read(&told).expect("what the hook read")).expect("JSON");
    assert_eq!((&state["id"], &state["status"]), (&json!("hooked"), &json!("stopped")));
    assert_eq!(state["bundle"], json!(request.bundle));
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}
