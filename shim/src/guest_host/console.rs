//! The terminal of a process: made inside the container, used outside.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, bail};
use nix::libc::{O_CLOEXEC, O_NOCTTY, O_RDWR, TIOCGPTPEER, ioctl};
use oci_spec::runtime::{Process, Spec};

use super::standard_streams;
use crate::protocol::receive_descriptors;

/// Where libcontainer sends the master of a terminal to.
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// For a process that wants a terminal.
    pub(super) fn of(process: Option<&Process>, bundle: &Path) -> anyhow::Result<Option<Self>> {
        if !process.and_then(Process::terminal).unwrap_or(false) {
            return Ok(None);
        }
        let path = bundle.join(format!("console-{}.sock", process::id()));
        // A socket's address holds 108 bytes, a bundle's path may need more: the folder is named by its descriptor.
        let folder = fs::File::open(bundle)?;
        let name = path.file_name().context("a socket has a name")?;
        let address = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        // A guest host that was killed leaves its own, and another may have its pid.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(address).context("cannot make a socket for the terminal")?;
        Ok(Some(Self { listener, path }))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The terminal's master, once the process exists: it was sent before. Its slave, the standard streams of the process, is
    /// given to the user. libcontainer offers no hook before an exec'd process runs, so it may see the old owner for a moment.
    pub(super) fn terminal(self, process: Option<&Process>, spec: &Spec) -> anyhow::Result<OwnedFd> {
        let master = self.master()?;
        match slave(&master) {
            Ok(slave) => standard_streams::give(&[slave], process, spec),
            Err(error) => tracing::debug!(%error, "a terminal keeps its owner"),
        }
        Ok(master)
    }

    fn master(&self) -> anyhow::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept().context("the container's process sent no terminal")?;
        let Ok([master]) = <[OwnedFd; 1]>::try_from(receive_descriptors(&stream, &mut [])?) else {
            bail!("the container's process sent no terminal");
        };
        Ok(master)
    }
}

/// The other end of a terminal, wherever it is mounted.
fn slave(master: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: the request takes flags and no pointer.
    #[expect(unsafe_code, reason = "see above")]
    let slave = unsafe { ioctl(master.as_raw_fd(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just installed the descriptor in this process, and nothing else knows it.
    #[expect(unsafe_code, reason = "see above")]
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
