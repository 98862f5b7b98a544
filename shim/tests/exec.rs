//! More processes in a container that runs, as `ctr task exec` starts them.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use containerd_shim::api::{
    CloseIORequest, DeleteRequest, ExecProcessRequest, KillRequest, PidsRequest, StartRequest, StateRequest,
    WaitRequest,
};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim_async;
use containerd_shim::protos::ttrpc::Code;
use containerd_shim::protos::ttrpc::context::with_duration;
use images::Image;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::mkfifo;
use serde_json::json;
use support::events::Events;
use support::task_client::{context, refusal};
use support::terminal::Terminal;
use support::{ENGINES, Node, Run, assert_echoes_until_its_input_ends, busybox, engine, guest};
use tokio::runtime::Builder;

/// The guest `hello` and Linux's usual tools.
const TOOLS: &str = "localhost/test/tools:1";
/// The same for a user without rights.
const TOOLS_OF_A_USER: &str = "localhost/test/tools-of-a-user:1";

fn node() -> Node {
    let node = Node::start();
    for (name, user) in [(TOOLS, "0:0"), (TOOLS_OF_A_USER, "1000:1000")] {
        node.import(
            &Image::new(name)
                .file("/hello.wasm", guest("hello"))
                .file("/nothing.wasm", wat::parse_str(r#"(module (func (export "_start")))"#).expect("a module"))
                .file("/bin/busybox", busybox())
                .file("/text", "just a text\n")
                .user(user)
                .entrypoint(["/hello.wasm"]),
        );
    }
    node
}

impl Node {
    fn exec_command(&self, container: &str, options: &[&str], arguments: &[&str]) -> Command {
        let mut words = vec!["task", "exec", "--exec-id", "exec"];
        words.extend(options);
        words.push(container);
        words.extend(arguments);
        self.containerd.ctr_command(&words)
    }

    fn exec(&self, container: &str, arguments: &[&str]) -> Run {
        Run(self.exec_command(container, &[], arguments).output().expect("ctr"))
    }
}

/// Those that containerd gives a container.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The lines of a `/proc/PID/status` that say what a process may do.
fn rights(status: &str) -> Vec<String> {
    let names = ["Uid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"];
    status.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

#[test]
fn a_wasm_file_runs_beside_the_guest_on_the_container_s_engine() {
    let node = node();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], TOOLS, name, &["/hello.wasm", "daemon"]);
        let echo = node.exec(name, &["/hello.wasm", "echo", "hi"]);
        assert_eq!((echo.stdout().as_str(), echo.status()), ("hi\n", 0), "{name}: {}", echo.stderr());
        assert_eq!(node.exec(name, &["/hello.wasm", "exit", "7"]).status(), 7, "{name}");
        let trap = node.exec(name, &["/hello.wasm", "trap"]);
        assert_eq!(trap.status(), 134, "{name}");
        assert!(trap.stderr().contains("trap: unreachable"), "{name}: {}", trap.stderr());
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
    }
    node.assert_nothing_left();
}

#[test]
fn a_wasm_file_of_its_own_is_compiled_for_the_engine_of_the_container() {
    let node = node();
    let cache = node.containerd.folder().join("cache");
    let operator = node.containerd.folder().join("operator.yaml");
    fs::write(&operator, format!("artifactCache: {{folder: {}}}\n", cache.display())).expect("a file");
    let operator = format!("--runtime-config-path={}", operator.display());
    for name in ENGINES {
        node.start_detached(&[&engine(name), &operator], TOOLS, name, &["/hello.wasm", "daemon"]);
        let before = artifacts(&cache);
        assert_eq!(node.exec(name, &["/nothing.wasm"]).status(), 0, "{name}");
        let compiled: Vec<_> = artifacts(&cache).difference(&before).cloned().collect();
        assert!(matches!(&compiled[..], [artifact] if artifact.starts_with(name)), "{name}: {compiled:?}");
        node.end(name, "SIGKILL");
    }
}

fn artifacts(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("an entry").file_name());
    files.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".artifact")).collect()
}

