//! Pods: what Kubernetes asks of a runtime through containerd's CRI, and what a user of it sees.

mod support;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use images::Image;
use k8s_cri::v1::{
    ContainerConfig, ContainerState, DnsConfig, Int64Value, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption,
    PodSandboxConfig,
};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::ioctl_fionread;
use support::{ENGINES, HELLO, guest, programs};
use testbed::containerd::{Containerd, PATIENCE};
use testbed::pods::{Container, Kubelet, Pod, container};

const HTTP: &str = "localhost/dapr-wasm/http:dev";
const BUSYBOX: &str = "localhost/test/busybox:1";
const HTTP_PORT: u16 = 8080;

/// A node that has the images of `hello` and `http`, and one of native programs.
fn node() -> Kubelet {
    node_of(Containerd::start_for_pods(&[&programs()]))
}

fn node_of(containerd: Containerd) -> Kubelet {
    let node = Kubelet::start(containerd);
    node.import(HELLO, &Image::new(HELLO).file("/hello.wasm", guest("hello")).entrypoint(["/hello.wasm"]));
    let http = Image::new(HTTP).file("/http.wasm", guest("http")).entrypoint(["/http.wasm"]);
    node.import(HTTP, &http.file("/config.yaml", "wasmPath: /http.wasm\ntrigger: http\n"));
    let busybox = fs::read("/bin/busybox").expect("the Debian package busybox-static");
    node.import(BUSYBOX, &Image::new(BUSYBOX).file("/bin/busybox", busybox));
    node
}

/// A container of `hello`.
fn hello(name: &str, engine: &str, words: &[&str]) -> ContainerConfig {
    wasm(name, engine, HELLO, &[&["/hello.wasm"], words].concat())
}

/// A container of `http`, which listens on [`HTTP_PORT`].
fn http(name: &str, engine: &str) -> ContainerConfig {
    wasm(name, engine, HTTP, &[])
}

fn wasm(name: &str, engine: &str, image: &str, arguments: &[&str]) -> ContainerConfig {
    let mut config = container(name, image, arguments);
    config.annotations.insert("dapr.wasm/engine".to_owned(), engine.to_owned());
    config
}

/// A native program.
fn busybox(name: &str, words: &[&str]) -> ContainerConfig {
    container(name, BUSYBOX, &[&["/bin/busybox"], words].concat())
}

fn linux(config: &mut ContainerConfig) -> &mut LinuxContainerConfig {
    config.linux.get_or_insert_default()
}

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    linux(config).security_context.get_or_insert_default()
}

fn volume(from: &Path, to: &str, readonly: bool) -> Mount {
    Mount { host_path: from.display().to_string(), container_path: to.to_owned(), readonly, ..Mount::default() }
}

/// What a container prints until it ends well.
fn output(pod: &Pod, config: ContainerConfig) -> String {
    let name = config.metadata.clone().unwrap_or_default().name;
    let container = pod.start(config).unwrap_or_else(|error| panic!("{name}: {error}"));
    let status = container.exited();
    let lines: String = container.log().into_iter().map(|line| line.text + "\n").collect();
    assert_eq!(status.exit_code, 0, "{name}: {lines}");
    container.remove().unwrap_or_else(|error| panic!("{name}: {error}"));
    lines
}

/// Stops and removes a pod, and looks for what it left.
fn end(node: &Kubelet, pod: Pod) {
    pod.stop().expect("the pod stops");
    pod.remove().expect("the pod is removed");
    assert_nothing_left(node);
}

fn assert_nothing_left(node: &Kubelet) {
    let leftovers = node.containerd.leftovers();
    assert!(leftovers.is_empty(), "left behind:\n{}", leftovers.join("\n"));
    // Each container's end has containerd say that it cleans up after its shim. There must be nothing to say about it.
    let log = node.containerd.log();
    let complaints = ["cleanup warnings", "warnings while cleaning up", "failed to clean up"];
    let found: Vec<&str> = log.lines().filter(|line| complaints.iter().any(|words| line.contains(words))).collect();
    assert!(found.is_empty(), "containerd complains:\n{}", found.join("\n"));
}

