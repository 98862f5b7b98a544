//! Everything that is done before a container's process exists.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use libcgroups::common::DEFAULT_CGROUP_ROOT;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Process, Spec};

use super::GuestHost;
use super::cgroup_entry::{self, Cgroup};
use super::cgroup_mounts;
use super::confinement;
use super::console::Console;
use super::container_config::workload;
use super::devices;
use super::executor::ContainerExecutor;
use super::program::Program;
use super::rootfs::Rootfs;
use super::standard_streams;
use crate::cgroup_path::CgroupPath;
use crate::protocol::{CreateContainer, STATE_FOLDER};

/// A process of a container, as its creator knows it.
pub(super) struct Created {
    pub(super) pid: i32,
    /// The master of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// Creates the container. Its process waits for the start.
pub(super) fn create(
    guest_host: GuestHost,
    request: &CreateContainer,
    control: &Arc<OwnedFd>,
    streams: [File; 3],
) -> anyhow::Result<Created> {
    let rootfs_path = request.bundle.join("rootfs");
    fs::create_dir_all(&rootfs_path)?;
    Rootfs::mount(&request.rootfs, &rootfs_path)?;
    let spec = Spec::load(request.bundle.join("config.json")).context("cannot read the container's config.json")?;
    let cgroups_path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let cgroup = CgroupPath::of(cgroups_path, &request.id)?;
    cgroup.ensure_manageable()?;
    let rootfs = Rootfs::open_root(&root_of(&spec, &request.bundle)?, spec.mounts().as_deref().unwrap_or_default())?
        .made_of(&request.rootfs);
    let workload = workload(&spec, &rootfs)?;
    let program = Program::prepare(guest_host, &request.operator, &rootfs, workload)?;
    if let Some(directory) = spec.process().as_ref().map(Process::cwd) {
        let made = rootfs.make_folder(directory);
        made.with_context(|| format!("cannot make the working directory {}", directory.display()))?;
    }
    drop(rootfs);
    let console = Console::of(spec.process().as_ref(), &request.bundle)?;
    standard_streams::give(&streams, spec.process().as_ref(), &spec);
    let [stdin, stdout, stderr] = streams;
    let executor = ContainerExecutor::of_container(program, Arc::clone(control));
    let bundle = bundle_for_libcontainer(&request.bundle, &spec, &cgroup)?;
    let own_cgroup = Cgroup::of(&cgroup.folder)?;
    let is_unnoticed = cgroup_entry::is_unnoticed(&spec, &root_of(&spec, &request.bundle)?);
    if let Some(scope) = &cgroup.scope {
        // With this process, as the container has none yet. The memory that it has is not moved.
        scope.start(format!("container {}", request.id), process::id())?;
    } else if is_unnoticed {
        own_cgroup.make()?;
    }
    let state = request.bundle.join(STATE_FOLDER);
    let build = || {
        let container = ContainerBuilder::new(request.id.clone(), SyscallType::default())
            .with_executor(executor)
            .with_root_path(&state)?
            .with_console_socket(console.as_ref().map(Console::path))
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr)
            .validate_id()?
            .as_init(&bundle)
            .as_sibling(true)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .map_err(without_cleanup)?;
        container.pid().context("libcontainer created a container without a process")
    };
    let pid = if is_unnoticed { own_cgroup.make_inside(build)? } else { build()? };
    // From libcontainer's view the container runs; its process waits for the shim's own word.
    Container::load(state.join(&request.id))?.start()?;
    if let Some(scope) = &cgroup.scope {
        scope.keep_limits(&Path::new(DEFAULT_CGROUP_ROOT).join(&cgroup.folder))?;
    }
    let terminal = console.map(|console| console.terminal(spec.process().as_ref(), &spec)).transpose()?;
    Ok(Created { pid: pid.as_raw(), terminal })
}

/// Why libcontainer could not create a container, and not that it could not clean up, which the shim does.
fn without_cleanup(error: LibcontainerError) -> anyhow::Error {
    let message = format!("{:#}", anyhow::Error::from(error));
    anyhow!(message.split(". error during cleanup: ").next().unwrap_or_default().to_owned())
}

/// The bundle with what libcontainer is to be told in another way than by containerd.
fn bundle_for_libcontainer(bundle: &Path, spec: &Spec, cgroup: &CgroupPath) -> anyhow::Result<PathBuf> {
    let mut told = spec.clone();
    if let Some(linux) = told.linux_mut() {
        linux.set_cgroups_path(Some(cgroup.for_libcontainer.clone()));
    }
    if let Some(mounts) = cgroup_mounts::replaced(spec, &cgroup.folder)? {
        told.set_mounts(Some(mounts));
    }
    if let Some(mounts) = told.mounts_mut() {
        devices::confine_volumes(mounts, spec);
    }
    if let Some(process) = told.process_mut() {
        confinement::complete(process, None);
        devices::confine(process, spec);
    }
    if told == *spec {
        return Ok(bundle.to_owned());
    }
    let path = root_of(spec, bundle)?;
    if let Some(root) = told.root_mut() {
        root.set_path(path);
    }
    let folder = bundle.join(STATE_FOLDER);
    told.save(folder.join("config.json")).context("cannot write the spec for libcontainer")?;
    Ok(folder)
}

fn root_of(spec: &Spec, bundle: &Path) -> anyhow::Result<PathBuf> {
    let root = spec.root().as_ref().context("the container's config.json has no root")?;
    Ok(bundle.join(root.path()))
}
