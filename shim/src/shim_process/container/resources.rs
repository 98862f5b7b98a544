//! What a container may use and has used.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use oci_spec::runtime::LinuxResources;

use super::Container;
use crate::shim_process::cgroup::OomWatch;
use crate::shim_process::spec::resources_of;
use crate::shim_process::task_state::{Request, TaskState};

impl Container {
    /// Stops everything in the container where it is. The caller holds the first process's step.
    pub(in super::super) async fn pause(&self) -> anyhow::Result<()> {
        self.init.state().allows(Request::Pause)?;
        self.cgroup.freeze().await?;
        self.init.advance(TaskState::Running, TaskState::Paused);
        if self.is_killed.load(Ordering::Relaxed) {
            // The signal came before there was anything to thaw.
            self.cgroup.thaw()?;
        }
        Ok(())
    }

    /// Has everything in it go on. The caller holds the first process's step.
    pub(in super::super) fn resume(&self) -> anyhow::Result<()> {
        self.init.state().allows(Request::Resume)?;
        self.cgroup.thaw()?;
        self.init.advance(TaskState::Paused, TaskState::Running);
        Ok(())
    }

    /// Has it die of the SIGKILL that it was sent, though it is paused or about to be: on cgroup v1, a frozen process does
    /// not.
    pub(in super::super) fn thaw_for_kill(&self) -> anyhow::Result<()> {
        // Before the state is read: a pause that this overlooks sees it.
        self.is_killed.store(true, Ordering::Relaxed);
        if self.init.state() == TaskState::Paused {
            self.cgroup.thaw()?;
        }
        Ok(())
    }

    /// Changes its limits; all of them, or none.
    pub(in super::super) fn update(&self, resources: &LinuxResources) -> anyhow::Result<()> {
        self.init.state().allows(Request::Update)?;
        self.cgroup.update(resources, &resources_of(&self.bundle)?)
    }

    /// What it has used, the last that was read where its cgroup has gone; nothing where nothing was.
    pub(in super::super) fn metrics(&self) -> anyhow::Result<Option<Any>> {
        let mut last = self.last_metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = self.cgroup.metrics()? {
            *last = Some(metrics);
        }
        Ok(last.clone())
    }

    /// Its process has just ended: the figures are read while they are there.
    pub(in super::super) fn keep_metrics(&self) {
        if self.cgroup.is_systemds() {
            // Earlier ones stay, if there are any.
            let _ = self.metrics();
        }
    }

    pub(in super::super) fn watch_memory(&self) -> OomWatch {
        OomWatch::of(&self.cgroup)
    }
}
