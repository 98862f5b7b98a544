//! The container's cgroup, from outside.

mod files;
mod limits;
mod metrics_v1;
mod metrics_v2;
mod oom;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use libcgroups::common::{CgroupSetup, DEFAULT_CGROUP_ROOT, get_cgroup_setup};
use nix::libc::{ENODEV, ENOENT, EOPNOTSUPP};
use nix::unistd::Pid;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

pub(super) use oom::OomWatch;

use super::launch::Declined;
use super::signal::Signal;
use super::spec::Spec;
use crate::cgroup_path::CgroupPath;
use files::Folder;

/// A process that waits in the kernel for a disk or a network file system cannot be frozen until that has answered.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// A process with much memory, on a busy node, takes its time to die. containerd waits for five seconds at most.
const DEATH_PATIENCE: Duration = Duration::from_secs(4);
/// systemd may be busy.
const SYSTEMD_PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Cgroup {
    path: CgroupPath,
    /// cgroup v2: one hierarchy for all controllers.
    unified: bool,
    /// Updates were done without some of what they asked for, which is logged once.
    has_left_out: Once,
}

impl Cgroup {
    /// The cgroup that a spec asks for.
    ///
    /// # Errors
    /// It asks for one that no container can have ([`Declined`]), or this system has none.
    pub(super) fn of(spec: &Spec, id: &str) -> anyhow::Result<Self> {
        let unified = matches!(get_cgroup_setup().context("cannot find the cgroups")?, CgroupSetup::Unified);
        let path = CgroupPath::of(spec.cgroups_path(), id).map_err(|error| Declined(format!("{error:#}")))?;
        Ok(Self { path, unified, has_left_out: Once::new() })
    }

    /// To be called before the container is made: from then on, what runs in it is the container's, and ends with it.
    ///
    /// # Errors
    /// Others run in it ([`Declined`]), or that cannot be found out.
    pub(super) fn ensure_unused(&self) -> anyhow::Result<()> {
        let (folder, mut pids) = (self.path("devices"), Vec::new());
        add_pids(&folder, &mut pids).with_context(|| format!("cannot list the processes in {}", folder.display()))?;
        match pids.first() {
            Some(pid) => {
                let folder = folder.display();
                bail!(Declined(format!("the cgroup {folder} is not empty: process {pid} runs in it")))
            }
            None => Ok(()),
        }
    }

    /// Every process in it; none once it is gone.
    pub(super) fn pids(&self) -> Vec<Pid> {
        let (folder, mut pids) = (self.path("devices"), Vec::new());
        if let Err(error) = add_pids(&folder, &mut pids) {
            tracing::warn!(cgroup = %folder.display(), %error, "cannot list all processes");
        }
        pids
    }

    /// Sends a signal to every process in it.
    pub(super) fn kill(&self, signal: Signal) {
        for pid in self.pids() {
            // It may have ended meanwhile.
            let _ = signal.send(pid.as_raw());
        }
    }

    /// Ends every process in it: at once where the kernel can (cgroup v2, Linux 5.14), else all but those that are
    /// forked meanwhile.
    fn end_processes(&self) {
        if !self.unified || self.folder("").write("cgroup.kill", "1").is_err() {
            self.kill(Signal::KILL);
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

    /// systemd removes it as soon as its last process has ended.
    pub(super) fn is_systemds(&self) -> bool {
        self.path.scope.is_some()
    }

    /// Ends what still runs in it and removes it.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        self.end_processes();
        // A frozen process does not die (cgroup v1).
        let _ = self.thaw();
        if self.is_systemds() { self.wait_until_removed().await } else { self.remove_folders().await }
    }

    async fn wait_until_removed(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SYSTEMD_PATIENCE;
        while self.path("").exists() {
            ensure!(Instant::now() < deadline, "systemd does not remove the container's cgroup");
            // Processes that were forked since the last kill.
            self.end_processes();
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn remove_folders(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEATH_PATIENCE;
        for folder in self.folders()? {
            while let Err(error) = remove_tree(&folder) {
                if Instant::now() >= deadline {
                    return Err(error).with_context(|| format!("cannot remove the cgroup {}", folder.display()));
                }
                // Processes that were forked since the last kill.
                self.end_processes();
                sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    /// Its folders in all hierarchies, whether they are there or not.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        if self.unified {
            return Ok(vec![self.path("")]);
        }
        let mut folders = Vec::new();
        for hierarchy in fs::read_dir(DEFAULT_CGROUP_ROOT)? {
            let hierarchy = hierarchy?;
            // Links are other names of the same.
            if hierarchy.file_type()?.is_dir() {
                folders.push(hierarchy.path().join(&self.path.folder));
            }
        }
        Ok(folders)
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

/// Adds the processes of a cgroup and of those in it, as far as they are there.
fn add_pids(folder: &Path, pids: &mut Vec<Pid>) -> io::Result<()> {
    let is_gone = |error: &io::Error| matches!(error.raw_os_error(), Some(ENOENT | ENODEV));
    match fs::read_to_string(folder.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw)),
        Err(error) if is_gone(&error) => return Ok(()),
        // One of threads (cgroup v2): their processes stand in the one above.
        Err(error) if error.raw_os_error() == Some(EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    let entries = match fs::read_dir(folder) {
        Err(error) if is_gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            add_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// Removes a cgroup and those in it.
///
/// # Errors
/// `ResourceBusy`: a process is in one of them, be it one that is on its way out.
fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path())?;
                }
            }
            fs::remove_dir(folder)
        }
        result => result,
    }
}

/// Has the kernel begin now with what a container's process waits for where it is moved into its cgroup by its number: a
/// grace period of RCU, some 10 ms, until every processor has noticed that there are moves (`cgroup_threadgroup_rwsem` in
/// kernel/cgroup/cgroup.c). Moves that follow need not wait.
pub(super) fn expect_move() {
    spawn_blocking(|| {
        // A move to where this process is already.
        if let Some(cgroup) = own_cgroup() {
            let _ = Folder(cgroup).write("cgroup.procs", "0");
        }
    });
}

/// This process's own, in one of the hierarchies.
fn own_cgroup() -> Option<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut cgroups = cgroups.lines().filter_map(|line| line.split_once(':')?.1.split_once(":/"));
    cgroups.find_map(|(controllers, path)| {
        let folder = Path::new(DEFAULT_CGROUP_ROOT).join(controllers).join(path);
        folder.is_dir().then_some(folder)
    })
}
