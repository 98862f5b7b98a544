//! What a container sees of the file system, from outside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

/// A container's root and its mount namespace. Taking them apart takes the kernel a millisecond or two. The shim holds both
/// until the container's end was told, so that nobody waits for that.
pub(super) struct Mounts {
    namespace: Mutex<Option<File>>,
    root: PathBuf,
    left: OnceCell<()>,
}

impl Mounts {
    /// `pid` is of a process of the container.
    pub(super) fn of(pid: i32, bundle: &Path) -> Self {
        // Without it, everything is done a little later.
        let namespace = File::open(format!("/proc/{pid}/ns/mnt")).ok();
        Self { namespace: Mutex::new(namespace), root: bundle.join("rootfs"), left: OnceCell::new() }
    }

    /// They are gone when this returns, as far as they can be.
    pub(super) async fn leave(&self) {
        let leave = || async {
            let namespace = self.namespace.lock().unwrap_or_else(PoisonError::into_inner).take();
            let root = self.root.clone();
            let left = spawn_blocking(move || {
                drop(namespace);
                // Whoever removes the rest tries again, and logs why it cannot be.
                let _ = unmount(&root);
            });
            let _ = left.await;
        };
        self.left.get_or_init(leave).await;
    }
}

/// Removes all that is mounted at a folder and below it.
pub(super) fn unmount(folder: &Path) -> nix::Result<()> {
    loop {
        match umount2(folder, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // There may be another beneath it.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
