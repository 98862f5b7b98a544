//! Signals by number: a container's image may ask to be stopped by one of the real-time signals, which have no names.

use nix::errno::Errno;
use nix::libc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal(i32);

impl Signal {
    pub(super) const KILL: Self = Self(libc::SIGKILL);

    /// `None` for what is no signal.
    pub(super) fn new(number: u32) -> Option<Self> {
        i32::try_from(number).ok().filter(|number| (1..=libc::SIGRTMAX()).contains(number)).map(Self)
    }

    /// # Errors
    /// `ESRCH`: there is no such process.
    pub(super) fn send(self, pid: i32) -> nix::Result<()> {
        // SAFETY: the call takes two numbers and touches no memory of this process.
        #[expect(unsafe_code, reason = "see above")]
        Errno::result(unsafe { libc::kill(pid, self.0) }).map(drop)
    }
}