#[test]
fn a_linux_program_runs_in_the_namespaces_and_the_cgroup_of_the_guest() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    node.add_exec("guest", "sleep", &["/bin/busybox", "sleep", "1000"]).expect("a process to start");
    let pids = [node.pid("guest").cast_unsigned(), node.start_exec("guest", "sleep").expect("a running process")];
    for kind in ["ipc", "mnt", "net", "pid", "uts"] {
        let [guest, own] = pids.map(|pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace"));
        assert_eq!(guest, own);
    }
    let [guest, own] = pids.map(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups"));
    assert_eq!(guest, own);
    assert!(own.contains("/guest\n"), "{own}");
    let hierarchies: Vec<_> = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
    // Beside those of version 1 there may be one of version 2, without a name, and some that nobody limits.
    let is_limited = |controllers: &str| hierarchies.len() == 1 || ["memory", "pids", "cpuset"].contains(&controllers);
    let mut limited = hierarchies.iter().filter(|(controllers, _)| is_limited(controllers));
    assert!(limited.all(|(_, path)| path.ends_with("/guest")), "{own}");
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}

#[test]
fn the_processes_of_a_container_are_listed_with_their_exec_ids() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    node.add_exec("guest", "nap", &["/bin/busybox", "sleep", "1000"]).expect("a process to start");
    let pids = [node.pid("guest").cast_unsigned(), node.start_exec("guest", "nap").expect("a running process")];
    let request = PidsRequest { id: "guest".to_owned(), ..PidsRequest::default() };
    let processes = node.task_client("guest").pids(context(), &request).expect("a container").processes;
    let mut all: Vec<_> = processes.iter().map(|process| process.pid).collect();
    all.sort_unstable();
    assert_eq!(all, pids, "and none of those that made them");
    let listed = node.ctr(&["task", "ps", "guest"]).stdout();
    let mut lines = listed.lines().skip(1).map(|line| line.split_once(char::is_whitespace).expect("two columns"));
    for (pid, expected) in pids.iter().zip(["-", "nap"]) {
        let (_, info) = lines.find(|(number, _)| *number == pid.to_string()).expect("the process");
        assert!(info.contains(expected), "{listed}");
    }
    node.end("guest", "SIGKILL");
}

#[test]
fn a_process_has_no_more_rights_than_the_container() {
    let node = node();
    for (name, image, options) in [
        ("default", TOOLS, &["--seccomp"][..]),
        ("privileges", TOOLS, &["--seccomp", "--allow-new-privs"]),
        ("user", TOOLS_OF_A_USER, &["--seccomp", "--allow-new-privs"]),
    ] {
        node.start_detached(options, image, name, &["/bin/busybox", "sleep", "1000"]);
        let first = rights(&node.exec(name, &["/bin/busybox", "cat", "/proc/1/status"]).stdout());
        let further = rights(&node.exec(name, &["/bin/busybox", "cat", "/proc/self/status"]).stdout());
        assert!(first.contains(&"Seccomp:\t2".to_owned()), "{name}: {first:?}");
        assert_eq!(first, further, "{name}");
        node.end(name, "SIGKILL");
    }
}

#[test]
fn a_guest_has_the_rights_that_a_linux_program_in_its_place_has() {
    let node = node();
    let without: Vec<_> = DEFAULT_CAPABILITIES.iter().map(|name| format!("--cap-drop=CAP_{name}")).collect();
    let without: Vec<_> = without.iter().map(String::as_str).chain(["--seccomp"]).collect();
    for (name, image, options) in [
        ("root", TOOLS, &["--seccomp"][..]),
        ("user", TOOLS_OF_A_USER, &["--seccomp"]),
        ("powerless-root", TOOLS, &without),
        ("powerless-user", TOOLS_OF_A_USER, &without),
    ] {
        let status =
            |container: &str| fs::read_to_string(format!("/proc/{}/status", node.pid(container))).expect("a process");
        let [native, by_runc] = ["native", "runc"].map(|kind| format!("{name}-{kind}"));
        let sleep = ["/bin/busybox", "sleep", "1000"];
        node.start_detached(options, image, &native, &sleep);
        node.start_detached(&[&["--runtime=io.containerd.runc.v2"], options].concat(), image, &by_runc, &sleep);
        node.start_detached(options, image, name, &["/hello.wasm", "daemon"]);
        assert_eq!(rights(&status(name)), rights(&status(&native)), "{name}");
        // On cgroup v2, nobody has CAP_MKNOD here who may not have every device.
        if options == without || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            assert_eq!(rights(&status(&native)), rights(&status(&by_runc)), "{name}");
        }
        let uid = if image == TOOLS { 0 } else { 1000 };
        let process = json!({"args": ["/hello.wasm", "daemon"], "cwd": "/", "user": {"uid": uid, "gid": uid}});
        node.add_process(name, "bare", &process).expect("a process to start");
        let pid = node.start_exec(name, "bare").expect("a running process");
        let bare = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let capabilities =
            |status: &str| rights(status).into_iter().filter(|line| line.starts_with("Cap")).collect::<Vec<_>>();
        assert_eq!(
            capabilities(&bare),
            capabilities(&status(name)),
            "{name}: a process whose spec names none has the container's"
        );
        for container in [&native, &by_runc, name] {
            node.end(container, "SIGKILL");
        }
    }
}

