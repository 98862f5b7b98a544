//! What a container may use, what it has used, and how it is stopped for a while. On cgroup v1 and v2 alike.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use containerd_shim::api::{DeleteRequest, KillRequest, PauseRequest, ResumeRequest, StartRequest, WaitRequest};
use containerd_shim::protos::cgroups::metrics::Metrics as MetricsV1;
use containerd_shim::protos::cgroups_v2::metrics::Metrics as MetricsV2;
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::protos::ttrpc::Code;
use images::Image;
use serde_json::json;
use support::events::Events;
use support::task_client::{context, refusal};
use support::{ENGINES, HELLO, Node, busybox, engine};

const CGROUPS: &str = "/sys/fs/cgroup";
const MIB: u64 = 1 << 20;
const TOOLS: &str = "localhost/test/tools:1";

fn is_cgroup_v2() -> bool {
    Path::new(CGROUPS).join("cgroup.controllers").exists()
}

/// A value of a container's cgroup: the file's name on cgroup v1, behind its controller, and on v2.
fn value(node: &Node, container: &str, v1: &str, v2: &str) -> String {
    let (controller, file) = v1.split_once('/').expect("a controller and a file");
    let own = Path::new(node.containerd.namespace()).join(container);
    let path = match is_cgroup_v2() {
        true => Path::new(CGROUPS).join(own).join(v2),
        false => Path::new(CGROUPS).join(controller).join(own).join(file),
    };
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

/// A mount of all the node's cgroups, as a program has one that looks after a node.
const NODES_CGROUPS: [&str; 2] = ["--mount", "type=bind,src=/sys/fs/cgroup,dst=/cgroups,options=rbind:ro"];

#[test]
fn who_sees_the_node_s_cgroups_sees_its_own_processes_in_them() {
    let node = Node::start();
    for &name in ENGINES {
        let own = Path::new(node.containerd.namespace()).join(name);
        let folder = if is_cgroup_v2() { own } else { Path::new("memory").join(own) };
        let list = Path::new("/cgroups").join(folder).join("cgroup.procs").display().to_string();
        let chosen = engine(name);
        let run = node.run(&[&[&*chosen][..], &NODES_CGROUPS].concat(), HELLO, name, &["/hello.wasm", "cat", &list]);
        assert_eq!(run.stdout().trim(), "1", "{name}: {}", run.stderr());
    }
    node.assert_nothing_left();
}

fn memory_limit(node: &Node, container: &str) -> String {
    value(node, container, "memory/memory.limit_in_bytes", "memory.max")
}

/// What a shim says of a container, in one form for both versions.
struct Used {
    cpu_nanoseconds: u64,
    throttled: u64,
    memory: u64,
    memory_limit: u64,
    pids: u64,
}

fn used(node: &Node, container: &str) -> Used {
    let stats = node.stats(container).expect("figures");
    if is_cgroup_v2() {
        assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = MetricsV2::parse_from_bytes(&stats.value).expect("containerd's message");
        Used {
            cpu_nanoseconds: metrics.cpu.usage_usec * 1000,
            throttled: metrics.cpu.nr_throttled,
            memory: metrics.memory.usage,
            memory_limit: metrics.memory.usage_limit,
            pids: metrics.pids.current,
        }
    } else {
        assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = MetricsV1::parse_from_bytes(&stats.value).expect("containerd's message");
        Used {
            cpu_nanoseconds: metrics.cpu.usage.total,
            throttled: metrics.cpu.throttling.throttled_periods,
            memory: metrics.memory.usage.usage,
            memory_limit: metrics.memory.usage.limit,
            pids: metrics.pids.current,
        }
    }
}

/// Waits for the end of a container's process and answers its exit code.
fn exit_code(node: &Node, container: &str) -> u32 {
    let request = WaitRequest { id: container.to_owned(), ..WaitRequest::default() };
    node.task_client(container).wait(context(), &request).expect("an end").exit_status
}

fn assert_done(run: &support::Run) {
    assert_eq!(run.status(), 0, "{}", run.stderr());
}

/// A native container with Linux's usual tools.
fn import_tools(node: &Node) {
    node.import(
        &Image::new(TOOLS).file("/bin/busybox", busybox()).link("/bin/sh", "busybox").link("/bin/sleep", "busybox"),
    );
}

#[test]
fn the_figures_of_a_container_are_above_zero_and_grow() {
    let node = Node::start();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], HELLO, name, &["/hello.wasm", "spin"]);
        let before = used(&node, name);
        assert!(before.cpu_nanoseconds > 0 && before.memory > 0 && before.pids > 0, "{name}");
        while used(&node, name).cpu_nanoseconds <= before.cpu_nanoseconds {}
        let printed = node.ctr(&["task", "metrics", name]);
        assert!(printed.stdout().contains("pids.current"), "{name}: {printed:?}");
        node.end(name, "SIGKILL");
    }
}

