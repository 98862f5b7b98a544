//! What containerd asks of a shim beside running its containers.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use containerd_shim::api::{
    CheckpointTaskRequest, ConnectRequest, ConnectResponse, CreateTaskRequest, DeleteRequest, ExecProcessRequest,
    ResizePtyRequest, ShutdownRequest, StartRequest, WaitRequest,
};
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::ttrpc::Code;
use images::Image;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use support::events::Events;
use support::task_client::{context, refusal};
use support::{ENGINES, HELLO, Node, busybox, engine, guest, programs};
use testbed::containerd::PATIENCE;

impl Node {
    fn connect(&self, container: &str) -> ConnectResponse {
        let request = ConnectRequest { id: container.to_owned(), ..ConnectRequest::default() };
        self.task_client(container).connect(context(), &request).expect("the shim's answer")
    }
}

#[test]
fn containers_of_one_group_have_one_shim_until_the_last_of_them_is_removed() {
    let node = Node::start();
    let group = "--annotation=io.containerd.runc.v2.group=team";
    let containers = ["first", "second"];
    for (name, engine_name) in containers.iter().zip(ENGINES.iter().cycle()) {
        node.start_detached(&[group, &engine(engine_name)], HELLO, name, &["/hello.wasm", "daemon"]);
    }
    node.start_detached(&[], HELLO, "alone", &["/hello.wasm", "daemon"]);
    for name in containers {
        let answer = node.connect(name);
        assert_eq!(answer.task_pid.cast_signed(), node.pid(name), "{name}");
        assert_eq!(answer.shim_pid, node.connect("first").shim_pid, "{name}");
    }
    assert_ne!(node.connect("alone").shim_pid, node.connect("first").shim_pid);
    // The one that the shim was started for goes first.
    for name in ["first", "alone", "second"] {
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn a_shim_is_not_shut_down_while_it_has_a_container() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let request = ShutdownRequest { id: "guest".to_owned(), ..ShutdownRequest::default() };
    node.task_client("guest").shutdown(context(), &request).expect("nothing to refuse");
    assert_eq!(node.end("guest", "SIGTERM"), 143);
    node.assert_nothing_left();
}

/// Who shares the network of a container could connect to one (CVE-2020-15257).
#[test]
fn neither_a_shim_nor_a_guest_host_has_an_abstract_socket() {
    let node = Node::start();
    for name in ENGINES {
        node.start_detached(&[&engine(name), "--net-host"], HELLO, name, &["/hello.wasm", "daemon"]);
    }
    let mut files = 0;
    for pid in node.containerd.processes() {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
        let links = links.filter_map(|link| Some(fs::read_link(link.path()).ok()?.to_str()?.to_owned()));
        let own: BTreeSet<String> =
            links.filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
        let sockets = fs::read_to_string(format!("/proc/{pid}/net/unix")).expect("the sockets of its network");
        for (inode, name) in sockets.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(6);
            Some((words.next()?, words.next()?))
        }) {
            assert!(!own.contains(inode) || name.starts_with('/'), "{pid} has the socket {name}");
            files += usize::from(own.contains(inode));
        }
    }
    assert!(files >= ENGINES.len(), "each shim has its own");
}

#[test]
fn a_checkpoint_is_refused_as_not_supported_and_the_guest_goes_on() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let client = node.task_client("guest");
    let request = CheckpointTaskRequest { id: "guest".to_owned(), ..CheckpointTaskRequest::default() };
    let (code, message) = refusal(client.checkpoint(context(), &request));
    assert_eq!(code, Code::UNIMPLEMENTED);
    assert!(message.contains("checkpoints are not supported"), "{message}");
    let restore = CreateTaskRequest {
        id: "other".to_owned(),
        checkpoint: "/a/checkpoint".to_owned(),
        ..CreateTaskRequest::default()
    };
    assert_eq!(refusal(client.create(context(), &restore)).0, Code::UNIMPLEMENTED);
    node.ctr(&["task", "checkpoint", "guest"]).assert_refused(&["checkpoints are not supported"]);
    assert_eq!(node.end("guest", "SIGTERM"), 143);
}

#[test]
fn a_signal_to_all_reaches_every_process_of_a_container() {
    let node = Node::start();
    let tools = "localhost/test/tools:1";
    node.import(
        &Image::new(tools)
            .file("/hello.wasm", guest("hello"))
            .file("/bin/busybox", busybox())
            .entrypoint(["/hello.wasm"]),
    );
    node.start_detached(&[], tools, "guest", &["/hello.wasm", "daemon"]);
    let client = node.task_client("guest");
    let (id, exec_id) = ("guest".to_owned(), "more".to_owned());
    let process =
        serde_json::json!({"args": ["/bin/busybox", "sleep", "1000"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let exec = ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        spec: Some(Any { value: process.to_string().into_bytes(), ..Any::default() }).into(),
        ..ExecProcessRequest::default()
    };
    client.exec(context(), &exec).expect("a process to start");
    let start = StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..StartRequest::default() };
    client.start(context(), &start).expect("a running process");
    // None of them ends before both were sent the signal.
    for words in [&["pause", "guest"][..], &["kill", "--all", "--signal", "SIGTERM", "guest"], &["resume", "guest"]] {
        let done = node.ctr(&[&["task"], words].concat());
        assert_eq!(done.status(), 0, "{words:?}: {}", done.stderr());
    }
    for exec_id in [exec_id, String::new()] {
        let wait = WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..WaitRequest::default() };
        assert_eq!(client.wait(context(), &wait).expect("an end").exit_status, 143, "{exec_id}");
    }
}

