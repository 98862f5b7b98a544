//! `dapr-wasm cache warm`: mounts an image as its containers will have it, by containerd's own client, and has the
//! node's guest host do the rest, which knows the engines.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::Warm;
use crate::operator_config::OperatorConfig;
use crate::protocol::{RootfsMount, WarmImage};

pub(super) fn warm(arguments: &Warm, operator: OperatorConfig) -> anyhow::Result<ExitCode> {
    // Whatever ends this process, its mounts go with it.
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace: only root can")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let root = tempfile::Builder::new().prefix("dapr-wasm-").tempdir()?;
    let image = MountedImage::mount(arguments, root.path())?;
    let request = WarmImage {
        image: arguments.image.clone(),
        root: root.path().to_owned(),
        mounts: vec![image.described()?],
        engines: arguments.engine.clone(),
        operator,
    };
    have_compiled(&request)
}

fn have_compiled(request: &WarmImage) -> anyhow::Result<ExitCode> {
    let program = request.operator.guest_host_program()?;
    let mut guest_host = Command::new(&program)
        .arg("warm")
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(stdin) = guest_host.stdin.take() {
        serde_json::to_writer(stdin, request)?;
    }
    let status = guest_host.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An image of containerd's, mounted to be read. Its layers are those that containers of the image get, in the same
/// folders: what is learnt of a file here holds for them.
struct MountedImage<'a> {
    arguments: &'a Warm,
    root: &'a Path,
}

impl<'a> MountedImage<'a> {
    fn mount(arguments: &'a Warm, root: &'a Path) -> anyhow::Result<Self> {
        let image = Self { arguments, root };
        // Dropped also where this fails half-way.
        image.ctr(&["images", "mount", &arguments.image], &[root])?;
        Ok(image)
    }

    fn described(&self) -> anyhow::Result<RootfsMount> {
        let command = self.ctr(&["snapshots", "mounts"], &[self.root, self.root])?;
        parse_mount(&command).with_context(|| format!("ctr describes the image's mount in an unknown way: {command}"))
    }

    fn ctr(&self, words: &[&str], paths: &[&Path]) -> anyhow::Result<String> {
        let mut ctr = Command::new("ctr");
        if let Some(address) = &self.arguments.address {
            ctr.arg("--address").arg(address);
        }
        if let Some(namespace) = &self.arguments.namespace {
            ctr.arg("--namespace").arg(namespace);
        }
        let output = ctr.args(words).args(paths).output().context("cannot run ctr, containerd's client")?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "ctr {}: {}", words.join(" "), stderr.trim_end());
        Ok(stdout.trim_end().to_owned())
    }
}

impl Drop for MountedImage<'_> {
    fn drop(&mut self) {
        // What stays, containerd forgets after a day.
        let _ = self.ctr(&["images", "unmount", "--rm"], &[self.root]);
    }
}

/// Reads what `ctr snapshots mounts` prints: `mount -t TYPE SOURCE TARGET -o OPTION,..`.
fn parse_mount(command: &str) -> anyhow::Result<RootfsMount> {
    match command.split_whitespace().collect::<Vec<_>>()[..] {
        ["mount", "-t", kind, source, _, "-o", options] => Ok(RootfsMount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        }),
        _ => bail!("it is not one mount with options"),
    }
}