/// What a process may have at most, by the kernel's words for it.
fn resource_limits(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process")
}

#[test]
fn a_guest_has_the_resource_limits_that_a_linux_program_in_its_place_has() {
    let node = node();
    node.start_detached(&[], TOOLS, "native", &["/bin/busybox", "sleep", "1000"]);
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    assert_eq!(resource_limits(node.pid("guest")), resource_limits(node.pid("native")));
    let process = |arguments: &[&str]| {
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 345, "hard": 456});
        json!({"args": arguments, "cwd": "/", "user": {"uid": 0, "gid": 0}, "rlimits": [limit]})
    };
    for (exec_id, arguments) in
        [("wasm", ["/hello.wasm", "daemon"].as_slice()), ("linux", &["/bin/busybox", "sleep", "9"])]
    {
        node.add_process("guest", exec_id, &process(arguments)).expect("a process to start");
        let pid = node.start_exec("guest", exec_id).expect("a running process").cast_signed();
        let limits = resource_limits(pid);
        let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["345", "456"], "{exec_id}");
    }
    node.end("native", "SIGKILL");
    node.end("guest", "SIGKILL");
}

#[test]
fn input_reaches_a_process_and_ends() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    for program in [vec!["/hello.wasm", "stdin"], vec!["/bin/busybox", "cat"]] {
        assert_echoes_until_its_input_ends(node.exec_command("guest", &[], &program));
    }
    node.end("guest", "SIGKILL");
}

#[test]
fn input_that_ends_before_a_process_runs_is_at_its_end() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let stdin = node.containerd.folder().join("stdin");
    mkfifo(&stdin, Mode::S_IRWXU).expect("a FIFO");
    let client = node.task_client("guest");
    let (id, exec_id) = ("guest".to_owned(), "cat".to_owned());
    let process = json!({"args": ["/bin/busybox", "cat"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let exec = ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        stdin: stdin.display().to_string(),
        spec: Some(Any { value: process.to_string().into_bytes(), ..Any::default() }).into(),
        ..ExecProcessRequest::default()
    };
    client.exec(context(), &exec).expect("a process to start");
    let close = CloseIORequest { id: id.clone(), exec_id: exec_id.clone(), stdin: true, ..CloseIORequest::default() };
    client.close_io(context(), &close).expect("the end of its input");
    node.start_exec("guest", "cat").expect("a running process");
    let wait = WaitRequest { id, exec_id, ..WaitRequest::default() };
    assert_eq!(client.wait(context(), &wait).expect("its end").exit_status, 0);
    node.end("guest", "SIGKILL");
}

#[test]
fn a_program_that_cannot_be_executed_is_refused_with_the_reason() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    assert_eq!(node.exec("guest", &["/bin/busybox", "touch", "/plain"]).status(), 0);
    let cases: [(&[&str], &str); 6] = [
        (&["/nowhere"], "exec: \"/nowhere\": no such file or directory"),
        (&["nowhere"], "exec: \"nowhere\": executable file not found in $PATH"),
        (&["/plain"], "exec: \"/plain\": permission denied"),
        (&["/bin"], "exec: \"/bin\": permission denied"),
        (&["/text"], "exec: \"/text\": exec format error"),
        (&["/nowhere.wasm"], "cannot read the module /nowhere.wasm: No such file"),
    ];
    for (arguments, message) in cases {
        node.exec("guest", arguments).assert_refused(&["exec failed", message]);
    }
    // None of them is in the way of the next.
    assert_eq!(node.exec("guest", &["/hello.wasm", "echo", "hi"]).stdout(), "hi\n");
    assert_eq!(node.end("guest", "SIGTERM"), 143);
    node.assert_nothing_left();
}

