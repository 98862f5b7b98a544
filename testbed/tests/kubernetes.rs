//! The cluster of the tests, itself.

use std::fs;
use std::path::Path;

use testbed::kubernetes::Cluster;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec:
  containers: [{name: pause, image: 'localhost/testbed/pause:1', imagePullPolicy: Never}]
";

#[test]
#[ignore = "needs Kubernetes; make test-kubernetes runs it"]
fn a_cluster_runs_pods_and_leaves_nothing_behind() {
    let cluster = Cluster::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("../kubernetes"), &[]);
    // Before the namespace has its service account, pods are refused.
    let applied = (0..1000).any(|_| cluster.kubectl(&["apply", "--filename=-"], POD).status.success());
    assert!(applied);
    let ready = cluster.kubectl(&["wait", "--for=condition=Ready", "pod/pod", "--timeout=180s"], "");
    assert!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));

    let (folder, cgroup) =
        cluster.within(|containerd| (containerd.folder().to_owned(), containerd.cgroup().to_owned()));
    assert!(has_processes(&cgroup));
    drop(cluster);
    assert!(!has_processes(&cgroup));
    assert!(!folder.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups");
    assert!(hierarchies.flatten().all(|hierarchy| !hierarchy.path().join(&cgroup).exists()));
}

/// Whether anything runs in a cgroup of this name.
fn has_processes(cgroup: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let cgroups = processes.flat_map(|process| fs::read_to_string(process.path().join("cgroup")));
    cgroups.into_iter().any(|cgroups| cgroups.contains(&format!("/{cgroup}/")))
}
