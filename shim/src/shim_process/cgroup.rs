//! The container's cgroup, from outside.

mod files;
mod limits;
mod metrics_v1;
mod metrics_v2;
mod oom;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use libcgroups::common::{
    CgroupConfig, CgroupManager as _, CgroupSetup, DEFAULT_CGROUP_ROOT, create_cgroup_manager, get_all_pids,
    get_cgroup_setup,
};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use tokio::time::{Instant, sleep};

pub(super) use oom::OomWatch;

use super::signal::Signal;
use crate::cgroup_path::CgroupPath;
use files::Folder;

/// A process that waits in the kernel for a disk or a network file system cannot be frozen until that has answered.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// A process with much memory, on a busy node, takes its time to die. containerd waits for five seconds at most.
const DEATH_PATIENCE: Duration = Duration::from_secs(4);
/// systemd may be busy.
const VANISH_PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Cgroup {
    id: String,
    path: CgroupPath,
    /// cgroup v2: one hierarchy for all controllers.
    unified: bool,
}

impl Cgroup {
    /// The cgroup that a spec asks for.
    pub(super) fn of(spec: &Spec, id: &str) -> anyhow::Result<Self> {
        let unified = matches!(get_cgroup_setup().context("cannot find the cgroups")?, CgroupSetup::Unified);
        Ok(Self { id: id.to_owned(), path: CgroupPath::of(spec, id), unified })
    }

    /// Every process in it; none once it is gone.
    pub(super) fn pids(&self) -> Vec<Pid> {
        get_all_pids(&self.path("devices")).unwrap_or_default()
    }

    /// Sends a signal to every process in it.
    pub(super) fn kill(&self, signal: Signal) {
        for pid in self.pids() {
            // It may have ended meanwhile.
            let _ = signal.send(pid.as_raw());
        }
    }

    /// Stops every process in it where it is.
    ///
    /// # Errors
    /// It cannot be done, or takes too long; then all of them run.
    pub(super) async fn freeze(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + FREEZE_PATIENCE;
        let frozen = loop {
            match self.try_freeze() {
                Ok(false) if Instant::now() < deadline => sleep(Duration::from_millis(1)).await,
                result => break result,
            }
        };
        if matches!(frozen, Ok(true)) {
            return Ok(());
        }
        let _ = self.thaw();
        match frozen {
            Err(error) => Err(error).context("cannot freeze the container's cgroup"),
            Ok(_) => bail!("a process of the container cannot be frozen: it waits in the kernel"),
        }
    }

    /// Asks for it once more, as cgroup v1 wants it, and answers whether all of them stand still.
    fn try_freeze(&self) -> io::Result<bool> {
        let folder = self.folder("freezer");
        if self.unified {
            folder.write("cgroup.freeze", "1")?;
            Ok(folder.table("cgroup.events").get("frozen") == Some(&1))
        } else {
            folder.write("freezer.state", "FROZEN")?;
            Ok(folder.text("freezer.state")?.trim() == "FROZEN")
        }
    }

    /// Has its processes go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        let folder = self.folder("freezer");
        if self.unified { folder.write("cgroup.freeze", "0") } else { folder.write("freezer.state", "THAWED") }
    }

    /// What its processes have used, in containerd's message for this version of cgroups; none once it is gone.
    pub(super) fn metrics(&self) -> anyhow::Result<Option<Any>> {
        let exists = || self.path("memory").exists() || self.path("cpuacct").exists();
        if !exists() {
            return Ok(None);
        }
        let metrics = if self.unified {
            metrics_v2::metrics(&self.folder("")).map(|metrics| ("io.containerd.cgroups.v2.Metrics", metrics))
        } else {
            metrics_v1::metrics(self).map(|metrics| ("io.containerd.cgroups.v1.Metrics", metrics))
        };
        let (name, value) = metrics.context("the figures of the cgroup do not fit containerd's message")?;
        // What had gone before it was read looks like zero.
        Ok(exists().then(|| Any { type_url: name.to_owned(), value, ..Any::default() }))
    }

    /// systemd removes a cgroup as soon as its last process has ended.
    pub(super) fn vanishes(&self) -> bool {
        self.path.scope.is_some()
    }

    /// Ends what still runs in it and removes it.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        self.kill(Signal::KILL);
        // Who is frozen does not die.
        let _ = self.thaw();
        if self.vanishes() {
            return self.vanished().await;
        }
        self.emptied().await;
        self.remove_folders()
    }

    /// Kills until nobody is left: a cgroup with a process cannot be removed.
    async fn emptied(&self) {
        let deadline = Instant::now() + DEATH_PATIENCE;
        while !self.pids().is_empty() && Instant::now() < deadline {
            self.kill(Signal::KILL);
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn vanished(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + VANISH_PATIENCE;
        while self.path("").exists() {
            ensure!(Instant::now() < deadline, "systemd does not remove the container's cgroup");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn remove_folders(&self) -> anyhow::Result<()> {
        let config = CgroupConfig {
            cgroup_path: self.path.for_libcontainer.clone(),
            systemd_cgroup: false,
            container_name: self.id.clone(),
        };
        let manager = create_cgroup_manager(config).context("cannot use the container's cgroup")?;
        manager.remove().context("cannot remove the container's cgroup")
    }

    fn folder(&self, controller: &str) -> Folder {
        Folder(self.path(controller))
    }

    /// The folder of a controller: on cgroup v2 all of them have one.
    fn path(&self, controller: &str) -> PathBuf {
        let root = Path::new(DEFAULT_CGROUP_ROOT);
        if self.unified { root.join(&self.path.folder) } else { root.join(controller).join(&self.path.folder) }
    }
}