#[test]
fn the_figures_of_a_container_that_ended_are_there_until_it_is_removed() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "ended", &["/hello.wasm", "echo", "hi"]);
    assert_eq!(exit_code(&node, "ended"), 0);
    assert!(used(&node, "ended").cpu_nanoseconds > 0);
}

/// The bytes that a container's cgroup counts as written to disks, as its shim says it.
fn written(node: &Node, container: &str) -> u64 {
    let stats = node.stats(container).expect("figures");
    if is_cgroup_v2() {
        let metrics = MetricsV2::parse_from_bytes(&stats.value).expect("containerd's message");
        metrics.io.usage.iter().map(|disk| disk.wbytes).sum()
    } else {
        let metrics = MetricsV1::parse_from_bytes(&stats.value).expect("containerd's message");
        let entries = metrics.blkio.io_service_bytes_recursive.iter();
        entries.filter(|entry| entry.op == "Write").map(|entry| entry.value).sum()
    }
}

/// The same in the kernel's own words: on cgroup v1 not every disk is counted.
fn written_to_the_kernel(node: &Node, container: &str) -> u64 {
    let text = value(node, container, "blkio/blkio.throttle.io_service_bytes_recursive", "io.stat");
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let words = text.split_whitespace().collect::<Vec<_>>();
    if is_cgroup_v2() {
        words.iter().filter_map(|word| word.strip_prefix("wbytes=")).map(number).sum()
    } else {
        words.windows(2).filter(|pair| pair[0] == "Write").map(|pair| number(pair[1])).sum()
    }
}

#[test]
fn what_a_container_writes_to_a_disk_is_counted() {
    let node = Node::start();
    import_tools(&node);
    // A temporary folder may be memory.
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
    let volume = format!("--mount=type=bind,src={},dst=/disk,options=rbind:rw", folder.path().display());
    let write = "busybox dd if=/dev/zero of=/disk/file bs=64k count=16 oflag=direct 2>&1; exec sleep 1000";
    let mut command = node.run_command(&[&volume], TOOLS, "writes", &["/bin/sh", "-c", write]);
    let mut ctr = command.stdout(Stdio::piped()).spawn().expect("ctr");
    let mut lines = BufReader::new(ctr.stdout.take().expect("a pipe")).lines();
    let said = lines.find_map(|line| line.ok().filter(|line| line.contains("records out"))).expect("what was written");
    let counted = written(&node, "writes");
    assert_eq!(counted, written_to_the_kernel(&node, "writes"), "{said}");
    assert!(!is_cgroup_v2() || counted >= MIB, "{counted}");
    assert_done(&node.ctr(&["task", "kill", "-s", "SIGKILL", "writes"]));
    assert_eq!(ctr.wait().expect("ctr ends").code(), Some(137));
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    let node = Node::start();
    let mut events = Events::of(&node);
    for name in ENGINES {
        node.start_detached(&[&engine(name)], HELLO, name, &["/hello.wasm", "spin"]);
        assert_done(&node.ctr(&["task", "pause", name]));
        let tasks = node.ctr(&["task", "ls"]).stdout();
        assert!(tasks.lines().any(|line| line.starts_with(name) && line.contains("PAUSED")), "{tasks}");
        let paused = used(&node, name).cpu_nanoseconds;
        for _ in 0..50 {
            assert_eq!(used(&node, name).cpu_nanoseconds, paused, "{name} runs on");
        }
        assert_done(&node.ctr(&["task", "resume", name]));
        while used(&node, name).cpu_nanoseconds == paused {}
        assert_eq!(node.end(name, "SIGTERM"), 143, "{name}");
        assert_eq!(events.topics_until("delete"), ["create", "start", "paused", "resumed", "exit", "delete"], "{name}");
    }
}

