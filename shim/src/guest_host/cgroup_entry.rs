//! How a container's process comes into its cgroup.
//!
//! libcontainer moves it there by its number, for which the kernel waits until every processor has noticed that there are
//! moves: a grace period of RCU, some 10 ms, unless there was a move just before (`cgroup_threadgroup_rwsem` in
//! kernel/cgroup/cgroup.c). It does not for a thread that moves itself on cgroup v1 (`cgroup_procs_write_start` there, since
//! Linux 5.5), nor for a process that begins in its cgroup on v2 (clone3(2), `CLONE_INTO_CGROUP`, since Linux 5.7). So
//! libcontainer is called by who has come into the cgroup in one of these ways, the guest host itself on v1 and a clone of it
//! on v2, and what it clones begins there. What it still writes, for a move that is none any more, goes to `/dev/null`.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, bail};
use libcgroups::common::{CgroupSetup, DEFAULT_CGROUP_ROOT, get_cgroup_setup};
use nix::libc::{CLONE_PARENT, CLONE_PIDFD, SYS_clone3, clone_args, syscall};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{ioctl_fionbio, retry_on_intr};

use crate::protocol::{self, FromGuestHost};

/// As in the kernel's include/uapi/linux/sched.h: what `libc` has under this name is too short for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Those that libcontainer has a container in, by version.
const CONTROLLERS_V1: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];
const CONTROLLERS_V2: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// A container's cgroup: a folder in each hierarchy, of which there is one on cgroup v2.
pub(super) struct Cgroup {
    hierarchies: Vec<PathBuf>,
    /// Below the root of each.
    path: PathBuf,
    unified: bool,
}

impl Cgroup {
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let setup = get_cgroup_setup().context("cannot tell the version of cgroups")?;
        let unified = matches!(setup, CgroupSetup::Unified);
        let hierarchies = if unified { vec![DEFAULT_CGROUP_ROOT.into()] } else { hierarchies_v1()? };
        Ok(Self { hierarchies, path: path.to_owned(), unified })
    }

    /// Makes it, so that processes can enter.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        let making = if self.unified { make_v2 } else { make_v1 };
        for hierarchy in &self.hierarchies {
            making(hierarchy, &self.path)
                .with_context(|| format!("cannot make the cgroup {}", hierarchy.join(&self.path).display()))?;
        }
        Ok(())
    }

    /// Has a process made from within the cgroup, as far as that is there, and from a mount namespace apart: by this process,
    /// which stays there, on cgroup v1, and by a clone of it, which has ended when this returns, on v2.
    pub(super) fn make_inside(&self, make: impl FnOnce() -> anyhow::Result<Pid>) -> anyhow::Result<Pid> {
        let folders = self.hierarchies.iter().map(|hierarchy| hierarchy.join(&self.path));
        let folders: Vec<_> = folders.filter(|folder| folder.exists()).collect();
        if !self.unified {
            for folder in &folders {
                fs::write(folder.join("tasks"), "0")
                    .with_context(|| format!("cannot enter the cgroup {}", folder.display()))?;
            }
            leave_cgroups_as_they_are(&folders)?;
            return make();
        }
        if self.has_some_processors_only() {
            return make();
        }
        let (answer, answering) = protocol::pair()?;
        let Some(clone) = clone_into(folders.first()).context("cannot enter the cgroup")? else {
            let made = leave_cgroups_as_they_are(&folders).and_then(|()| make());
            let made = made.map(|pid| FromGuestHost::Created { pid: pid.as_raw() });
            let _ = protocol::send_message(&answering, &made.unwrap_or_else(|error| FromGuestHost::failed(&error)));
            process::exit(0)
        };
        retry_on_intr(|| poll(&mut [PollFd::new(&clone, PollFlags::IN)], None))?;
        // What the clone has cloned has the other end, too.
        ioctl_fionbio(&answer, true)?;
        match protocol::receive_message(&answer) {
            Ok(Some(FromGuestHost::Created { pid })) => Ok(Pid::from_raw(pid)),
            Ok(Some(FromGuestHost::Failed { message })) => bail!(message),
            _ => bail!("the process that was to make the container's was ended, perhaps for want of memory"),
        }
    }

    /// On cgroup v2, whether what runs in it may not use every processor and all memory: before Linux 6.3 and its corrections of
    /// older kernels, that held only for those who were moved (`cpuset_fork` in kernel/cgroup/cpuset.c).
    fn has_some_processors_only(&self) -> bool {
        ["cpuset.cpus.effective", "cpuset.mems.effective"].iter().any(|name| {
            let read = |folder: &Path| fs::read_to_string(folder.join(name)).ok();
            let root = Path::new(DEFAULT_CGROUP_ROOT);
            read(&root.join(&self.path)).is_some_and(|own| Some(own) != read(root))
        })
    }
}

