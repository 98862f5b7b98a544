//! Files of the node that a container's processes use and cannot change.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{
    AT_EMPTY_PATH, AT_FDCWD, MOUNT_ATTR_RDONLY, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, SYS_mount_setattr, SYS_open_tree,
    mount_attr, syscall,
};

/// A file on a mount of its own that is read-only and goes with the last who uses it. Whoever has a container's root finds
/// what the container's first process executes and has open (`/proc/1/exe`, `/proc/1/fd`): opened there, it must not be
/// written to, since the node executes it as root, or other containers run it (CVE-2019-5736). The descriptor stands for
/// the path, no more: to read from the file, it has to be opened.
///
/// # Errors
/// There is no such file, or the kernel is older than Linux 5.12.
pub(crate) fn mount(file: &Path) -> io::Result<OwnedFd> {
    let file = CString::new(file.as_os_str().as_bytes())?;
    let mount = clone_mount(&file)?;
    set_read_only(&mount)?;
    Ok(mount)
}

/// A path to what a descriptor of this process stands for.
pub(crate) fn path_of(descriptor: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into()
}

fn clone_mount(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the path is a C string that lives through the call.
    #[expect(unsafe_code, reason = "see above")]
    let opened = unsafe { syscall(SYS_open_tree, AT_FDCWD, path.as_ptr(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) };
    let descriptor = RawFd::try_from(opened).ok().filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just installed the descriptor, and nobody else knows it.
    #[expect(unsafe_code, reason = "see above")]
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn set_read_only(mount: &OwnedFd) -> io::Result<()> {
    let attributes = mount_attr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (here, size) = (c"".as_ptr(), size_of::<mount_attr>());
    // SAFETY: the path is a C string, and the structure, of the size that is told, lives through the call.
    #[expect(unsafe_code, reason = "see above")]
    let set =
        unsafe { syscall(SYS_mount_setattr, mount.as_raw_fd(), here, AT_EMPTY_PATH, &raw const attributes, size) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
