//! One more process for a container that runs.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use engines::artifact_cache::memory_file;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::{Signal, kill};
use oci_spec::runtime::{Process, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize as _;

use super::GuestHost;
use super::cgroup_entry::{self, Cgroup};
use super::confinement::{self, Confinement};
use super::console::Console;
use super::container_config::exec_workload;
use super::create::Created;
use super::devices;
use super::executor::ContainerExecutor;
use super::program::Program;
use super::rootfs::Rootfs;
use super::standard_streams;
use crate::cgroup_path::CgroupPath;
use crate::protocol::{ExecProcess, STATE_FOLDER};
use crate::read_only;

/// Has the process join the container's namespaces and cgroup. It runs when this returns. `container` is a pidfd of the
/// container's first process.
pub(super) fn exec(
    guest_host: GuestHost,
    request: &ExecProcess,
    container: &OwnedFd,
    control: &Arc<OwnedFd>,
    streams: [File; 3],
) -> anyhow::Result<Created> {
    let spec = Spec::load(request.bundle.join("config.json")).context("cannot read the container's config.json")?;
    // As the container's processes see it, with its volumes.
    let root = PathBuf::from(format!("/proc/{}/root", request.container_pid));
    let rootfs = Rootfs::open_root(&root, &[])?;
    ensure_running(container)?;
    let mut process = Process::deserialize(&request.process).context("the process is not one of OCI's")?;
    let working_directory = rootfs.ensure_folder(process.cwd());
    working_directory.with_context(|| format!("cannot enter the working directory {}", process.cwd().display()))?;
    let workload = exec_workload(&spec, &process, &rootfs)?;
    let console = Console::of(Some(&process), &request.bundle)?;
    standard_streams::give(&streams, Some(&process), &spec);
    let [stdin, stdout, stderr] = streams;
    let program = Program::prepare(guest_host, &request.operator, &rootfs, workload)?;
    drop(rootfs);
    confinement::complete(&mut process, spec.process().as_ref());
    devices::confine(&mut process, &spec);
    let (process, confinement) = Confinement::split(process, &spec)?;
    // libcontainer takes the process from a file. This one goes with whoever has it open, however that ends.
    let file = file_of(&process).context("cannot write the process for libcontainer")?;
    let executor = ContainerExecutor::of_exec(program, Arc::clone(control), confinement);
    // A compilation takes its time.
    ensure_running(container)?;
    let cgroups_path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let cgroup = Cgroup::of(&CgroupPath::of(cgroups_path, &request.container_id)?.folder)?;
    // It holds until a move into the cgroup, and may be of processors that are none of the container's.
    let first_affinity = process.exec_cpu_affinity().as_ref().and_then(|affinity| affinity.initial().as_ref());
    let is_moved = first_affinity.is_some() || !cgroup_entry::has_mounts_of_its_own(&spec);
    let build = || {
        let builder = ContainerBuilder::new(request.container_id.clone(), SyscallType::default())
            .with_executor(executor)
            .with_root_path(request.bundle.join(STATE_FOLDER))?
            .with_console_socket(console.as_ref().map(Console::path))
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr)
            .as_tenant()
            .with_process(Some(read_only::path_of(&file)))
            .as_sibling(true)
            .with_detach(true);
        Ok(builder.build()?)
    };
    let pid = if is_moved { build()? } else { cgroup.make_inside(build)? };
    let terminal = console.map(|console| console.terminal(Some(&process), &spec)).transpose().inspect_err(|_| {
        // It runs by now, and nobody would know of it.
        let _ = kill(pid, Signal::SIGKILL);
    })?;
    Ok(Created { pid: pid.as_raw(), terminal })
}

/// Another process may have the pid of one that has ended.
fn ensure_running(container: &OwnedFd) -> anyhow::Result<()> {
    let ended = poll(&mut [PollFd::new(container, PollFlags::IN)], Some(&Timespec::default()))? > 0;
    ensure!(!ended, "the container has ended");
    Ok(())
}

/// A process in memory: its arguments and its environment are nobody else's.
fn file_of(process: &Process) -> anyhow::Result<File> {
    let mut file = memory_file("process")?;
    file.write_all(&serde_json::to_vec(process)?)?;
    Ok(file)
}
