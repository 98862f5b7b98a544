//! Descriptors of a process that is cloned into a container, and that no execution closes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use libc::{O_CLOEXEC, SYS_close_range, c_uint, dup3, syscall};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags, open};

const FIRST: RawFd = 3;

/// Closes all but the standard streams: what whoever started containerd may have left open. For the beginning of a
/// process, when it has opened nothing itself.
pub(super) fn close_inherited() -> io::Result<()> {
    let (first, last, flags): (c_uint, c_uint, c_uint) = (FIRST.unsigned_abs(), c_uint::MAX, 0);
    // SAFETY: nothing in this process owns any of these descriptors yet.
    #[expect(unsafe_code, reason = "see above")]
    let closed = unsafe { syscall(SYS_close_range, first, last, flags) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptors of this process above the standard streams. The container need not have a /proc to ask.
pub(super) fn open_descriptors() -> BTreeSet<RawFd> {
    // The lowest free number is always taken next, and none was inherited: far fewer than these are in use.
    (FIRST..256).filter(|&descriptor| fcntl(descriptor, FcntlArg::F_GETFD).is_ok()).collect()
}

/// Has every descriptor above the standard streams that is not `kept` lead to the container's root, and nowhere else.
/// libcontainer has a folder of the node's `/proc` open, for as long as the process runs: from there, whoever may follow
/// the links in it comes to every file of the node. The numbers stay taken, as whoever has one believes it his own.
pub(super) fn disarm_all_but(kept: &BTreeSet<RawFd>) -> io::Result<()> {
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for descriptor in open_descriptors().difference(kept).filter(|descriptor| **descriptor != root.as_raw_fd()) {
        // SAFETY: the number goes on being an open descriptor, of the same owner.
        #[expect(unsafe_code, reason = "see above")]
        if unsafe { dup3(root.as_raw_fd(), *descriptor, O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