fn get(node: &Kubelet, address: IpAddr, path: &str) -> String {
    try_get(node, address, path).expect("an answer")
}

fn try_get(node: &Kubelet, address: IpAddr, path: &str) -> io::Result<String> {
    let connect = || TcpStream::connect(SocketAddr::new(address, HTTP_PORT));
    let mut stream = node.containerd.network().within(connect)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_wasm_container_with_a_memory_limit_runs_logs_and_stops_within_its_grace_period() {
    let node = node();
    for &engine in ENGINES {
        let pod = node.run(node.pod(engine)).expect("a pod");
        assert!(pod.ip().is_some_and(|address| !address.is_loopback()), "{engine}");
        let mut config = hello("daemon", engine, &["daemon"]);
        let limits = LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() };
        linux(&mut config).resources = Some(limits);
        let daemon = pod.start(config).expect("a container");
        assert_eq!(daemon.status().expect("a status").state(), ContainerState::ContainerRunning, "{engine}");
        let line = daemon.wait_for_line("running for 0 s");
        assert_eq!((line.stream.as_str(), line.tag.as_str()), ("stdout", "F"), "{engine}");
        assert!(line.time.starts_with("20") && line.time.contains('T'), "{engine}: {line:?}");

        daemon.stop(10).expect("the container stops");
        let status = daemon.exited();
        assert_eq!((status.exit_code, status.reason.as_str()), (143, "Error"), "{engine}");
        daemon.remove().expect("the container is removed");
        end(&node, pod);
    }
}

#[test]
fn a_guest_is_stopped_by_the_signal_that_its_image_names() {
    let node = node();
    let pod = node.run(node.pod("signals")).expect("a pod");
    for (signal, code) in [("SIGINT", 130), ("SIGQUIT", 131), ("SIGRTMIN+3", 165)] {
        let image = format!("localhost/test/{}:1", signal.replace('+', "-").to_lowercase());
        let hello = Image::new(&image).file("/hello.wasm", guest("hello")).entrypoint(["/hello.wasm"]);
        node.import(&image, &hello.stop_signal(signal));
        for &engine in ENGINES {
            let container = pod.start(wasm(engine, engine, &image, &["/hello.wasm", "daemon"])).expect("a container");
            container.stop(3600).expect("the container stops");
            assert_eq!(container.exited().exit_code, code, "{engine}: {signal}");
        }
    }
    end(&node, pod);
}

#[test]
fn a_guest_that_still_answers_at_the_end_of_its_grace_period_is_killed() {
    let node = node();
    for &engine in ENGINES {
        let pod = node.run(node.pod(engine)).expect("a pod");
        let container = pod.start(http("http", engine)).expect("a container");
        let address = pod.ip().expect("an address");
        let endless = thread::scope(|scope| {
            let endless = scope.spawn(|| try_get(&node, address, "/spin"));
            let cpu = || container.stats().ok()?.cpu?.usage_core_nano_seconds.map(|used| used.value);
            // The guest is at work.
            while cpu().is_none_or(|used| used < 500_000_000) {}
            container.stop(1).expect("the container stops");
            endless.join().expect("no panic")
        });
        assert!(endless.is_err() || endless.is_ok_and(|answer| answer.is_empty()), "{engine}");
        assert_eq!(container.exited().exit_code, 137, "{engine}");
        end(&node, pod);
    }
}

#[test]
fn a_guest_over_its_memory_limit_is_oom_killed() {
    let node = node();
    let pod = node.run(node.pod("memory")).expect("a pod");
    for &engine in ENGINES {
        let mut config = hello(engine, engine, &["allocate", "512"]);
        let limits = LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() };
        linux(&mut config).resources = Some(limits);
        let status = pod.start(config).expect("a container").exited();
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{engine}");
    }
    end(&node, pod);
}

