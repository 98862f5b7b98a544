//! A program that the processes which execute it cannot change.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc::{
    AT_EMPTY_PATH, AT_FDCWD, MOUNT_ATTR_RDONLY, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, SYS_mount_setattr, SYS_open_tree,
    mount_attr, syscall,
};

/// A program's file on a mount of its own that is read-only and goes with the last who uses it. Whoever has a container's
/// root finds this file as the executed one of the container's first process (`/proc/1/exe`), and the node executes
/// it as root: opened there, it must not be written to (CVE-2019-5736).
///
/// # Errors
/// There is no such file, or the kernel is older than Linux 5.12.
pub(super) fn open(program: &Path) -> io::Result<OwnedFd> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let mount = clone_mount(&program)?;
    set_read_only(&mount)?;
    Ok(mount)
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
