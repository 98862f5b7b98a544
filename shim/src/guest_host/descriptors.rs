//! Descriptors of a process that is cloned into a container, and that no execution closes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use libc::{O_CLOEXEC, dup3};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags, open};

const FIRST: RawFd = 3;

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