/// Keeps libcontainer, as this process and those that it clones have it, from moving processes into these cgroups, and from
/// ending all that is there when it fails.
fn leave_cgroups_as_they_are(folders: &[PathBuf]) -> anyhow::Result<()> {
    let unchanged = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own")?;
    mount(unchanged, DEFAULT_CGROUP_ROOT, unchanged, MsFlags::MS_REC | MsFlags::MS_PRIVATE, unchanged)
        .with_context(|| format!("cannot make {DEFAULT_CGROUP_ROOT} private"))?;
    for folder in folders {
        for file in ["cgroup.procs", "cgroup.kill"].map(|name| folder.join(name)) {
            if file.exists() {
                mount(Some("/dev/null"), &file, unchanged, MsFlags::MS_BIND, unchanged)
                    .with_context(|| format!("cannot lay /dev/null over {}", file.display()))?;
            }
        }
    }
    Ok(())
}

/// Whether nobody can notice that a container's first process is made inside. Hooks that are executed by who makes it would be
/// inside as well, and among them are those of the kind `poststart`: libcontainer's start is a part of the create. A container
/// whose mounts are made of the node's cgroups would find `/dev/null` in them. One of other users cannot have a part of a mount
/// alone that something lies over. (Hooks of the kind `createContainer` run among the container's mounts, before those of the
/// node are gone: they find `/dev/null` in its cgroup.)
pub(super) fn is_unnoticed(spec: &Spec, root: &Path) -> bool {
    let hooks = spec.hooks().iter().flat_map(|hooks| [hooks.prestart(), hooks.create_runtime(), hooks.poststart()]);
    let cgroups = Path::new(DEFAULT_CGROUP_ROOT);
    let sources = spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_deref());
    let mut sources = sources.chain([root]).filter_map(|source| source.canonicalize().ok());
    has_mounts_of_its_own(spec)
        && !has_namespace(spec, LinuxNamespaceType::User)
        && hooks.flatten().all(Vec::is_empty)
        && !sources.any(|source| source.starts_with(cgroups) || cgroups.starts_with(source))
}

/// Without them, a process stays among the mounts of who made it.
pub(super) fn has_mounts_of_its_own(spec: &Spec) -> bool {
    has_namespace(spec, LinuxNamespaceType::Mount)
}

fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    namespaces.unwrap_or_default().iter().any(|namespace| namespace.typ() == kind)
}

fn hierarchies_v1() -> io::Result<Vec<PathBuf>> {
    let mut hierarchies = Vec::new();
    for entry in fs::read_dir(DEFAULT_CGROUP_ROOT)? {
        let entry = entry?;
        let is_known = |name: &str| name.split(',').any(|controller| CONTROLLERS_V1.contains(&controller));
        // Links are other names of the same.
        if entry.file_type()?.is_dir() && entry.file_name().to_str().is_some_and(is_known) {
            hierarchies.push(entry.path());
        }
    }
    Ok(hierarchies)
}

fn make_v1(hierarchy: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(hierarchy.join(path))?;
    // In a new one there are neither processors nor memory for a process.
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let mut folder = hierarchy.to_owned();
        if !folder.join(name).exists() {
            continue;
        }
        let mut value = fs::read_to_string(folder.join(name))?;
        for part in path {
            folder.push(part);
            let own = fs::read_to_string(folder.join(name))?;
            if own.trim().is_empty() {
                fs::write(folder.join(name), &value)?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

fn make_v2(hierarchy: &Path, path: &Path) -> io::Result<()> {
    let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers"))?;
    let mut folder = hierarchy.to_owned();
    for part in path {
        for controller in controllers.split_whitespace().filter(|name| CONTROLLERS_V2.contains(name)) {
            // Those that cannot be had below are missed by a limit that needs them.
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        folder.push(part);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(())
}

/// Clones this process, as a child of the same parent; into a cgroup, if there is one. Answers the clone's pidfd, and nothing in
/// the clone.
fn clone_into(cgroup: Option<&PathBuf>) -> io::Result<Option<OwnedFd>> {
    let open = |folder| open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let cgroup = cgroup.map(open).transpose()?;
    let mut clone: RawFd = -1;
    // SAFETY: the structure is numbers, all of which may be zero.
    #[expect(unsafe_code, reason = "see above")]
    let mut args: clone_args = unsafe { mem::zeroed() };
    args.flags = (CLONE_PARENT | CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut clone) as u64;
    if let Some(cgroup) = &cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without shared memory and a stack of its own the clone is what fork(2) makes. Nothing of another thread can be
    // missing in it, as there is none. What the C library's own function does besides is of no use here: it notes the
    // thread's number, which libcontainer's clones of it do not either, and calls handlers, of which none is installed.
    // The descriptor is written to memory that lives through the call.
    #[expect(unsafe_code, reason = "see above")]
    match unsafe { syscall(SYS_clone3, &raw mut args, size_of::<clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel has just installed the descriptor, and nobody else knows it.
        #[expect(unsafe_code, reason = "see above")]
        _ => Ok(Some(unsafe { OwnedFd::from_raw_fd(clone) })),
    }
}