#[test]
fn of_many_deletions_at_once_one_is_done_and_told() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let clients: Vec<_> = (0..8).map(|_| node.task_client("guest")).collect();
    let mut events = Events::of(&node);
    assert_eq!(node.ctr(&["task", "kill", "--signal", "SIGKILL", "guest"]).status(), 0);
    let wait = WaitRequest { id: "guest".to_owned(), ..WaitRequest::default() };
    assert_eq!(clients[0].wait(context(), &wait).expect("an end").exit_status, 137);
    let request = DeleteRequest { id: "guest".to_owned(), ..DeleteRequest::default() };
    let answers: Vec<_> = thread::scope(|scope| {
        let deletions: Vec<_> =
            clients.iter().map(|client| scope.spawn(|| client.delete(context(), &request))).collect();
        deletions.into_iter().map(|deletion| deletion.join().expect("no panic")).collect()
    });
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    for answer in refused {
        assert_eq!(refusal(answer).0, Code::NOT_FOUND);
    }
    assert_eq!(events.topics_until("delete"), ["exit", "delete"]);
    node.run(&[], HELLO, "next", &["/hello.wasm", "echo", "hi"]);
    assert_eq!(events.topics_until("delete"), ["create", "start", "exit", "delete"]);
}

#[test]
fn a_terminal_larger_than_there_are_is_refused() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let resize = |width| {
        let request = ResizePtyRequest { id: "guest".to_owned(), width, height: 24, ..ResizePtyRequest::default() };
        node.task_client("guest").resize_pty(context(), &request)
    };
    assert_eq!(refusal(resize(1 << 16)).0, Code::INVALID_ARGUMENT);
    resize(80).expect("nothing to do for a guest without a terminal");
}

#[test]
fn a_process_that_is_none_is_refused_with_the_reason_and_the_guest_goes_on() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "guest", &["/hello.wasm", "daemon"]);
    let with_arguments = |arguments| serde_json::json!({"args": arguments, "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let processes = [
        ("text", serde_json::json!("not a process"), "the process is not one of OCI's: invalid type: string"),
        ("number", with_arguments(serde_json::json!(3)), "the process is not one of OCI's: invalid type: integer `3`"),
        ("nothing", with_arguments(serde_json::json!([])), "its arguments are empty"),
    ];
    for (exec_id, process, reason) in processes {
        node.add_process("guest", exec_id, &process).expect("what is wrong shows when it is started");
        let (_, message) = node.start_exec("guest", exec_id).expect_err("no process");
        assert!(message.contains(reason), "{exec_id}: {message}");
    }
    node.add_exec("guest", "after", &["/hello.wasm"]).expect("a process to start");
    node.start_exec("guest", "after").expect("a process");
    assert_eq!(node.end("guest", "SIGTERM"), 143);
    node.assert_nothing_left();
}

/// Where CRI's configuration names no file for the runtime, containerd sends the options themselves, as TOML, in the field
/// in which runc's have the cgroup for the shim.
#[test]
fn a_start_does_not_look_into_the_options_and_a_shim_without_containerd_leaves_no_socket() {
    let bundle = tempfile::tempdir().expect("a bundle");
    let path = |name: &str| bundle.path().join(name);
    fs::write(path("config.json"), "{}").expect("a file");
    // Nobody reads from it.
    mkfifo(&path("log"), Mode::S_IRWXU).expect("a FIFO");
    let toml = b"SystemdCgroup = true\n";
    let length = u8::try_from(toml.len()).expect("a short text");
    let value = [&[(3 << 3) | 2, length], toml.as_slice()].concat();
    let options = Any { type_url: "runtimeoptions.v1.Options".to_owned(), value, ..Any::default() };
    fs::write(path("options"), options.write_to_bytes().expect("a message")).expect("a file");
    let started = Command::new(programs().join("containerd-shim-dapr-v1"))
        .args(["-namespace", "test", "-id", "guest", "-address"])
        .arg(path("containerd.sock"))
        .arg("start")
        .env("TTRPC_ADDRESS", path("containerd.sock.ttrpc"))
        .current_dir(bundle.path())
        .stdin(File::open(path("options")).expect("a file"))
        .output()
        .expect("the shim");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let address = String::from_utf8(started.stdout).expect("text");
    let socket = Path::new(address.strip_prefix("unix://").expect("a socket"));
    let deadline = Instant::now() + PATIENCE;
    while socket.exists() {
        assert!(Instant::now() < deadline, "{address} is still there");
    }
}
