//! OCI's hooks of the kind `poststop`: what is to be run on the node once a container is gone.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::process::Exits;
use super::signal::Signal;
use super::spec::Spec;

/// A program to be run, as a spec has it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hook {
    path: PathBuf,
    /// The first is the program's own name.
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    /// In seconds.
    timeout: Option<u64>,
}

/// The hooks of a container.
#[derive(Default)]
pub(super) struct Poststop {
    hooks: Vec<Hook>,
    bundle: PathBuf,
    /// What each is told on its standard input: OCI's state of the container.
    state: Vec<u8>,
}

impl Poststop {
    pub(super) fn of(spec: &Spec, id: &str, bundle: &Path) -> Self {
        let hooks = spec.poststop().to_vec();
        if hooks.is_empty() {
            return Self::default();
        }
        let state = json!({
            "ociVersion": spec.oci_version,
            "id": id,
            "status": "stopped",
            "bundle": bundle,
            "annotations": spec.annotations,
        });
        Self { hooks, bundle: bundle.to_owned(), state: state.to_string().into_bytes() }
    }

    /// Runs one after the other. What goes wrong is logged, and the container is gone all the same: so says OCI.
    pub(super) async fn run(&self) {
        for hook in &self.hooks {
            if let Err(error) = self.run_one(hook).await {
                let (bundle, hook) = (self.bundle.display(), hook.path.display());
                tracing::warn!(%bundle, %hook, error = format!("{error:#}"), "a poststop hook failed");
            }
        }
    }

    async fn run_one(&self, hook: &Hook) -> anyhow::Result<()> {
        // Not a pipe, which the hook need not read from.
        let mut state = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
        state.write_all(&self.state)?;
        state.rewind()?;
        let arguments = hook.args.as_deref().unwrap_or_default();
        let environment = hook.env.iter().flatten().filter_map(|variable| variable.split_once('='));
        let mut command = Command::new(&hook.path);
        command.args(arguments.iter().skip(1)).env_clear().envs(environment).current_dir(&self.bundle);
        if let Some(name) = arguments.first() {
            command.arg0(name);
        }
        // Before the process exists: it may be gone before its pid is known.
        let exits = Exits::watch().await?;
        let hook_process = command.stdin(state).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pid = hook_process.context("it cannot be started")?.id().cast_signed();
        let patience = hook.timeout.map_or(Duration::MAX, Duration::from_secs);
        let Ok(exit) = timeout(patience, exits.of(pid)).await else {
            let _ = Signal::KILL.send(pid);
            bail!("it takes longer than its {} s", patience.as_secs());
        };
        ensure!(exit.status == 0, "it ended with {}", exit.status);
        Ok(())
    }
}