#[test]
fn sigkill_ends_a_paused_container() {
    let node = Node::start();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], HELLO, name, &["/hello.wasm", "sleep", "1000"]);
        assert_done(&node.ctr(&["task", "pause", name]));
        assert_eq!(node.end(name, "SIGKILL"), 137, "{name}");
    }
    node.assert_nothing_left();
}

/// The signal may come before the pause, after it, or between.
#[test]
fn sigkill_ends_a_container_that_is_about_to_be_paused() {
    let node = Node::start();
    for round in 0..20 {
        let id = format!("c{round}");
        node.start_detached(&[], HELLO, &id, &["/hello.wasm", "spin"]);
        let (pausing, killing) = (node.task_client(&id), node.task_client(&id));
        let pause = PauseRequest { id: id.clone(), ..PauseRequest::default() };
        let kill = KillRequest { id: id.clone(), signal: 9, ..KillRequest::default() };
        thread::scope(|scope| {
            // A container that has ended cannot be paused.
            scope.spawn(move || pausing.pause(context(), &pause).is_ok());
            killing.kill(context(), &kill).expect("a container that runs or is paused");
        });
        assert_eq!(exit_code(&node, &id), 137, "{id}");
    }
}

#[test]
fn a_signal_to_a_paused_container_waits_for_its_resumption() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "waits", &["/hello.wasm", "sleep", "1000"]);
    assert_done(&node.ctr(&["task", "pause", "waits"]));
    assert_done(&node.ctr(&["task", "kill", "-s", "SIGTERM", "waits"]));
    let tasks = node.ctr(&["task", "ls"]).stdout();
    assert!(tasks.contains("PAUSED"), "{tasks}");
    assert_done(&node.ctr(&["task", "resume", "waits"]));
    assert_eq!(exit_code(&node, "waits"), 143);
}

#[test]
fn what_a_container_s_state_does_not_allow_is_refused() {
    let node = Node::start();
    node.start_detached(&[], HELLO, "c", &["/hello.wasm", "sleep", "1000"]);
    let task = node.task_client("c");
    let id = || "c".to_owned();
    let pause = PauseRequest { id: id(), ..PauseRequest::default() };
    let resume = ResumeRequest { id: id(), ..ResumeRequest::default() };
    let refused = |message: &str| (Code::FAILED_PRECONDITION, message.to_owned());

    assert_eq!(refusal(task.resume(context(), &resume)), refused("cannot resume a running container"));
    task.pause(context(), &pause).expect("a running container can be paused");
    assert_eq!(refusal(task.pause(context(), &pause)), refused("cannot pause a paused container"));
    let start = StartRequest { id: id(), ..StartRequest::default() };
    assert_eq!(refusal(task.start(context(), &start)), refused("cannot start a paused process"));
    let delete = DeleteRequest { id: id(), ..DeleteRequest::default() };
    assert_eq!(refusal(task.delete(context(), &delete)), refused("cannot delete a paused process"));

    assert_done(&node.ctr(&["task", "kill", "-s", "SIGKILL", "c"]));
    assert_eq!(exit_code(&node, "c"), 137);
    assert_eq!(refusal(task.pause(context(), &pause)), refused("cannot pause a stopped container"));
    assert_eq!(refusal(task.resume(context(), &resume)), refused("cannot resume a stopped container"));
    let update = node.update("c", &json!({"memory": {"limit": 1 << 30}}));
    assert_eq!(refusal(update), refused("cannot update a stopped container"));
}

#[test]
fn the_limits_of_a_run_are_its_cgroup_s() {
    let node = Node::start();
    let limits =
        ["--memory-limit=134217728", "--cpu-quota=30000", "--cpu-period=50000", "--cpu-shares=512"].map(str::to_owned);
    for name in ENGINES {
        let mut options: Vec<&str> = limits.iter().map(String::as_str).collect();
        let engine = engine(name);
        options.push(&engine);
        node.start_detached(&options, HELLO, name, &["/hello.wasm", "spin"]);
        assert_eq!(memory_limit(&node, name), "134217728", "{name}");
        assert_eq!(used(&node, name).memory_limit, 134_217_728, "{name}");
        if is_cgroup_v2() {
            assert_eq!(value(&node, name, "/", "cpu.max"), "30000 50000", "{name}");
        } else {
            assert_eq!(value(&node, name, "cpu/cpu.cfs_quota_us", ""), "30000", "{name}");
            assert_eq!(value(&node, name, "cpu/cpu.cfs_period_us", ""), "50000", "{name}");
        }
        assert_eq!(value(&node, name, "cpu/cpu.shares", "cpu.weight"), if is_cgroup_v2() { "59" } else { "512" });
        while used(&node, name).throttled == 0 {}
        node.end(name, "SIGKILL");
    }
}

