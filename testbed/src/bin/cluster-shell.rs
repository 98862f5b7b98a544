//! `cluster-shell KUBERNETES_PROGRAMS SHIMS IMAGE..`: starts a Kubernetes cluster of one node with this runtime on it,
//! imports images, opens a shell on the node, and takes everything away when that one is left.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use testbed::kubernetes::Cluster;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [programs, shims, images @ ..] = &paths[..] else {
        eprintln!("usage: cluster-shell KUBERNETES_PROGRAMS SHIMS IMAGE..");
        return ExitCode::from(2);
    };
    // What ends the shell, a closed terminal for one, must not end this process before it has cleaned up.
    let runtime = runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _guard = runtime.enter();
    let _signals = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()].map(signal);

    eprintln!("Starting a cluster of one node (half a minute) ...");
    let cluster = Cluster::start(programs, &[shims]);
    for image in images {
        eprintln!("Importing {} ...", image.display());
        cluster.import(image);
    }
    let labelled = cluster.kubectl(&["label", "nodes", "--all", "dapr.wasm/runtime=ready"], "");
    assert!(labelled.status.success(), "{}", String::from_utf8_lossy(&labelled.stderr));
    eprintln!("This shell is on the node: try `kubectl get nodes`. Leaving it ends the cluster.");
    let status = cluster.within(|_| shell(&cluster, programs).status());
    eprintln!("Ending the cluster ...");
    drop(cluster);
    match status {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("cannot start a shell: {error}");
            ExitCode::FAILURE
        }
    }
}

fn shell(cluster: &Cluster, programs: &Path) -> Command {
    let mut path = OsString::from(programs);
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.env("PATH", path).env("KUBECONFIG", cluster.kubeconfig());
    shell
}