#[test]
fn requests_at_the_wrong_time_are_refused_as_runc_s_shim_does() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let client = node.task_client("guest");
    let id = || "guest".to_owned();
    let code = |refused: (Code, String)| refused.0;

    let delete = DeleteRequest { id: id(), ..DeleteRequest::default() };
    let refused = refusal(client.delete(context(), &delete));
    assert_eq!(refused, (Code::FAILED_PRECONDITION, "cannot delete a running process".to_owned()));
    assert_eq!(node.start_exec("guest", "").map_err(code), Err(Code::FAILED_PRECONDITION));
    let kill = |exec_id: &str, signal| {
        let request = KillRequest { id: id(), exec_id: exec_id.to_owned(), signal, ..KillRequest::default() };
        client.kill(context(), &request)
    };
    assert_eq!(code(refusal(kill("", 999))), Code::INVALID_ARGUMENT);
    assert_eq!(code(refusal(kill("nobody", 9))), Code::NOT_FOUND);
    assert_eq!(node.start_exec("guest", "nobody").map_err(code), Err(Code::NOT_FOUND));

    node.add_exec("guest", "twice", &["/bin/busybox", "sleep", "1000"]).expect("a process to start");
    let added = node.add_exec("guest", "twice", &["/bin/busybox", "true"]);
    assert_eq!(added.map_err(code), Err(Code::ALREADY_EXISTS));
    let pid = node.start_exec("guest", "twice").expect("a running process");
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process").contains("sleep"));
    assert_eq!(node.start_exec("guest", "twice").map_err(code), Err(Code::FAILED_PRECONDITION));
    kill("twice", 15).expect("a signal for the process");
    let wait = WaitRequest { id: id(), exec_id: "twice".to_owned(), ..WaitRequest::default() };
    assert_eq!(client.wait(context(), &wait).expect("an end").exit_status, 143);
    assert_eq!(refusal(kill("twice", 15)), (Code::NOT_FOUND, "process already finished".to_owned()));

    kill("", 9).expect("a signal for the guest");
    let wait = WaitRequest { id: id(), ..WaitRequest::default() };
    assert_eq!(client.wait(context(), &wait).expect("an end").exit_status, 137);
    assert_eq!(code(refusal(kill("", 9))), Code::NOT_FOUND);
    let added = node.add_exec("guest", "late", &["/bin/busybox", "true"]);
    assert_eq!(added, Err((Code::FAILED_PRECONDITION, "cannot exec in a stopped state".to_owned())));
}

#[test]
fn the_end_of_a_container_is_the_end_of_its_processes_and_comes_behind_theirs() {
    let node = node();
    let mut events = Events::of(&node);
    // Beside a PID namespace of its own, that of the machine: there the kernel does not end the others.
    for (name, options) in [("own", &[][..]), ("shared", &["--with-ns", "pid:/proc/self/ns/pid"])] {
        node.start_detached(options, TOOLS, name, &["/hello.wasm", "daemon"]);
        node.add_exec(name, "sleep", &["/bin/busybox", "sleep", "1000"]).expect("a process to start");
        let pid = node.start_exec(name, "sleep").expect("a running process");
        assert_eq!(node.end(name, "SIGKILL"), 137, "{name}");
        assert!(!fs::exists(format!("/proc/{pid}")).expect("/proc"), "{name}");
        let expected = ["create", "start", "exec-added", "exec-started", "exit of sleep", "exit", "delete"];
        assert_eq!(events.topics_until("delete"), expected, "{name}");
    }
    drop(events);
    node.assert_nothing_left();
}

#[test]
fn arguments_may_be_as_long_as_a_linux_program_s() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let long = "x".repeat(100_000);
    let run =
        node.exec("guest", &["/bin/busybox", "sh", "-c", "echo $(( ${#0} + ${#1} + ${#2} ))", &long, &long, &long]);
    assert_eq!((run.stdout().as_str(), run.status()), ("300000\n", 0), "{}", run.stderr());
    node.end("guest", "SIGKILL");
}