#[test]
fn a_guest_over_its_memory_limit_is_killed_with_137_after_an_event() {
    let node = Node::start();
    let mut events = Events::of(&node);
    for name in ENGINES {
        let options = ["--memory-limit=134217728", &engine(name)];
        let run = node.run(&options, HELLO, name, &["/hello.wasm", "allocate", "512"]);
        assert_eq!(run.status(), 137, "{name}: {}", run.stderr());
        assert_eq!(events.topics_until("delete"), ["create", "start", "oom", "exit", "delete"], "{name}");
    }
    drop(events);
    node.assert_nothing_left();
}

/// The engines reserve gigabytes of addresses: only what is written to counts.
#[test]
fn a_guest_within_its_memory_limit_runs() {
    let node = Node::start();
    for name in ENGINES {
        let options = ["--memory-limit=134217728", &engine(name)];
        let mut command = node.run_command(&options, HELLO, name, &["/hello.wasm", "allocate", "64"]);
        let mut ctr = command.stdout(Stdio::piped()).spawn().expect("ctr");
        let mut line = String::new();
        BufReader::new(ctr.stdout.take().expect("a pipe")).read_line(&mut line).expect("text");
        assert_eq!(line, "holding 64 MiB\n", "{name}");
        assert!(used(&node, name).memory > 64 * MIB, "{name}");
        assert_done(&node.ctr(&["task", "kill", "-s", "SIGKILL", name]));
        assert_eq!(ctr.wait().expect("ctr ends").code(), Some(137), "{name}");
    }
}

#[test]
fn an_update_changes_the_limits_of_a_running_container() {
    let node = Node::start();
    for name in ENGINES {
        node.start_detached(&[&engine(name)], HELLO, name, &["/hello.wasm", "spin"]);
        let devices = || value(&node, name, "devices/devices.list", "cgroup.controllers");
        let devices_before = devices();
        let limits = json!({
            "cpu": {"shares": 512, "quota": 30000, "period": 50000, "cpus": "0", "mems": ""},
            "memory": {"limit": 256 * MIB, "swap": 256 * MIB, "reservation": 64 * MIB},
            "pids": {"limit": 77},
            "devices": [{"allow": true, "access": "rwm"}],
            "blockIO": {},
            // As the kubelet may send them.
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.high": "201326592", "memory.oom.group": "1"},
        });
        node.update(name, &limits).expect("possible");
        for (v1, v2, value_v1, value_v2) in [
            ("cpu/cpu.shares", "cpu.weight", "512", "59"),
            ("cpu/cpu.cfs_quota_us", "cpu.max", "30000", "30000 50000"),
            ("cpu/cpu.cfs_period_us", "cpu.max", "50000", "30000 50000"),
            ("cpuset/cpuset.cpus", "cpuset.cpus", "0", "0"),
            ("memory/memory.limit_in_bytes", "memory.max", "268435456", "268435456"),
            ("memory/memory.soft_limit_in_bytes", "memory.low", "67108864", "67108864"),
            ("pids/pids.max", "pids.max", "77", "77"),
        ] {
            let expected = if is_cgroup_v2() { value_v2 } else { value_v1 };
            assert_eq!(value(&node, name, v1, v2), expected, "{name}: {v1}");
        }
        while used(&node, name).throttled == 0 {}
        node.update(name, &json!({"cpu": {"quota": -1}, "pids": {"limit": -1}})).expect("possible");
        assert_eq!(value(&node, name, "pids/pids.max", "pids.max"), "max", "{name}");
        assert_eq!(memory_limit(&node, name), "268435456", "{name}: what is left out stays");
        assert_eq!(devices(), devices_before, "{name}");
        node.end(name, "SIGKILL");
    }
}

