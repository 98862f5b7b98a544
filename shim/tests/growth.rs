//! What a container takes does not grow with what it has done.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim::api::{ConnectRequest, DeleteRequest, WaitRequest};
use images::Image;
use support::task_client::context;
use support::{ENGINES, Node, busybox, engine, free_port, guest};
use testbed::containerd::PATIENCE;

const HTTP: &str = "localhost/test/http:1";
const TOOLS: &str = "localhost/test/tools:1";

const CLIENTS: usize = 8;
/// After which a client closes its connection and opens another.
const REQUESTS_OF_A_CONNECTION: usize = 50;

/// What a process has of the machine.
#[derive(Debug)]
struct Usage {
    descriptors: usize,
    threads: usize,
    /// Bytes that are no file's: what a leak would add to.
    memory: usize,
}

impl Usage {
    fn of(pid: i32) -> Self {
        let count = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).expect("a process").count();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("its memory");
        let kibibytes: usize = anonymous.trim_end_matches(" kB").trim().parse().expect("a number");
        Self { descriptors: count("fd"), threads: count("task"), memory: kibibytes << 10 }
    }

    /// That of a process that has what it has for good: connections that were closed, and threads without work, go a
    /// moment later.
    fn once_at_most(pid: i32, descriptors: usize, threads: usize) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let usage = Self::of(pid);
            if usage.descriptors <= descriptors && usage.threads <= threads {
                return usage;
            }
            assert!(Instant::now() < deadline, "more than {descriptors} descriptors, {threads} threads: {usage:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Sends requests, some at a time, and expects the guest's greeting each time.
fn request(port: u16, count: usize) {
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..count / CLIENTS / REQUESTS_OF_A_CONNECTION {
                    let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("a server"));
                    (0..REQUESTS_OF_A_CONNECTION).for_each(|_| request_once(&mut connection));
                }
            });
        }
    });
}

fn request_once(connection: &mut BufReader<TcpStream>) {
    const GREETING: &str = "Hello from WASM!";

    connection.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("a server");
    let mut line = String::new();
    connection.read_line(&mut line).expect("an answer");
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    while line != "\r\n" {
        line.clear();
        connection.read_line(&mut line).expect("an answer");
    }
    let mut body = [0; GREETING.len()];
    connection.read_exact(&mut body).expect("an answer");
    assert_eq!(body, GREETING.as_bytes());
}

#[test]
#[ignore = "takes a minute: `make test-growth` runs it"]
fn a_hundred_thousand_requests_leave_nothing_in_the_guest_host() {
    // Not even twenty bytes of each.
    const ALLOWED: usize = 2_000_000;

    let node = Node::start();
    let image = Image::new(HTTP).file("/http.wasm", guest("http")).file("/config.yaml", "trigger: http\n");
    node.import(&image.entrypoint(["/http.wasm"]));
    for name in ENGINES {
        let port = free_port();
        let port_option = format!("--annotation=dapr.wasm/port={port}");
        node.start_detached(&["--net-host", &engine(name), &port_option], HTTP, name, &[]);
        let pid = node.pid(name);
        // The first guest leaves what all others share, such as its root and the kernel's map of the memory.
        request_once(&mut BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("a server")));
        let idle = Usage::of(pid);
        request(port, 10_000);
        let warm = Usage::once_at_most(pid, idle.descriptors, usize::MAX);
        request(port, 100_000);
        let done = Usage::once_at_most(pid, warm.descriptors, warm.threads);
        assert!(done.memory < warm.memory + ALLOWED, "{name}: from {warm:?} to {done:?}");
        node.end(name, "SIGKILL");
    }
}

#[test]
#[ignore = "takes a minute: `make test-growth` runs it"]
fn a_thousand_execs_leave_nothing_in_the_shim_and_the_guest_host() {
    // Not even 150 bytes of each.
    const ALLOWED: usize = 128 << 10;

    let node = Node::start();
    let image = Image::new(TOOLS).file("/hello.wasm", guest("hello")).file("/bin/busybox", busybox());
    node.import(&image.entrypoint(["/hello.wasm"]));
    node.start_detached(&[], TOOLS, "guest", &["/hello.wasm", "daemon"]);
    let client = node.task_client("guest");
    let id = || "guest".to_owned();
    let exec = |number: usize| {
        let program: &[&str] = if number.is_multiple_of(2) { &["/hello.wasm"] } else { &["/bin/busybox", "true"] };
        let exec_id = number.to_string();
        node.add_exec("guest", &exec_id, program).expect("a process to start");
        node.start_exec("guest", &exec_id).expect("a running process");
        let wait = WaitRequest { id: id(), exec_id: exec_id.clone(), ..WaitRequest::default() };
        assert_eq!(client.wait(context(), &wait).expect("its end").exit_status, 0);
        client
            .delete(context(), &DeleteRequest { id: id(), exec_id, ..DeleteRequest::default() })
            .expect("its removal");
    };
    let connected = client.connect(context(), &ConnectRequest { id: id(), ..ConnectRequest::default() });
    let connected = connected.expect("the pids of the shim and the guest host");
    let processes = [connected.shim_pid, connected.task_pid].map(u32::cast_signed);

    (0..100).for_each(exec);
    let warm = processes.map(Usage::of);
    (100..1100).for_each(exec);
    for (pid, warm) in processes.into_iter().zip(warm) {
        let done = Usage::once_at_most(pid, warm.descriptors, warm.threads);
        assert!(done.memory < warm.memory + ALLOWED, "from {warm:?} to {done:?}");
    }
    node.end("guest", "SIGKILL");
    node.assert_nothing_left();
}
