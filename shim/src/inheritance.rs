//! What programs that are executed inherit, and that they end with who executed them.

use std::io;

use anyhow::ensure;
use nix::libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, c_uint, syscall};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

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

/// Has this process, and not its clones, killed when its parent ends, unless it becomes another user.
///
/// # Errors
/// The parent has ended before.
pub(crate) fn end_with(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure!(getppid() == Pid::from_raw(parent), "the parent has ended");
    Ok(())
}
