//! What programs that are executed inherit.

use std::io;

use nix::libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, c_uint, syscall};

/// Has no program that this process executes inherit what is open here above the standard streams: its own descriptors, and
/// what whoever started containerd may have left open.
///
/// # Errors
/// The kernel is older than Linux 5.11.
pub(crate) fn close_on_execution() -> io::Result<()> {
    let (first, last, flags): (c_uint, c_uint, c_uint) = (3, c_uint::MAX, CLOSE_RANGE_CLOEXEC);
    // SAFETY: the call takes three numbers; with this flag it closes nothing, and every descriptor stays its owner's.
    #[expect(unsafe_code, reason = "see above")]
    let done = unsafe { syscall(SYS_close_range, first, last, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