#[test]
fn an_update_below_the_memory_in_use_is_refused_and_changes_nothing() {
    let node = Node::start();
    let options = ["--memory-limit=268435456"];
    let mut command = node.run_command(&options, HELLO, "full", &["/hello.wasm", "allocate", "64"]);
    let mut ctr = command.stdout(Stdio::piped()).spawn().expect("ctr");
    BufReader::new(ctr.stdout.take().expect("a pipe")).read_line(&mut String::new()).expect("text");
    let pids = || value(&node, "full", "pids/pids.max", "pids.max");
    let pids_before = pids();
    // The shares come before the memory, the pids after.
    let limits = json!({
        "cpu": {"shares": 4096},
        "memory": {"limit": 32 * MIB, "swap": 32 * MIB},
        "pids": {"limit": 50},
    });
    let (code, message) = refusal(node.update("full", &limits));
    assert_eq!(code, Code::UNKNOWN);
    let reason = if is_cgroup_v2() { "bytes are in use" } else { "Device or resource busy" };
    assert!(message.contains("cannot set memory.") && message.contains(reason), "{message}");
    assert_eq!(memory_limit(&node, "full"), "268435456");
    let shares = value(&node, "full", "cpu/cpu.shares", "cpu.weight");
    assert_eq!(shares, if is_cgroup_v2() { "100" } else { "1024" });
    assert_eq!(pids(), pids_before);
    assert_done(&node.ctr(&["task", "kill", "-s", "SIGKILL", "full"]));
    assert_eq!(ctr.wait().expect("ctr ends").code(), Some(137));
}

#[test]
fn an_update_of_what_cannot_be_changed_is_refused_and_changes_nothing() {
    let node = Node::start();
    node.start_detached(&["--memory-limit=268435456"], HELLO, "c", &["/hello.wasm", "daemon"]);
    let limits = json!({
        "memory": {"limit": 128 * MIB},
        "cpu": {"realtimeRuntime": 1000},
        "blockIO": {"weight": 100},
    });
    let (_, message) = refusal(node.update("c", &limits));
    assert!(message.contains("cannot change blockIO, cpu.realtimeRuntime of a running container"), "{message}");
    assert_eq!(memory_limit(&node, "c"), "268435456");
    assert_eq!(node.end("c", "SIGTERM"), 143);
}

/// `ctr` leaves the path out of the spec then.
#[test]
fn a_container_that_names_no_cgroup_has_one_that_it_cannot_change() {
    let node = Node::start();
    import_tools(&node);
    let id = node.containerd.namespace();
    let mount = "--mount=type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=nosuid:noexec:nodev:relatime:ro";
    let options = ["--cgroup=", mount, "--memory-limit=134217728"];
    let v2 = "$(busybox cut -d: -f3- /proc/self/cgroup)/memory.max";
    let file = format!("{CGROUPS}{}", if is_cgroup_v2() { v2 } else { "/memory/memory.limit_in_bytes" });
    // Less than the limit: swap has one as well, and would refuse more.
    let script = format!("read limit < {file}; echo $limit; exec 2>&1; echo 67108864 > {file}");
    let run = node.run(&options, TOOLS, id, &["/bin/sh", "-c", &script]);
    let printed = run.stdout();
    assert!(printed.starts_with("134217728\n"), "{printed} {}", run.stderr());
    assert!(printed.contains("Read-only file system"), "{printed}");
    let own = format!(":youki:{id}");
    let parents = [CGROUPS.to_owned(), format!("{CGROUPS}/memory"), format!("{CGROUPS}/devices")];
    assert!(parents.iter().all(|parent| !Path::new(parent).join(&own).exists()), "{own}");
    node.assert_nothing_left();
}

#[test]
fn a_limit_of_processes_holds() {
    let node = Node::start();
    import_tools(&node);
    let forks = "while :; do sleep 0.01; done";
    node.start_detached(&[], TOOLS, "forks", &["/bin/sh", "-c", forks]);
    node.update("forks", &json!({"pids": {"limit": 1}})).expect("possible");
    // A shell that cannot fork ends with 2.
    assert_eq!(exit_code(&node, "forks"), 2);
}

#[test]
fn a_native_container_over_its_memory_limit_is_killed_with_137_after_an_event() {
    let node = Node::start();
    import_tools(&node);
    let mut events = Events::of(&node);
    let doubles = "text=0123456789abcdef; while :; do text=$text$text; done";
    let run = node.run(&["--memory-limit=33554432"], TOOLS, "doubles", &["/bin/sh", "-c", doubles]);
    assert_eq!(run.status(), 137, "{}", run.stderr());
    assert_eq!(events.topics_until("delete"), ["create", "start", "oom", "exit", "delete"]);
}

