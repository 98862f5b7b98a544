//! What containerd is told.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::pause::PAUSE_IMAGE;

/// The plugins for pods, by the names of containerd 1 and 2.
const CRI_PLUGINS: [&str; 3] =
    ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];

/// Nobody needs these. They look for devices, open sockets of their own, or write outside the folder.
const USELESS_PLUGINS: [&str; 9] = [
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
];

/// Shims log what containerd logs.
const DEBUG_LOG: &str = r#"
[debug]
level = "debug"
"#;

/// Where Debian's containernetworking-plugins are.
const CNI_PLUGINS: &str = "/usr/lib/cni";
/// The folder of a file for each address that a pod has.
pub(super) const LEASES: &str = "leases/pods";

pub(super) fn for_ctr(folder: &Path) -> String {
    as_installed(folder) + DEBUG_LOG
}

/// Logs as a containerd does that nobody asked for more.
pub(super) fn as_installed(folder: &Path) -> String {
    daemon(folder, 2, &[&CRI_PLUGINS[..], &USELESS_PLUGINS].concat())
}

pub(super) fn for_pods(folder: &Path, format: u32) -> String {
    let pods = if format == 2 { pods_in_format_2(folder) } else { pods_in_format_3(folder) };
    daemon(folder, format, &USELESS_PLUGINS) + DEBUG_LOG + &pods
}

/// The newest format that a containerd of this search path reads.
///
/// # Panics
///
/// Without a containerd.
pub(super) fn newest_format(path: &OsStr) -> u32 {
    let output = Command::new("containerd").args(["config", "default"]).env("PATH", path).output();
    let text = String::from_utf8(output.expect("containerd, from the Debian package of this name").stdout);
    let text = text.expect("a configuration is text");
    if text.lines().any(|line| line == "version = 3") { 3 } else { 2 }
}

fn daemon(folder: &Path, format: u32, disabled_plugins: &[&str]) -> String {
    let folder = folder.display();
    format!(
        r#"version = {format}
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = {disabled_plugins:?}

[grpc]
address = "{folder}/containerd.sock"

[ttrpc]
address = "{folder}/containerd.sock.ttrpc"
"#
    )
}

/// A process that may not raise its own OOM score cannot give a pod's the one that Kubernetes wants.
fn pods_in_format_2(folder: &Path) -> String {
    let plugin = r#"plugins."io.containerd.grpc.v1.cri""#;
    let runtimes = runtimes(plugin, folder);
    let folder = folder.display();
    format!(
        r#"
[{plugin}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[{plugin}.cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{folder}/cni"

{runtimes}"#
    )
}

fn pods_in_format_3(folder: &Path) -> String {
    let plugin = r#"plugins."io.containerd.cri.v1.runtime""#;
    let runtimes = runtimes(plugin, folder);
    let folder = folder.display();
    format!(
        r#"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[{plugin}]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cdi_spec_dirs = []

[{plugin}.cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{folder}/cni"

{runtimes}"#
    )
}

fn runtimes(plugin: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"[{plugin}.containerd]
default_runtime_name = "runc"

[{plugin}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{plugin}.containerd.runtimes.runc.options]
Root = "{folder}/runc"

[{plugin}.containerd.runtimes.dapr]
runtime_type = "io.containerd.dapr.v1"
pod_annotations = ["dapr.wasm/*", "dapr.io/*"]
container_annotations = ["dapr.wasm/*", "dapr.io/*"]
"#
    )
}

/// A bridge for the pods, in the network that containerd runs in.
pub(super) fn write_cni(folder: &Path) -> io::Result<()> {
    let leases = folder.join("leases");
    let network = format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{{
    "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
    "ipam": {{
      "type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.88.0.0/16"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]
    }}
  }}]
}}
"#,
        leases.display()
    );
    fs::create_dir(folder.join("cni"))?;
    fs::write(folder.join("cni/pods.conflist"), network)
}