#[test]
fn a_linux_program_ends_when_nobody_reads_its_output_any_more() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let status = node.exec("guest", &["/bin/busybox", "cat", "/proc/self/status"]).stdout();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("the ignored signals");
    let ignored = u64::from_str_radix(ignored, 16).expect("a mask");
    assert_eq!(ignored & 1 << (Signal::SIGPIPE as u64 - 1), 0, "{status}");
    node.end("guest", "SIGKILL");
}

#[test]
fn a_program_of_a_user_can_open_its_output_by_name() {
    let node = node();
    let write = "echo hi > /dev/stdout; echo ho > /proc/self/fd/2";
    let run = node.run(&[], TOOLS_OF_A_USER, "first", &["/bin/busybox", "sh", "-c", write]);
    assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "{}", run.stderr());
    node.start_detached(&[], TOOLS_OF_A_USER, "guest", &["/hello.wasm", "daemon"]);
    let run = node.exec("guest", &["/bin/busybox", "sh", "-c", write]);
    assert_eq!((run.stdout().as_str(), run.status()), ("hi\n", 0), "{}", run.stderr());
    node.end("guest", "SIGKILL");
}

#[test]
fn a_start_whose_caller_has_gone_is_made_all_the_same() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    node.add_exec("guest", "sleep", &["/bin/busybox", "sleep", "1000"]).expect("a process to start");
    let (client, id, exec_id) = (node.task_client("guest"), "guest".to_owned(), "sleep".to_owned());
    let start = StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..StartRequest::default() };
    let no_time = with_duration(Duration::from_nanos(1));
    assert!(client.start(no_time, &start).is_err());
    // Its turn comes behind the start.
    let delete = DeleteRequest { id: id.clone(), exec_id: exec_id.clone(), ..DeleteRequest::default() };
    assert_eq!(refusal(client.delete(context(), &delete)).1, "cannot delete a running process");
    let kill = KillRequest { id, exec_id, signal: 9, ..KillRequest::default() };
    client.kill(context(), &kill).expect("a signal");
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}

/// Root in a container finds the program, which the node executes for the next one. While it runs, nobody can write to it
/// anyway.
#[test]
fn the_program_that_runs_guests_lies_where_a_container_cannot_write() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let program = format!("/proc/{}/exe", node.pid("guest"));
    assert!(statvfs(program.as_str()).expect("its file system").flags().contains(FsFlags::ST_RDONLY));
    node.end("guest", "SIGKILL");
}

#[test]
fn a_guest_leaves_no_zombies_of_those_whose_parents_have_gone() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let sh = |script| node.exec("guest", &["/bin/busybox", "sh", "-c", script]);
    let orphan =
        r#"(/bin/busybox sh -c 'echo $$ > /orphan; exec /bin/busybox true' &); while [ ! -s /orphan ]; do :; done"#;
    assert_eq!(sh(orphan).status(), 0);
    let end = r#"status=/proc/$(/bin/busybox cat /orphan)/status
        while [ -e $status ] && ! /bin/busybox grep -qs '^State:.Z' $status; do :; done
        /bin/busybox cat $status"#;
    let run = sh(end);
    assert!(run.stderr().contains("No such file"), "{}{}", run.stdout(), run.stderr());
    node.end("guest", "SIGKILL");
}

#[test]
fn a_process_that_was_never_started_can_be_removed() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    node.add_exec("guest", "idle", &["/bin/busybox", "true"]).expect("a process to start");
    let client = node.task_client("guest");
    let (id, exec_id) = ("guest".to_owned(), "idle".to_owned());
    let delete = DeleteRequest { id: id.clone(), exec_id: exec_id.clone(), ..DeleteRequest::default() };
    assert_eq!(client.delete(context(), &delete).expect("its removal").pid, 0);
    let state = StateRequest { id, exec_id, ..StateRequest::default() };
    assert_eq!(refusal(client.state(context(), &state)).0, Code::NOT_FOUND);
    node.end("guest", "SIGKILL");
}