/// The CRI names a cgroup so where the kubelet's driver is `systemd`.
#[test]
fn a_cgroup_of_the_systemd_driver_is_a_unit_in_its_slice_or_refused_where_there_is_no_systemd() {
    let node = Node::start();
    let name = node.containerd.namespace();
    let options = [&format!("--cgroup=dapr-test.slice:dapr:{name}"), "--memory-limit=134217728"];
    if !is_cgroup_v2() || !Path::new("/run/systemd/system").exists() {
        let run = node.run(&options, HELLO, name, &["/hello.wasm", "spin"]);
        run.assert_refused(&["dapr-test.slice/dapr-", "systemd cgroup driver"]);
        node.assert_nothing_left();
        return;
    }
    let unit: PathBuf = [CGROUPS, "dapr.slice", "dapr-test.slice", &format!("dapr-{name}.scope")].iter().collect();
    node.start_detached(&options, HELLO, name, &["/hello.wasm", "spin"]);
    let limit = || fs::read_to_string(unit.join("memory.max")).expect("the unit's cgroup");
    assert_eq!(limit().trim(), "134217728");
    node.update(name, &json!({"memory": {"limit": 256 * MIB}, "cpu": {"quota": 20000}})).expect("possible");
    let reloaded = Command::new("systemctl").arg("daemon-reload").status().expect("systemctl");
    assert!(reloaded.success());
    assert_eq!(limit().trim(), "268435456", "systemd was told");
    while used(&node, name).throttled == 0 {}
    assert_done(&node.ctr(&["task", "kill", "-s", "SIGKILL", name]));
    assert_eq!(exit_code(&node, name), 137);
    assert!(used(&node, name).cpu_nanoseconds > 0, "the last figures are kept");
    assert_done(&node.ctr(&["task", "delete", "--force", name]));
    while unit.exists() {}
}

#[test]
fn a_container_cannot_reach_the_node_s_disks() {
    let node = Node::start();
    import_tools(&node);
    let disks = fs::read_dir("/sys/block").expect("disks").map(|disk| disk.expect("an entry").path());
    let text = |path: PathBuf| fs::read_to_string(path).expect("text").trim().to_owned();
    let disk = disks.into_iter().find(|disk| text(disk.join("size")) != "0").expect("a disk");
    let disk = text(disk.join("dev"));
    let disk = disk.split_once(':').map(|(major, minor)| (major.to_owned(), minor.to_owned())).expect("two numbers");
    // A volume with device nodes: in the folder itself, and in a mount below it.
    let folder = node.containerd.folder().join("volume");
    let below = folder.join("below");
    for folder in [&folder, &below] {
        fs::create_dir(folder).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(folder).status();
        assert!(mounted.expect("mount").success());
        let made = Command::new("mknod").arg(folder.join("disk")).args(["b", disk.0.as_str(), &disk.1]).status();
        assert!(made.expect("mknod").success());
    }
    let volume = format!("--mount=type=bind,src={},dst=/volume,options=rbind:rw", folder.display());
    for folder in ["", "/dev", "/volume", "/volume/below"] {
        let script = format!("[ -e {folder}/disk ] || busybox mknod {folder}/disk b {} {};", disk.0, disk.1);
        let script = format!("{script} busybox head -c 1 {folder}/disk 2>&1");
        let run = node.run(&[&volume], TOOLS, "native", &["/bin/sh", "-c", &script]);
        let printed = run.stdout();
        let refused = ["Permission denied", "Operation not permitted", "No such file"];
        assert!(refused.iter().any(|words| printed.contains(words)), "{folder}: {printed} {}", run.stderr());
    }
    let unmounted = Command::new("umount").arg("--recursive").arg(&folder).status();
    assert!(unmounted.expect("umount").success());
}

/// As `ctr run --privileged` says it, and Kubernetes' `privileged: true`.
#[test]
fn a_container_that_may_have_every_device_has_those_of_its_volumes() {
    let node = Node::start();
    import_tools(&node);
    let options = ["--privileged", "--mount=type=bind,src=/dev,dst=/node-dev,options=rbind:rw"];
    let run =
        node.run(&options, TOOLS, "native", &["/bin/sh", "-c", "busybox head -c 3 /node-dev/zero | busybox wc -c"]);
    assert_eq!((run.stdout().trim(), run.status()), ("3", 0), "{}", run.stderr());
}
