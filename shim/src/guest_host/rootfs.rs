//! The container's root, as seen from outside: the image decides every path and link in it, and none leads out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use crate::protocol::RootfsMount;

pub(super) struct Rootfs {
    root: OwnedFd,
}

impl Rootfs {
    /// Mounts what containerd's snapshotter prepared onto `path`. On failure, nothing stays mounted.
    pub(super) fn mount(mounts: &[RootfsMount], path: &Path) -> anyhow::Result<()> {
        for mount in mounts {
            let kind = (!mount.kind.is_empty()).then_some(mount.kind.as_str());
            containerd_shim::mount::mount_rootfs(kind, Some(&mount.source), &mount.options, path)
                .with_context(|| format!("cannot mount the container's root at {}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn open_root(path: &Path) -> anyhow::Result<Self> {
        let root = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.with_context(|| format!("cannot open the container's root {}", path.display()))?;
        Ok(Self { root })
    }

    /// Opens a regular file for reading. The path is the container's: absolute or not, it starts at its root, and
    /// neither `..` nor a link leaves it.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let path = if path.is_absolute() { path.to_owned() } else { PathBuf::from("/").join(path) };
        // Without NONBLOCK, opening a FIFO that the image holds would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.root, &path, flags, Mode::empty(), resolve)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(file))
    }
}