#[test]
fn a_container_cannot_change_its_own_limits() {
    let node = node();
    let pod = node.run(node.pod("limits")).expect("a pod");
    let (v1, v2) = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max");
    let file = if Path::new(v1).exists() { v1 } else { v2 };
    // Less than the limit: swap has one as well, and would refuse more.
    let other = (64 << 20).to_string();
    let limited = |mut config: ContainerConfig| {
        let limits = LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() };
        linux(&mut config).resources = Some(limits);
        config
    };
    let read = output(&pod, limited(busybox("read", &["cat", file])));
    assert_eq!(read.trim_end(), (128 << 20).to_string());
    let processes = Path::new(file).with_file_name("cgroup.procs").display().to_string();
    assert_ne!(output(&pod, busybox("list", &["cat", &processes])), "");
    let mut writers = vec![busybox("write", &["sh", "-c", &format!("echo {other} > {file}")])];
    writers.extend(ENGINES.iter().map(|engine| hello("write", engine, &["write", file, &other])));
    for writer in writers {
        let write = pod.start(limited(writer)).expect("a container");
        assert_ne!(write.exited().exit_code, 0, "{:?}", write.log());
    }
    end(&node, pod);
}

#[test]
fn what_a_container_uses_is_counted() {
    let node = node();
    for &engine in ENGINES {
        let pod = node.run(node.pod(engine)).expect("a pod");
        let spin = pod.start(hello("daemon", engine, &["daemon"])).expect("a container");
        spin.wait_for_line("running for 0 s");
        let stats = spin.stats().expect("stats");
        let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map_or(0, |value| value.value);
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |value| value.value);
        assert!(cpu > 0 && memory > 0, "{engine}: {cpu} ns, {memory} bytes");
        end(&node, pod);
    }
}

#[test]
fn exec_answers_with_output_and_exit_code() {
    let node = node();
    for &engine in ENGINES {
        let pod = node.run(node.pod(engine)).expect("a pod");
        let daemon = pod.start(hello("daemon", engine, &["daemon"])).expect("a container");
        let echo = daemon.exec(&["/hello.wasm", "echo", "hi"]).expect("an answer");
        assert_eq!((echo.exit_code, &*echo.stdout, &*echo.stderr), (0, &b"hi\n"[..], &b""[..]), "{engine}");
        let exit = daemon.exec(&["/hello.wasm", "exit", "7"]).expect("an answer");
        assert_eq!(exit.exit_code, 7, "{engine}");
        end(&node, pod);
    }
}

#[test]
fn lines_of_both_streams_reach_the_log_in_cri_s_format() {
    let node = node();
    let pod = node.run(node.pod("log")).expect("a pod");
    for &engine in ENGINES {
        let stdout = pod.start(hello(&format!("{engine}-out"), engine, &["echo", "hi"])).expect("a container");
        stdout.exited();
        let log = stdout.log();
        assert_eq!(log.len(), 1, "{engine}: {log:?}");
        assert_eq!((log[0].stream.as_str(), log[0].tag.as_str(), log[0].text.as_str()), ("stdout", "F", "hi"));

        let stderr = pod.start(hello(&format!("{engine}-err"), engine, &["stderr", "oh"])).expect("a container");
        stderr.exited();
        let log = stderr.log();
        assert_eq!(log.len(), 1, "{engine}: {log:?}");
        assert_eq!((log[0].stream.as_str(), log[0].tag.as_str(), log[0].text.as_str()), ("stderr", "F", "oh"));
    }
}

#[test]
fn a_pod_of_two_engines_and_a_native_sidecar_has_one_shim() {
    let node = node();
    let pod = node.run(node.pod("mixed")).expect("a pod");
    for &engine in ENGINES {
        pod.start(hello(engine, engine, &["daemon"])).expect("a container").wait_for_line("running for 0 s");
    }
    let sidecar = pod.start(busybox("sidecar", &["sh", "-c", "echo hi; exec sleep 1000"])).expect("a container");
    sidecar.wait_for_line("hi");

    let shims = node.containerd.processes().into_iter();
    let shims: Vec<i32> = shims.filter(|pid| executable(*pid) == "containerd-shim-dapr-v1").collect();
    assert_eq!(shims.len(), 1, "{shims:?}");
    end(&node, pod);
}

