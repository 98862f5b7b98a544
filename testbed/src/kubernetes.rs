//! A Kubernetes cluster of one node.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::containerd::Containerd;
use crate::mounts::Mounts;

/// The address of the node in its pods' network.
pub const NODE_ADDRESS: &str = "10.87.0.1";
const NODE: &str = "node";
const SERVICE_NETWORK: &str = "10.96.0.0/16";
const ETCD: &str = "http://127.0.0.1:2379";
const API_SERVER: &str = "https://127.0.0.1:6443";
const CGROUPS: &str = "/sys/fs/cgroup";
/// A kubelet and CNI write below these whatever they are told, and a kubelet removes from there what it does not know:
/// the sockets and logs of another one, where this machine is a node already.
const FOLDERS_OF_THE_NODE: [&str; 3] = ["/run", "/var/lib", "/var/log"];
/// Until the node is ready, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(180);

/// A control plane, a kubelet, kube-proxy and containerd, with a network, mounts and files of their own. Whoever
/// reaches it is its administrator.
///
/// Dropped, it takes its pods and all of their remains with it.
pub struct Cluster {
    /// In the order of their start.
    daemons: Vec<Daemon>,
    containerd: Option<Containerd>,
    mounts: Mounts,
    programs: PathBuf,
    folder: TempDir,
}

struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Cluster {
    /// Starts everything and waits until the node is ready. `programs` holds those of Kubernetes, as
    /// `scripts/build-kubernetes.sh` makes them; `shims` are folders to look in for shims.
    ///
    /// # Panics
    ///
    /// Without root or one of the programs, and when the node is not ready after three minutes; logs are shown.
    pub fn start(programs: &Path, shims: &[&Path]) -> Self {
        let folder = tempfile::Builder::new().prefix("kubernetes-").tempdir().expect("a temporary folder");
        let mounts = Mounts::unshare().expect("mounts of its own, which take root");
        for (diverted, layer) in FOLDERS_OF_THE_NODE.iter().zip(["run", "lib", "log"]) {
            let layer = folder.path().join(layer);
            let made = fs::create_dir(&layer).and_then(|()| mounts.divert_writes(Path::new(diverted), &layer));
            made.unwrap_or_else(|error| panic!("cannot divert what is written below {diverted}: {error}"));
        }
        let containerd = mounts.within(|| Containerd::start_for_pods(shims));
        let programs = programs.to_owned();
        let mut cluster = Self { daemons: Vec::new(), containerd: Some(containerd), mounts, programs, folder };
        cluster.prepare_node();
        cluster.write_configuration();
        cluster.start_control_plane();
        cluster.wait_for(&["get", "--raw=/readyz"]);
        cluster.start_node();
        cluster.wait_for(&["wait", "--for=condition=Ready", &format!("node/{NODE}")]);
        cluster
    }

    /// Does something on the node: its files, mounts and network are not quite those of this machine.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce(&Containerd) -> T + Send) -> T {
        let containerd = self.containerd.as_ref().expect("it goes with the cluster");
        self.mounts.within(|| containerd.network().within(|| work(containerd)))
    }

    /// Imports an OCI archive.
    ///
    /// # Panics
    ///
    /// With `ctr`'s message when it is refused.
    pub fn import(&self, archive: &Path) {
        self.within(|containerd| containerd.import(archive));
    }

    /// `kubectl` with these arguments, which is to be started on the node.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = Command::new(self.programs.join("kubectl"));
        kubectl.arg("--kubeconfig").arg(self.kubeconfig()).arg("--cache-dir").arg(self.path("kubectl"));
        kubectl.args(arguments);
        kubectl
    }

    /// Starts `kubectl` with these arguments; its output can be read as it comes.
    pub fn spawn_kubectl(&self, arguments: &[&str]) -> Child {
        let mut kubectl = self.kubectl_command(arguments);
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.within(|_| kubectl.spawn()).expect("kubectl")
    }

    /// Runs `kubectl` to its end, with `input` on its standard input.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut kubectl = self.spawn_kubectl(arguments);
        // One that ends without reading it all has said why.
        let _ = kubectl.stdin.take().expect("a pipe").write_all(input.as_bytes());
        kubectl.wait_with_output().expect("its output")
    }

    /// The file that tells `kubectl` of the cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a kubelet does not make itself.
    fn prepare_node(&self) {
        self.within(|containerd| {
            let address = format!("{NODE_ADDRESS}/32");
            ip(&["address", "add", &address, "dev", "lo"]);
            // Who has no route at all never gets as far as kube-proxy's rules.
            ip(&["route", "add", SERVICE_NETWORK, "dev", "lo", "src", NODE_ADDRESS]);
            for cgroup in cgroups(containerd.cgroup()) {
                fs::create_dir(cgroup).expect("a cgroup");
            }
        });
    }

    fn write_configuration(&self) {
        let cgroup = self.within(|containerd| containerd.cgroup().to_owned());
        let write = |name: &str, text: String| fs::write(self.path(name), text).expect("a configuration");
        write("tokens", "administrator,administrator,administrator,system:masters\n".to_owned());
        write("kubeconfig", kubeconfig());
        write("kubelet.yaml", kubelet_configuration(&cgroup));
        let key = Command::new("openssl").args(["genrsa", "-out"]).arg(self.path("accounts.key")).output();
        assert!(key.expect("openssl, from the Debian package of this name").status.success(), "no key");
    }

    fn start_control_plane(&mut self) {
        let folder = self.folder.path().display().to_string();
        let kubeconfig = format!("--kubeconfig={folder}/kubeconfig");
        let cert_dir = format!("--cert-dir={folder}/certificates");
        let key = format!("{folder}/accounts.key");
        self.daemon(
            "etcd",
            Command::new("etcd").args([
                &format!("--data-dir={folder}/etcd"),
                &format!("--listen-client-urls={ETCD}"),
                &format!("--advertise-client-urls={ETCD}"),
                "--listen-peer-urls=http://127.0.0.1:2380",
            ]),
        );
        self.kubernetes(
            "kube-apiserver",
            &[
                &format!("--etcd-servers={ETCD}"),
                "--secure-port=6443",
                &format!("--advertise-address={NODE_ADDRESS}"),
                &cert_dir,
                &format!("--token-auth-file={folder}/tokens"),
                "--authorization-mode=AlwaysAllow",
                "--allow-privileged",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={key}"),
                &format!("--service-account-signing-key-file={key}"),
                &format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
                "--kubelet-preferred-address-types=InternalIP",
            ],
        );
        self.kubernetes(
            "kube-controller-manager",
            &[&kubeconfig, &cert_dir, "--leader-elect=false", &format!("--service-account-private-key-file={key}")],
        );
        self.kubernetes("kube-scheduler", &[&kubeconfig, &cert_dir, "--leader-elect=false"]);
    }

    fn start_node(&mut self) {
        let folder = self.folder.path().display().to_string();
        let kubeconfig = format!("--kubeconfig={folder}/kubeconfig");
        let socket = self.within(|containerd| format!("unix://{}", containerd.address().display()));
        self.kubernetes(
            "kubelet",
            &[
                &kubeconfig,
                &format!("--config={folder}/kubelet.yaml"),
                &format!("--root-dir={folder}/kubelet"),
                &format!("--cert-dir={folder}/certificates"),
                &format!("--hostname-override={NODE}"),
                &format!("--node-ip={NODE_ADDRESS}"),
                "--container-runtime=remote",
                &format!("--container-runtime-endpoint={socket}"),
                &format!("--image-service-endpoint={socket}"),
                "--runtime-cgroups=/",
            ],
        );
        self.kubernetes(
            "kube-proxy",
            &[
                &kubeconfig,
                &format!("--hostname-override={NODE}"),
                "--proxy-mode=iptables",
                // A pod that a service brings to its neighbour must get the answer the same way, not over the bridge.
                "--masquerade-all",
                // These are the machine's to set.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ],
        );
    }

    fn kubernetes(&mut self, name: &str, arguments: &[&str]) {
        let program = self.programs.join(name);
        self.daemon(name, Command::new(program).args(arguments));
    }

    fn daemon(&mut self, name: &str, command: &mut Command) {
        let log = self.path(&format!("{name}.log"));
        let output = File::create(&log).expect("a log");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a descriptor")).stderr(output);
        let process = self.within(|_| command.spawn());
        let process = process.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        self.daemons.push(Daemon { process, log });
    }

    /// Until `kubectl` succeeds.
    fn wait_for(&mut self, arguments: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let kubectl = self.kubectl(arguments, "");
            if kubectl.status.success() {
                return;
            }
            let ended = self.daemons.iter_mut().find_map(|daemon| {
                let status = daemon.process.try_wait().expect("the state of a child")?;
                Some(format!("{}: {status}", daemon.log.display()))
            });
            if ended.is_some() || Instant::now() > deadline {
                let logs: String = self.daemons.iter().map(Daemon::end_of_log).collect();
                panic!("{logs}\n{ended:?}\n{}", String::from_utf8_lossy(&kubectl.stderr));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    /// The kubelet before the pods, which it would start again.
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            // One that has ended cannot be killed.
            let _ = daemon.process.kill();
            let _ = daemon.process.wait();
        }
        let containerd = self.containerd.take();
        self.mounts.within(|| drop(containerd));
    }
}

impl Daemon {
    fn end_of_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        format!("\n{}\n{}", self.log.display(), lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("ip, from the Debian package iproute2");
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The paths of a cgroup, one in each hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(name)];
    }
    let hierarchies = fs::read_dir(root).expect("cgroups").map(|entry| entry.expect("a hierarchy").path());
    hierarchies.filter(|path| path.is_dir() && !path.is_symlink()).map(|path| path.join(name)).collect()
}

fn kubeconfig() -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: {{server: '{API_SERVER}', insecure-skip-tls-verify: true}}
users:
- name: administrator
  user: {{token: administrator}}
contexts:
- name: administrator
  context: {{cluster: cluster, user: administrator}}
current-context: administrator
"
    )
}

/// A node without reserves: its limits are those of the pods, and the machine's other work does not evict them.
fn kubelet_configuration(cgroup: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {NODE_ADDRESS}
authentication:
  anonymous: {{enabled: true}}
  webhook: {{enabled: false}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
clusterDNS: [{NODE_ADDRESS}]
clusterDomain: cluster.local
enforceNodeAllocatable: []
evictionHard: {{}}
failSwapOn: false
imageGCHighThresholdPercent: 100
oomScoreAdj: 0
syncFrequency: 1s
"
    )
}
