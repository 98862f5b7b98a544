//! What a user has: `kubectl` and a namespace.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use testbed::kubernetes::Cluster;

use crate::images::{GUESTS, busybox, greedy};
use crate::support::programs;
use crate::support::terminal::Terminal;

/// How long anything may take on a machine that has other work. Nothing is decided by it but when to give up.
pub(crate) const PATIENCE: &str = "180s";

const RUNTIME_CLASS: &str = include_str!("../../../deploy/runtime-class.yaml");

/// A namespace of a test, in a cluster that all tests share while they run: it takes a while to start.
///
/// Dropped, it is deleted; when the test has failed, what `kubectl` knows about its pods is shown first.
pub(crate) struct Namespace {
    pub(crate) cluster: Arc<Cluster>,
    name: &'static str,
}

impl Namespace {
    pub(crate) fn create(name: &'static str) -> Self {
        let namespace = Self { cluster: shared_cluster(), name };
        namespace.kubectl(&["create", "namespace", name]);
        // Before it has a token, pods are refused.
        namespace.wait_for("serviceaccounts", "{.metadata.name} {.secrets[*].name}", |account| {
            account.starts_with("default default-token-")
        });
        namespace
    }

    /// Runs `kubectl` in this namespace.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.cluster.kubectl(&self.words(arguments), "")
    }

    /// The same; it must succeed, and this is what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(arguments, self.try_kubectl(arguments))
    }

    /// The same at a terminal.
    pub(crate) fn kubectl_at_a_terminal(&self, arguments: &[&str]) -> Terminal {
        let kubectl = self.cluster.kubectl_command(&self.words(arguments));
        self.cluster.within(|_| Terminal::start(&kubectl))
    }

    fn spawn_kubectl(&self, arguments: &[&str]) -> Child {
        self.cluster.spawn_kubectl(&self.words(arguments))
    }

    /// `kubectl apply` of a manifest.
    pub(crate) fn apply(&self, manifest: &str) {
        let arguments = ["apply", "--filename=-"];
        succeeded(&arguments, self.cluster.kubectl(&self.words(&arguments), manifest));
    }

    /// Applies a pod of the runtime class `dapr`. `spec` are entries of a YAML mapping in braces, without them.
    pub(crate) fn pod(&self, name: &str, spec: &str) {
        self.annotated_pod(name, "", spec);
    }

    pub(crate) fn annotated_pod(&self, name: &str, annotations: &str, spec: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{{annotations}}}}}\n\
             spec: {{runtimeClassName: dapr, terminationGracePeriodSeconds: 5, {spec}}}\n"
        ));
    }

    /// Runs a pod with one container to its end, and answers what it printed.
    pub(crate) fn run_to_the_end(&self, name: &str, spec: &str) -> String {
        self.pod(name, &format!("restartPolicy: Never, {spec}"));
        self.wait_for(&format!("pod/{name}"), "{.status.phase}", |phase| ["Succeeded", "Failed"].contains(&phase));
        self.logs(name)
    }

    /// What the containers of a pod have written so far.
    pub(crate) fn logs(&self, pod: &str) -> String {
        self.kubectl(&["logs", pod, "--all-containers"])
    }

    /// The lines of a container, until it ends, as they come.
    pub(crate) fn follow(&self, pod: &str, container: &str) -> Lines {
        let timeout = format!("--request-timeout={PATIENCE}");
        Lines::of(self.spawn_kubectl(&["logs", "--follow", pod, "--container", container, &timeout]))
    }

    /// A field of an object, or several: `path` is one of kubectl's templates.
    pub(crate) fn get(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, &format!("--output=jsonpath={path}")])
    }

    /// Watches an object, or all of a kind, until the fields are as they should.
    pub(crate) fn wait_for(&self, object: &str, path: &str, is_right: impl Fn(&str) -> bool) {
        let template = format!("--output=jsonpath={path}{{'\\n'}}");
        let arguments = ["get", object, "--watch", &template, &format!("--request-timeout={PATIENCE}")];
        let mut seen = Vec::new();
        for line in Lines::of(self.spawn_kubectl(&arguments)) {
            let found = is_right(&line);
            seen.push(line);
            if found {
                return;
            }
        }
        panic!("kubectl {arguments:?} showed {seen:?}");
    }

    pub(crate) fn wait_until_ready(&self, pod: &str) {
        let pod = format!("pod/{pod}");
        self.kubectl(&["wait", "--for=condition=Ready", &pod, &format!("--timeout={PATIENCE}")]);
    }

    /// `curl` on the node.
    pub(crate) fn curl(&self, url: &str) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", url]);
        let output = self.cluster.within(|_| curl.output()).expect("curl");
        succeeded(&[url], output)
    }

    /// The pod's address.
    pub(crate) fn address(&self, pod: &str) -> String {
        self.get(&format!("pod/{pod}"), "{.status.podIP}")
    }

    fn words<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--namespace", self.name], arguments].concat()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            let pods = self.try_kubectl(&["describe", "pods"]);
            eprintln!("{}", String::from_utf8_lossy(&pods.stdout));
        }
        self.try_kubectl(&["delete", "namespace", self.name, "--wait=false"]);
    }
}

/// What a `kubectl` that goes on for a while prints, line by line. It ends with this value.
pub(crate) struct Lines {
    kubectl: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Lines {
    fn of(mut kubectl: Child) -> Self {
        let lines = BufReader::new(kubectl.stdout.take().expect("a pipe")).lines();
        Self { kubectl, lines }
    }

    /// Whether it ended well, once it has ended.
    pub(crate) fn ended_well(mut self) -> bool {
        assert_eq!(self.next(), None);
        self.kubectl.wait().expect("its end").success()
    }
}

impl Iterator for Lines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.expect("text"))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn succeeded(arguments: &[&str], output: Output) -> String {
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{arguments:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// The cluster of the tests that run at the moment; it goes with the last of them.
fn shared_cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(start_cluster());
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

fn start_cluster() -> Cluster {
    let target = programs().join("..");
    let kubernetes = target.join("kubernetes");
    assert!(kubernetes.exists(), "no {}; scripts/build-kubernetes.sh makes it", kubernetes.display());
    let cluster = Cluster::start(&kubernetes, &[&programs()]);
    for guest in GUESTS {
        cluster.import(&target.join(format!("images/{guest}.tar")));
    }
    for image in [busybox(), greedy()] {
        let archive = tempfile::NamedTempFile::new().expect("a temporary file");
        image.write_archive(fs::File::create(archive.path()).expect("an archive")).expect("an image");
        cluster.import(archive.path());
    }
    for (arguments, input) in
        [(&["label", "nodes", "--all", "dapr.wasm/runtime=ready"][..], ""), (&["apply", "--filename=-"], RUNTIME_CLASS)]
    {
        succeeded(arguments, cluster.kubectl(arguments, input));
    }
    cluster
}