fn executable(pid: i32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn an_http_guest_is_reached_at_its_pod_s_address() {
    let node = node();
    for &engine in ENGINES {
        let pod = node.run(node.pod(engine)).expect("a pod");
        pod.start(http("http", engine)).expect("a container");
        let answer = get(&node, pod.ip().expect("an address"), "/");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("Hello from WASM!"), "{engine}: {answer}");
        end(&node, pod);
    }
}

#[test]
fn pods_with_the_same_port_do_not_meet() {
    let node = node();
    let pods: Vec<Pod> = ["one", "two"].map(|name| node.run(node.pod(name)).expect("a pod")).into();
    for pod in &pods {
        pod.start(http("http", ENGINES[0])).expect("a container");
    }
    let addresses: Vec<IpAddr> = pods.iter().filter_map(Pod::ip).collect();
    assert_ne!(addresses[0], addresses[1]);
    for address in addresses {
        assert!(get(&node, address, "/").starts_with("HTTP/1.1 200"), "{address}");
    }
}

#[test]
fn a_guest_finds_another_pod_by_the_name_in_its_hosts_file() {
    let node = node();
    let server = node.run(node.pod("server")).expect("a pod");
    server.start(http("http", ENGINES[0])).expect("a container");
    let hosts = node.containerd.folder().join("hosts");
    let address = server.ip().expect("an address");
    fs::write(&hosts, format!("127.0.0.1 localhost\n{address} the-server\n")).expect("a file");
    for &engine in ENGINES {
        let pod = node.run(node.pod(engine)).expect("a pod");
        let mut config = http("client", engine);
        config.mounts.push(volume(&hosts, "/etc/hosts", true));
        pod.start(config).expect("a container");
        let url = format!("/upstream?url=http://the-server:{HTTP_PORT}/");
        let answer = get(&node, pod.ip().expect("an address"), &url);
        assert!(answer.ends_with("Hello from WASM!"), "{engine}: {answer}");
    }
}

