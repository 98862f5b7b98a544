//! The container's cgroup, from outside.

use std::path::PathBuf;

use anyhow::Context as _;
use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager as _, create_cgroup_manager};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

pub(super) struct Cgroup {
    manager: AnyCgroupManager,
}

impl Cgroup {
    /// The cgroup that a spec asks for.
    pub(super) fn of(spec: &Spec, id: &str) -> anyhow::Result<Self> {
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
        let config = CgroupConfig {
            // libcontainer's own choice for a spec that names none.
            cgroup_path: path.unwrap_or_else(|| PathBuf::from(format!(":youki:{id}"))),
            systemd_cgroup: false,
            container_name: id.to_owned(),
        };
        Ok(Self { manager: create_cgroup_manager(config).context("cannot use the container's cgroup")? })
    }

    /// Every process in it; none once it is gone.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.manager.get_all_pids().unwrap_or_default()
    }

    /// Sends a signal to every process in it.
    pub(super) fn kill(&self, signal: Signal) {
        for pid in self.pids() {
            // It may have ended meanwhile.
            let _ = kill(pid, signal);
        }
    }

    /// Ends what still runs in it and removes it.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        self.kill(Signal::SIGKILL);
        self.manager.remove().context("cannot remove the container's cgroup")
    }
}