#[test]
fn who_waits_for_a_process_that_is_never_started_is_told_of_its_end() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    for exec_id in ["removed", "left"] {
        node.add_exec("guest", exec_id, &["/bin/busybox", "true"]).expect("a process to start");
    }
    let (id, exec_id) = ("guest".to_owned(), "removed".to_owned());
    let wait = WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..WaitRequest::default() };
    let delete = DeleteRequest { id: id.clone(), exec_id, ..DeleteRequest::default() };
    let address = fs::read_to_string(node.containerd.bundle("guest").join("address")).expect("an address");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (waited, deleted) = runtime.block_on(async {
        let client = shim_async::TaskClient::new(shim_async::Client::connect(&address).await.expect("the shim"));
        // They are sent in this order, over one connection.
        tokio::join!(client.wait(context(), &wait), client.delete(context(), &delete))
    });
    deleted.expect("its removal");
    assert_eq!(waited.expect("its end").exit_status, 137);

    let client = node.task_client("guest");
    client.kill(context(), &KillRequest { id: id.clone(), signal: 9, ..KillRequest::default() }).expect("a signal");
    for exec_id in ["left", ""] {
        let wait = WaitRequest { id: id.clone(), exec_id: exec_id.to_owned(), ..WaitRequest::default() };
        assert_eq!(client.wait(context(), &wait).expect("its end").exit_status, 137, "{exec_id:?}");
    }
    assert_eq!(node.exit_code("guest"), 137);
    node.assert_nothing_left();
}

#[test]
fn a_container_can_have_a_terminal() {
    let node = node();
    for name in ENGINES {
        let command = node.run_command(&["--rm", "-t", &engine(name)], TOOLS, name, &["/hello.wasm", "echo", "hi"]);
        let mut terminal = Terminal::start(&command);
        assert_eq!(terminal.line(), "hi", "{name}");
        assert_eq!(terminal.exit_code(), 0, "{name}");
    }
    let script = r#"tty; until [ "$(stty size 2>/dev/null)" = "33 77" ]; do :; done; stty size; read word; exit $word"#;
    let command = node.run_command(&["--rm", "-t"], TOOLS, "shell", &["/bin/busybox", "sh", "-c", script]);
    let mut terminal = Terminal::start(&command);
    assert_eq!(terminal.line(), "/dev/pts/0");
    assert_eq!(terminal.line(), "33 77");
    terminal.type_line("9");
    assert_eq!(terminal.exit_code(), 9);
    node.assert_nothing_left();
}

/// So that its programs may open it again, by names such as `/dev/stdout`.
#[test]
fn a_terminal_is_the_user_s_whose_process_has_it() {
    let node = node();
    let owner = ["/bin/busybox", "stat", "-L", "-c", "%u", "/dev/pts/0"];
    let command = node.run_command(&["--rm", "-t"], TOOLS_OF_A_USER, "shell", &owner);
    let mut terminal = Terminal::start(&command);
    assert_eq!(terminal.line(), "1000");
    assert_eq!(terminal.exit_code(), 0);
    node.start_detached(&[], TOOLS_OF_A_USER, "guest", &["/hello.wasm", "daemon"]);
    let script = "until [ $(/bin/busybox stat -L -c %u /dev/pts/0) = 1000 ]; do :; done; echo given";
    let mut terminal = Terminal::start(&node.exec_command("guest", &["-t"], &["/bin/busybox", "sh", "-c", script]));
    assert_eq!(terminal.line(), "given");
    assert_eq!(terminal.exit_code(), 0);
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}

#[test]
fn a_process_can_have_a_terminal() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let command = node.exec_command("guest", &["-t"], &["/bin/busybox", "sh", "-c", "tty; read word; exit $word"]);
    let mut terminal = Terminal::start(&command);
    assert_eq!(terminal.line(), "/dev/pts/0");
    terminal.type_line("9");
    assert_eq!(terminal.exit_code(), 9);
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}