#[test]
fn a_guest_sees_the_hostname_and_the_dns_configuration_of_its_pod() {
    let node = node();
    let mut config = node.pod("named");
    config.hostname = "a-name-of-its-own".to_owned();
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: vec!["default.svc.cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    let pod = node.run(config).expect("a pod");
    let address = pod.ip().expect("an address").to_string();
    for &engine in ENGINES {
        let cat = |file: &str| output(&pod, hello("cat", engine, &["cat", file]));
        assert_eq!(cat("/etc/hostname"), "a-name-of-its-own\n", "{engine}");
        let resolv = cat("/etc/resolv.conf");
        for line in ["nameserver 10.96.0.10", "search default.svc.cluster.local", "options ndots:5"] {
            assert!(resolv.lines().any(|found| found == line), "{engine}: {resolv}");
        }
        assert!(cat("/etc/hosts").contains("127.0.0.1"), "{engine}");
        let environment = output(&pod, hello("env", engine, &["env"]));
        assert!(environment.contains("HOSTNAME=a-name-of-its-own\n"), "{engine}: {environment}");
    }
    let interface = output(&pod, busybox("native", &["ip", "-o", "address"]));
    assert!(interface.contains(&address), "a sidecar has the same address: {interface}");
    end(&node, pod);
}

/// A pod that shares namespaces with its node or among its containers.
fn with_namespaces(mut config: PodSandboxConfig, options: NamespaceOption) -> PodSandboxConfig {
    let context = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    config.linux.get_or_insert_default().security_context = Some(context);
    config
}

#[test]
fn a_pod_of_the_host_s_network_listens_on_the_node() {
    let node = node();
    for &engine in ENGINES {
        let (network, pid) = (NamespaceMode::Node.into(), NamespaceMode::Container.into());
        let options = || NamespaceOption { network, pid, ..Default::default() };
        // Such a pod has its node's name.
        let config = PodSandboxConfig { hostname: String::new(), ..with_namespaces(node.pod(engine), options()) };
        let pod = node.run(config).expect("a pod");
        assert_eq!(pod.ip(), None, "{engine}");
        let mut config = http("http", engine);
        security(&mut config).namespace_options = Some(options());
        pod.start(config).expect("a container");
        let answer = get(&node, Ipv4Addr::LOCALHOST.into(), "/");
        assert!(answer.ends_with("Hello from WASM!"), "{engine}: {answer}");
        end(&node, pod);
    }
}

#[test]
fn containers_of_a_pod_that_shares_its_processes_see_each_other() {
    let node = node();
    let options = NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() };
    let pod = node.run(with_namespaces(node.pod("shared"), options.clone())).expect("a pod");
    let share = |mut config: ContainerConfig| {
        security(&mut config).namespace_options = Some(options.clone());
        config
    };
    for &engine in ENGINES {
        pod.start(share(hello(engine, engine, &["daemon"]))).expect("a container").wait_for_line("running for 0 s");
    }
    let processes = output(&pod, share(busybox("ps", &["ps"])));
    assert!(processes.contains("/pause"), "{processes}");
    let guests = processes.lines().filter(|line| line.contains("dapr-guest-host")).count();
    assert_eq!(guests, ENGINES.len(), "{processes}");
    // Their numbers are the pod's, and mean nothing on the node, or something else.
    for _ in 0..10 {
        output(&pod, share(hello("late", ENGINES[0], &["echo", "hi"])));
    }
    end(&node, pod);
}

#[test]
fn a_read_only_root_stays_as_it_is() {
    let node = node();
    let pod = node.run(node.pod("read-only")).expect("a pod");
    for &engine in ENGINES {
        let mut config = hello(engine, engine, &["write", "/file", "text"]);
        security(&mut config).readonly_rootfs = true;
        let write = pod.start(config).expect("a container");
        assert_eq!(write.exited().exit_code, 1, "{engine}");
        let log = write.log();
        let reason = "/file: Read-only file system";
        assert!(log.iter().any(|line| line.text.contains(reason)), "{engine}: {log:?}");
    }
    end(&node, pod);
}

#[test]
fn volumes_are_where_the_pod_wants_them_and_read_only_where_it_says_so() {
    let node = node();
    let pod = node.run(node.pod("volumes")).expect("a pod");
    let folder = node.containerd.folder().join("volume");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("greeting"), "good day\n").expect("a file");
    for &engine in ENGINES {
        let with_volumes = |words: &[&str]| {
            let mut config = hello("volumes", engine, words);
            security(&mut config).readonly_rootfs = true;
            config.mounts = vec![volume(&folder, "/data", false), volume(&folder, "/etc/config", true)];
            config
        };
        assert_eq!(output(&pod, with_volumes(&["cat", "/etc/config/greeting"])), "good day\n", "{engine}");
        output(&pod, with_volumes(&["write", "/data/new", engine]));
        assert_eq!(fs::read_to_string(folder.join("new")).expect("the guest's file"), engine);
        let refused = pod.start(with_volumes(&["write", "/etc/config/new", "other"])).expect("a container");
        assert_eq!(refused.exited().exit_code, 1, "{engine}");
        refused.remove().expect("the container is removed");
        assert_eq!(fs::read_to_string(folder.join("new")).expect("the guest's file"), engine);
    }
    end(&node, pod);
}

