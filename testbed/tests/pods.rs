//! Pods of a containerd of one's own, tried with runc: what it starts it also takes away.

use std::fs;

use images::Image;
use testbed::containerd::Containerd;
use testbed::pods::{Kubelet, container};

const BUSYBOX: &str = "localhost/testbed/busybox:1";

fn kubelet() -> Kubelet {
    let kubelet = Kubelet::start(Containerd::start_for_pods(&[]));
    let program = fs::read("/bin/busybox").expect("the Debian package busybox-static");
    kubelet.import(BUSYBOX, &Image::new(BUSYBOX).file("/bin/busybox", program));
    kubelet
}

#[test]
fn a_pod_has_an_address_runs_containers_and_leaves_nothing_behind() {
    let kubelet = kubelet();
    let pod = kubelet.run_with("runc", kubelet.pod("web")).expect("a pod");
    let echo = pod.start(container("echo", BUSYBOX, &["/bin/busybox", "echo", "hi"])).expect("a container");
    assert_eq!(echo.exited().exit_code, 0);
    let line = echo.wait_for_line("hi");
    assert_eq!((line.stream.as_str(), line.tag.as_str()), ("stdout", "F"));

    let address = pod.ip().expect("an address");
    let found = kubelet.containerd.present();
    let lease = format!("address {address}");
    for expected in ["/pause", "network interface veth", &lease, "mount /", "cgroup /sys/fs/cgroup", "folder /"] {
        assert!(found.iter().any(|item| item.contains(expected)), "no {expected} in {found:#?}");
    }
    pod.stop().expect("the pod stops");
    pod.remove().expect("the pod is removed");
    assert_eq!(kubelet.containerd.leftovers(), [""; 0]);
}

#[test]
fn a_server_in_a_pod_is_reached_from_the_network_of_the_node() {
    let kubelet = kubelet();
    let pod = kubelet.run_with("runc", kubelet.pod("web")).expect("a pod");
    let listen = ["/bin/busybox", "nc", "-l", "-p", "8080", "-e", "/bin/busybox", "echo", "hi"];
    let server = pod.start(container("server", BUSYBOX, &listen)).expect("a container");
    let address = pod.ip().expect("an address").to_string();
    let network = kubelet.containerd.network();
    // It accepts one connection, and may not listen yet.
    let answer = (0..1000).find_map(|_| {
        let answer = network.command("/bin/busybox").args(["nc", &address, "8080"]).output().expect("busybox");
        answer.status.success().then_some(answer.stdout)
    });
    assert_eq!(answer.as_deref(), Some(&b"hi\n"[..]));
    assert_eq!(server.exited().exit_code, 0);
}
