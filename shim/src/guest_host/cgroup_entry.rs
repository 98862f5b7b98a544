//! How a container's process comes into its cgroup.
//!
//! libcontainer moves it by its number, for which the kernel has every fork of the node wait: until a grace period of RCU is
//! over, some 8 ms, unless there was a move just before (`cgroup_threadgroup_rwsem` in kernel/cgroup/cgroup.c). Nobody waits
//! for a thread that moves itself on cgroup v1 (`cgroup_procs_write_start` there, since Linux 5.5), nor for a process that
//! begins in its cgroup on v2 (clone3(2), `CLONE_INTO_CGROUP`, since Linux 5.7). So the guest host, which has one thread,
//! enters the cgroup in one of these ways, and what it clones begins there. libcontainer still writes for its move, which
//! is none any more: to `/dev/null`.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Context as _;
use libcgroups::common::{CgroupSetup, DEFAULT_CGROUP_ROOT, get_cgroup_setup};
use nix::libc::{CLONE_PARENT, CLONE_PIDFD, SYS_clone3, clone_args, syscall};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};

/// As in the kernel's include/uapi/linux/sched.h: what `libc` has under this name is too short for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

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

    /// Has this process, which has one thread, enter the cgroup as far as it is there, or a clone of it in its place: who returns
    /// is inside. What libcontainer writes to move a process there goes to `/dev/null` from now on, in a mount
    /// namespace of the process's own.
    pub(super) fn enter(&self) -> anyhow::Result<()> {
        let folders = self.hierarchies.iter().map(|hierarchy| hierarchy.join(&self.path));
        let folders: Vec<_> = folders.filter(|folder| folder.exists()).collect();
        for folder in &folders {
            let entered = if self.unified { go_on_as_clone_in(folder) } else { fs::write(folder.join("tasks"), "0") };
            entered.with_context(|| format!("cannot enter the cgroup {}", folder.display()))?;
        }
        ignore_moves(&folders).context("cannot keep libcontainer from moving processes")
    }
}

/// Whether nobody can notice an entry. What hooks execute would be inside, and see the mounts of the process that has entered.
/// And a container whose mounts are made of the node's cgroups would find `/dev/null` in them.
pub(super) fn is_unnoticed(spec: &Spec, root: &Path) -> bool {
    let cgroups = Path::new(DEFAULT_CGROUP_ROOT);
    let sources = spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_deref());
    let sources = sources.filter(|source| source.is_absolute()).chain([root]);
    let mut sources = sources.filter_map(|source| source.canonicalize().ok());
    spec.hooks().is_none() && !sources.any(|source| source.starts_with(cgroups) || cgroups.starts_with(source))
}

/// Those with controllers, and systemd's own.
fn hierarchies_v1() -> io::Result<Vec<PathBuf>> {
    let mut hierarchies = Vec::new();
    for entry in fs::read_dir(DEFAULT_CGROUP_ROOT)? {
        let entry = entry?;
        // Links are other names of the same, and a hierarchy of version 2 may stand beside these.
        if entry.file_type()?.is_dir() && entry.path().join("tasks").exists() {
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
        for controller in controllers.split_whitespace() {
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

/// Has a clone of this process, a child of the same parent, go on in a cgroup of version 2. This process waits for the end of
/// the clone, and ends.
fn go_on_as_clone_in(folder: &Path) -> io::Result<()> {
    let cgroup = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut clone: RawFd = -1;
    // SAFETY: the structure is numbers, all of which may be zero.
    #[expect(unsafe_code, reason = "see above")]
    let mut args: clone_args = unsafe { std::mem::zeroed() };
    args.flags = (CLONE_PARENT | CLONE_PIDFD) as u64 | CLONE_INTO_CGROUP;
    args.pidfd = (&raw mut clone) as u64;
    args.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: without a stack of its own and without shared memory the clone is what fork(2) makes, and nothing of another
    // thread can be missing in it, as there is none; the number is written to memory that lives through the call.
    #[expect(unsafe_code, reason = "see above")]
    match unsafe { syscall(SYS_clone3, &raw mut args, size_of::<clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        _ => {
            // SAFETY: the kernel has just installed the descriptor, and nobody else knows it.
            #[expect(unsafe_code, reason = "see above")]
            let clone = unsafe { OwnedFd::from_raw_fd(clone) };
            let _ = poll(&mut [PollFd::new(&clone, PollFlags::IN)], None);
            process::exit(0)
        }
    }
}

fn ignore_moves(folders: &[PathBuf]) -> nix::Result<()> {
    let unchanged = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(unchanged, DEFAULT_CGROUP_ROOT, unchanged, MsFlags::MS_REC | MsFlags::MS_PRIVATE, unchanged)?;
    let ignore = |folder: &PathBuf| {
        mount(Some("/dev/null"), &folder.join("cgroup.procs"), unchanged, MsFlags::MS_BIND, unchanged)
    };
    folders.iter().try_for_each(ignore)
}