#[test]
fn a_component_without_a_secret_store_gets_the_secrets_that_the_pod_mounts() {
    let node = node();
    let image = "localhost/test/secrets:1";
    node.import(image, &Image::new(image).file("/state.wasm", guest("state")).file("/secrets.wasm", guest("secrets")));
    let pod = node.run(node.pod("secrets")).expect("a pod");
    let [data, secret, components] = ["data", "secret", "components"].map(|name| {
        let folder = node.containerd.folder().join(name);
        fs::create_dir(&folder).expect("a folder");
        folder
    });
    // As the kubelet does it.
    fs::create_dir(secret.join("..1")).expect("a folder");
    fs::write(secret.join("..1/path"), "/data/state.db").expect("a key");
    symlink("..1", secret.join("..data")).expect("a link");
    symlink("..data/path", secret.join("path")).expect("a link");
    let manifest = "kind: Component\nmetadata: {name: state}\nspec:\n  type: state.sqlite\n  metadata:\n  \
                    - {name: connectionString, secretKeyRef: {name: database, key: path}}\n";
    fs::write(components.join("state.yaml"), manifest).expect("a manifest");
    for &engine in ENGINES {
        let guest = |words: &[&str]| {
            let mut config = wasm("guest", engine, image, words);
            config.annotations.insert("dapr.wasm/components".to_owned(), "/components".to_owned());
            let mounted = volume(&secret, "/var/run/secrets/dapr.wasm/database", true);
            config.mounts = vec![volume(&data, "/data", false), volume(&components, "/components", true), mounted];
            output(&pod, config)
        };
        guest(&["/state.wasm", "set", "key", engine]);
        assert_eq!(guest(&["/state.wasm", "get", "key"]), format!("{engine}\n"));
        assert_eq!(guest(&["/secrets.wasm", "get", "kubernetes", "database"]), "path=/data/state.db\n", "{engine}");
    }
    assert!(data.join("state.db").exists());
    end(&node, pod);
}

#[test]
fn a_guest_is_the_user_that_the_pod_says() {
    let node = node();
    let pod = node.run(node.pod("user")).expect("a pod");
    let folder = node.containerd.folder().join("volume");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("permissions");
    for &engine in ENGINES {
        let mut config = hello("user", engine, &["write", &format!("/data/{engine}"), "text"]);
        security(&mut config).run_as_user = Some(Int64Value { value: 1234 });
        security(&mut config).run_as_group = Some(Int64Value { value: 5678 });
        config.mounts = vec![volume(&folder, "/data", false)];
        output(&pod, config);
        let file = fs::metadata(folder.join(engine)).expect("the guest's file");
        assert_eq!((file.uid(), file.gid()), (1234, 5678), "{engine}");
    }
    end(&node, pod);
}

#[test]
fn a_container_that_ends_is_run_again_in_the_same_pod() {
    let node = node();
    let pod = node.run(node.pod("restarts")).expect("a pod");
    for &engine in ENGINES {
        for attempt in 0..5 {
            let container = pod.start(hello(engine, engine, &["exit", &attempt.to_string()])).expect("a container");
            let status = container.exited();
            let reason = if attempt == 0 { "Completed" } else { "Error" };
            assert_eq!((status.exit_code, status.reason.as_str()), (attempt, reason), "{engine}");
            container.remove().expect("the container is removed");
        }
    }
    end(&node, pod);
}

fn pid(node: &Kubelet, container: &Container) -> i32 {
    let tasks = String::from_utf8(node.containerd.ctr(&["task", "ls"]).stdout).expect("text");
    let task = tasks.lines().find(|line| line.starts_with(&container.id)).expect("a task");
    task.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid")
}

