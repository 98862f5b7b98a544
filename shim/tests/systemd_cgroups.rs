//! Containers whose cgroup systemd makes, as a unit of its own: the way of a kubelet with the systemd driver.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{ENGINES, HELLO, Node, engine};
use testbed::containerd::PATIENCE;

/// What `systemctl show` says of a unit, whether there is one or not.
fn property(unit: &str, name: &str) -> String {
    let shown = Command::new("systemctl").args(["show", "--value", "--property", name, unit]).output();
    let shown = shown.expect("systemctl");
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    String::from_utf8_lossy(&shown.stdout).trim().to_owned()
}

/// systemd forgets a unit a moment after its last process.
fn assert_gone(unit: &str) {
    let deadline = Instant::now() + PATIENCE;
    while property(unit, "LoadState") != "not-found" {
        assert!(Instant::now() < deadline, "{unit} is {}", property(unit, "ActiveState"));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!Path::new("/sys/fs/cgroup/system.slice").join(unit).exists());
}

#[test]
#[ignore = "needs systemd; `make test-cgroup2` runs it"]
fn a_container_is_a_unit_of_systemd_with_the_container_s_limits_until_it_is_deleted() {
    let node = Node::start();
    for name in ENGINES {
        let id = &format!("{}-{name}", node.containerd.namespace());
        let unit = &format!("dapr-{id}.scope");
        let cgroup = &format!("--cgroup=system.slice:dapr:{id}");
        let options = [&engine(name), cgroup, "--memory-limit=134217728", "--cpu-quota=50000", "--cpu-period=100000"];
        node.start_detached(&options, HELLO, id, &["/hello.wasm", "spin"]);
        for (property_name, expected) in [
            ("ActiveState", "active"),
            ("Slice", "system.slice"),
            ("ControlGroup", &format!("/system.slice/{unit}")),
            ("MemoryMax", "134217728"),
            ("CPUQuotaPerSecUSec", "500ms"),
        ] {
            assert_eq!(property(unit, property_name), expected, "{name}: {property_name}");
        }
        assert_eq!(node.end(id, "SIGKILL"), 137, "{name}");
        assert_gone(unit);
    }
    node.assert_nothing_left();
}

#[test]
#[ignore = "needs systemd; `make test-cgroup2` runs it"]
fn an_updated_limit_holds_when_systemd_loads_its_configuration_again() {
    let node = Node::start();
    let id = &format!("{}-a", node.containerd.namespace());
    let unit = &format!("dapr-{id}.scope");
    let cgroup = &format!("--cgroup=system.slice:dapr:{id}");
    node.start_detached(&[cgroup, "--memory-limit=134217728"], HELLO, id, &["/hello.wasm", "daemon"]);
    let limits =
        json!({"memory": {"limit": 268435456}, "cpu": {"quota": 30000, "period": 100000}, "pids": {"limit": 70}});
    node.update(id, &limits).expect("possible");
    let reload = Command::new("systemctl").arg("daemon-reload").status().expect("systemctl");
    assert!(reload.success());
    let folder = Path::new("/sys/fs/cgroup/system.slice").join(unit);
    for (property_name, expected, file, value) in [
        ("MemoryMax", "268435456", "memory.max", "268435456"),
        ("CPUQuotaPerSecUSec", "300ms", "cpu.max", "30000 100000"),
        ("TasksMax", "70", "pids.max", "70"),
    ] {
        assert_eq!(property(unit, property_name), expected, "{property_name}");
        assert_eq!(fs::read_to_string(folder.join(file)).expect(file).trim(), value, "{file}");
    }
    node.end(id, "SIGKILL");
    node.assert_nothing_left();
}

#[test]
#[ignore = "needs systemd; `make test-cgroup2` runs it"]
fn a_container_can_be_made_again_as_soon_as_it_is_deleted() {
    let node = Node::start();
    let id = &format!("{}-a", node.containerd.namespace());
    let cgroup = &format!("--cgroup=system.slice:dapr:{id}");
    for round in 0..10 {
        let run = node.run(&[cgroup], HELLO, id, &["/hello.wasm", "echo", "again"]);
        assert_eq!((run.status(), run.stdout().as_str()), (0, "again\n"), "{round}: {}", run.stderr());
    }
    node.assert_nothing_left();
}

#[test]
#[ignore = "needs systemd; `make test-cgroup2` runs it"]
fn a_guest_over_the_memory_limit_of_its_unit_is_killed_with_137() {
    let node = Node::start();
    for name in ENGINES {
        let id = &format!("{}-{name}", node.containerd.namespace());
        let cgroup = &format!("--cgroup=system.slice:dapr:{id}");
        let options = [&engine(name), cgroup, "--memory-limit=134217728"];
        let run = node.run(&options, HELLO, id, &["/hello.wasm", "allocate", "512"]);
        assert_eq!(run.status(), 137, "{name}: {}", run.stderr());
        assert_gone(&format!("dapr-{id}.scope"));
    }
    node.assert_nothing_left();
}
