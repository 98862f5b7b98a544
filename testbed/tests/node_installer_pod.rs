//! `deploy/installer/run.sh`, the pod of the node installer, in a root folder of its own: what it asks of its node and
//! of the API server, for which scripts stand that write down what they are asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use testbed::containerd::PATIENCE;

const TOKEN: &str = "a-token-that-nobody-may-see";
const INSTALL: &str = "install --root /host --nsenter --from /payload --config /config/config.yaml";
const UNINSTALL: &str = "uninstall --root /host --nsenter";
const NODE: &str = "https://10.96.0.1:443/api/v1/nodes/the-node";
const DAEMON_SET: &str = "https://10.96.0.1:443/apis/apps/v1/namespaces/dapr-wasm/daemonsets/node-installer";

/// Answers what lies in the file of its method, and writes down method, body and address, and what is on its command line
/// besides.
const CURL: &str = r#"#!/bin/bash
config=$(cat)
[[ $config == *"Bearer a-token-that-nobody-may-see"* ]] || exit 2
method='' body='' previous=''
for argument; do
  [ "$previous" != --request ] || method=$argument
  [ "$previous" != --data ] || body=$argument
  previous=$argument
done
echo "$method $argument${body:+ $body}" >>/asked
echo "$@" >>/command-lines
cat "/$method"
"#;

/// A pod of the installer.
struct InstallerPod {
    root: TempDir,
    process: Child,
}

impl InstallerPod {
    /// With the answer of the API server to a label, and that to the question after the DaemonSet.
    fn start(label: &str, daemon_set: &str) -> Self {
        let root = TempDir::new().expect("temporary folder");
        let path = |path: &str| root.path().join(path);
        for folder in ["dev", "host/run", "tmp", "usr", "stubs", "var/run/secrets/kubernetes.io/serviceaccount"] {
            fs::create_dir_all(path(folder)).expect("folder");
        }
        for folder in ["bin", "lib", "lib64"] {
            symlink(Path::new("usr").join(folder), path(folder)).expect("link");
        }
        fs::write(path("var/run/secrets/kubernetes.io/serviceaccount/token"), TOKEN).expect("token");
        fs::write(path("dev/null"), "").expect("a place for a device");
        fs::write(path("PATCH"), label).expect("answer");
        fs::write(path("GET"), daemon_set).expect("answer");
        executable(&path("stubs/curl"), CURL);
        executable(&path("install-on-node.sh"), "#!/bin/bash\necho \"$@\" >>/asked\n");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/installer/run.sh");
        fs::copy(script, path("run.sh")).expect("script");
        let in_its_root = r#"
            mount --rbind --make-rslave /usr "$1/usr" && mount --bind "$1/stubs" "$1/usr/local/sbin" &&
            mount --bind /dev/null "$1/dev/null" && exec chroot "$1" /run.sh"#;
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-c", in_its_root, "sh"])
            .arg(root.path())
            .envs([("NODE_NAME", "the-node"), ("NAMESPACE", "dapr-wasm"), ("DAEMON_SET", "node-installer")])
            .envs([("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")])
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("errors")).expect("file"))
            .spawn()
            .expect("unshare");
        Self { root, process }
    }

    fn started(label: &str, daemon_set: &str) -> Self {
        let mut pod = Self::start(label, daemon_set);
        pod.wait_until("it is ready", |pod| pod.path("tmp/ready").exists());
        pod
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// What it asked for so far.
    fn asked(&self) -> Vec<String> {
        self.read("asked").lines().map(str::to_owned).collect()
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.process.try_wait().expect("its state");
            assert!(ended.is_none() && Instant::now() < deadline, "{what}: {ended:?} {}", self.read("errors"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Ends it as a kubelet does.
    fn end(&mut self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).expect("it runs");
        self.process.wait().expect("its end")
    }
}

impl Drop for InstallerPod {
    fn drop(&mut self) {
        // With the program that it waits for.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

fn executable(path: &Path, content: &str) {
    fs::write(path, content).expect("program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
}

fn label(value: &str) -> String {
    format!(r#"PATCH {NODE} {{"metadata": {{"labels": {{"dapr.wasm/runtime": {value}}}}}}}"#)
}

#[test]
fn a_node_is_labelled_once_the_runtime_is_installed() {
    let pod = InstallerPod::started("{}\n200", "");
    assert_eq!(pod.asked(), [INSTALL.to_owned(), label("\"ready\"")]);
    assert!(!pod.read("command-lines").contains(TOKEN));
}

#[test]
fn a_node_that_cannot_be_labelled_is_not_ready() {
    let mut pod = InstallerPod::start("{\"message\": \"nodes is forbidden\"}\n403", "");
    let ended = pod.process.wait().expect("its end");
    assert!(!ended.success() && !pod.path("tmp/ready").exists());
    assert!(pod.read("errors").contains("cannot label the node") && pod.read("errors").contains("nodes is forbidden"));
}

#[test]
fn the_end_of_a_removed_daemon_set_takes_the_label_and_then_the_runtime_from_the_node() {
    for daemon_set in [
        "{\"metadata\": {\"deletionTimestamp\": \"2026-01-31T12:00:00Z\"}}\n200",
        "{\"reason\": \"NotFound\"}\n404",
        // The account went first.
        "{\"reason\": \"Unauthorized\"}\n401",
        "{\"reason\": \"Forbidden\"}\n403",
    ] {
        let mut pod = InstallerPod::started("{}\n200", daemon_set);
        assert!(pod.end().success(), "{daemon_set}");
        let asked = [format!("GET {DAEMON_SET}"), label("null"), UNINSTALL.to_owned()];
        assert_eq!(pod.asked()[2..], asked, "{daemon_set}");
    }
}

#[test]
fn the_end_of_the_pod_alone_leaves_the_node_as_it_is() {
    for daemon_set in ["{\"metadata\": {}}\n200", "{\"reason\": \"InternalError\"}\n500"] {
        let mut pod = InstallerPod::started("{}\n200", daemon_set);
        assert!(pod.end().success(), "{daemon_set}");
        assert_eq!(pod.asked()[2..], [format!("GET {DAEMON_SET}")], "{daemon_set}");
    }
}

/// Its token is not valid any more, as that of a pod that was deleted by force.
#[test]
fn a_pod_that_another_has_followed_leaves_the_node_to_it() {
    let mut pod = InstallerPod::started("{}\n200", "{\"reason\": \"Unauthorized\"}\n401");
    fs::write(pod.path("host/run/dapr-wasm.installer"), "node-installer-follower\n").expect("its name");
    assert!(pod.end().success());
    assert_eq!(pod.asked()[2..], [format!("GET {DAEMON_SET}")]);
}