#[test]
fn a_trap_ends_a_process_although_nobody_reads_what_it_says() {
    let node = node();
    let stderr = node.containerd.folder().join("stderr");
    mkfifo(&stderr, Mode::S_IRWXU).expect("a FIFO");
    let mut full = fs::File::options().read(true).write(true).open(&stderr).expect("both ends of it");
    // As much as it holds (pipe(7)).
    full.write_all(&[b'x'; 65536]).expect("room for it");
    for name in ENGINES {
        node.start_detached(&[&engine(name)], TOOLS, name, &["/hello.wasm", "daemon"]);
        let client = node.task_client(name);
        let (id, exec_id) = (name.to_string(), "trap".to_owned());
        let process = json!({"args": ["/hello.wasm", "trap"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        let exec = ExecProcessRequest {
            id: id.clone(),
            exec_id: exec_id.clone(),
            stderr: stderr.display().to_string(),
            spec: Some(Any { value: process.to_string().into_bytes(), ..Any::default() }).into(),
            ..ExecProcessRequest::default()
        };
        client.exec(context(), &exec).expect("a process to start");
        node.start_exec(name, "trap").expect("a running process");
        let wait = WaitRequest { id, exec_id, ..WaitRequest::default() };
        assert_eq!(client.wait(context(), &wait).expect("its end").exit_status, 134, "{name}");
        node.end(name, "SIGKILL");
    }
}

#[test]
fn a_name_without_a_path_to_search_is_not_found_in_the_working_directory() {
    let node = node();
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    for (exec_id, environment) in [("none", &[][..]), ("empty", &["PATH="])] {
        let process = json!({
            "args": ["busybox", "true"], "cwd": "/bin", "user": {"uid": 0, "gid": 0}, "env": environment,
        });
        node.add_process("guest", exec_id, &process).expect("a process to start");
        let (_, message) = node.start_exec("guest", exec_id).expect_err("no program");
        assert!(message.contains("exec: \"busybox\": executable file not found in $PATH"), "{message}");
    }
    node.end("guest", "SIGKILL");
}

#[test]
fn a_container_s_working_directory_is_made_and_a_process_s_must_be_there() {
    let node = node();
    let data = node.containerd.folder().join("data");
    fs::create_dir(&data).expect("a folder");
    let volume = format!("--mount=type=bind,src={},dst=/data,options=rbind:rw", data.display());
    for (name, runtime) in [("ours", &[][..]), ("runc", &["--runtime", "io.containerd.runc.v2"])] {
        for folder in ["/made/here", "/data/inside"] {
            let cwd = format!("--cwd={folder}");
            let run = node.run(&[runtime, &[&cwd, &volume]].concat(), TOOLS, name, &["/bin/busybox", "pwd"]);
            assert_eq!(run.stdout(), format!("{folder}\n"), "{name}: {}", run.stderr());
        }
        fs::remove_dir(data.join("inside")).expect("a folder in the volume");
    }
    let run = node.run(&["--cwd=/hello.wasm"], TOOLS, "file", &["/bin/busybox", "pwd"]);
    run.assert_refused(&["working directory /hello.wasm", "Not a directory"]);
    node.start_detached(&["--cwd=/made/here"], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let process = json!({"args": ["/bin/busybox", "pwd"], "cwd": "/nowhere", "user": {"uid": 0, "gid": 0}});
    node.add_process("guest", "lost", &process).expect("a process to start");
    let (_, message) = node.start_exec("guest", "lost").expect_err("nowhere to begin");
    assert!(message.contains("working directory /nowhere: No such file or directory"), "{message}");
    node.end("guest", "SIGKILL");
}

/// From a folder of the node's `/proc`, whoever may follow the links in it comes to every file of the node.
#[test]
fn no_process_with_a_guest_has_a_way_to_the_processes_of_the_node() {
    let node = node();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], TOOLS, name, &["/hello.wasm", "daemon"]);
        let started = node.exec_command(name, &["--detach"], &["/hello.wasm", "daemon"]).output().expect("ctr");
        assert!(started.status.success(), "{name}: {started:?}");
        let list = node.ctr(&["task", "ps", name]).stdout();
        let pids: Vec<&str> = list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(pids.len(), 2, "{name}: {list}");
        for pid in pids {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
            for descriptor in descriptors.map(|entry| entry.path()) {
                let Ok(metadata) = fs::metadata(&descriptor) else { continue };
                let is_proc = statfs(&descriptor).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
                assert!(!(metadata.is_dir() && is_proc), "{name}: {} is a folder of a procfs", descriptor.display());
            }
        }
        assert_eq!(node.end(name, "SIGKILL"), 137);
    }
}