/// What a container has written and nobody has read.
fn unread(node: &Kubelet, container: &Container) -> u64 {
    let io = node.containerd.folder().join("state/io.containerd.grpc.v1.cri/containers").join(&container.id).join("io");
    let folder = fs::read_dir(io).expect("its streams").next().expect("a folder").expect("an entry").path();
    let fifo =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(folder.join(format!("{}-stdout", container.id)));
    ioctl_fionread(fifo.expect("a FIFO")).expect("a number of bytes")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pods_go_on_while_containerd_is_away_and_no_line_nor_exit_code_of_theirs_is_lost() {
    let node = node();
    let pod = node.run(node.pod("survivor")).expect("a pod");
    let start = |config| pod.start(config).expect("a container");
    let daemons: Vec<_> = ENGINES.iter().map(|engine| start(hello(engine, engine, &["daemon"]))).collect();
    let spins: Vec<_> = ENGINES.iter().map(|engine| start(hello("ends", engine, &["spin"]))).collect();
    let spinning: Vec<i32> = spins.iter().map(|spin| pid(&node, spin)).collect();
    for daemon in &daemons {
        daemon.wait_for_line("running for 0 s");
    }

    node.containerd.stop();
    for pid in spinning {
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a guest host");
        wait_until("the guest ends", || !Path::new(&format!("/proc/{pid}")).exists());
    }
    for daemon in &daemons {
        wait_until("the guest goes on", || unread(&node, daemon) > 0);
    }
    node.containerd.start_again();

    wait_until("CRI answers", || daemons[0].status().is_ok());
    for daemon in &daemons {
        daemon.wait_for_line("running for 4 s");
        let lines: Vec<_> = daemon.log().into_iter().take(5).map(|line| line.text).collect();
        assert_eq!(lines, [0, 1, 2, 3, 4].map(|second| format!("running for {second} s")));
        daemon.stop(3600).expect("the container stops");
        assert_eq!(daemon.exited().exit_code, 143);
    }
    for spin in &spins {
        assert_eq!(spin.exited().exit_code, 143);
    }
    end(&node, pod);
}

#[test]
fn what_is_wrong_with_a_container_is_the_answer_to_its_start() {
    let node = node();
    let pod = node.run(node.pod("wrong")).expect("a pod");
    let cases = [
        (hello("engine", "quickjs", &[]), "unknown engine \"quickjs\""),
        (wasm("module", ENGINES[0], HELLO, &["/nowhere.wasm"]), "/nowhere.wasm"),
        (container("program", BUSYBOX, &["/nowhere"]), "/nowhere"),
    ];
    for (config, message) in cases {
        let container = pod.create(config).expect("a container");
        let error = container.start().expect_err("a start that fails");
        assert!(error.message().contains(message), "{error}");
        assert_eq!(container.status().expect("a status").state(), ContainerState::ContainerExited);
        container.remove().expect("the container is removed");
    }
    end(&node, pod);
}

#[test]
fn containerd_s_older_configuration_format_serves_as_well() {
    let node = node_of(Containerd::start_for_pods_with(&[&programs()], 2));
    let pod = node.run(node.pod("old")).expect("a pod");
    for &engine in ENGINES {
        assert_eq!(output(&pod, hello(engine, engine, &["echo", "hi"])), "hi\n");
    }
    end(&node, pod);
}

#[test]
fn pods_that_start_and_end_at_the_same_time_leave_nothing_behind() {
    start_and_remove_pods(2, 10);
}

#[test]
#[ignore = "takes minutes: `make test-500-pods` runs it"]
fn five_hundred_pods_leave_nothing_behind() {
    start_and_remove_pods(50, 10);
}

/// `rounds` times as many pods as `at_once`, each with a container that prints and one that has to be stopped.
fn start_and_remove_pods(rounds: usize, at_once: usize) {
    let node = node();
    for round in 0..rounds {
        thread::scope(|scope| {
            for number in 0..at_once {
                let (node, engine) = (&node, ENGINES[number % ENGINES.len()]);
                scope.spawn(move || {
                    let pod = node.run(node.pod(&format!("pod-{round}-{number}"))).expect("a pod");
                    assert_eq!(output(&pod, hello("echo", engine, &["echo", "hi"])), "hi\n");
                    pod.start(http("http", engine)).expect("a container");
                    pod.stop().expect("the pod stops");
                    pod.remove().expect("the pod is removed");
                });
            }
        });
    }
    assert_nothing_left(&node);
}
