//! Starting a guest host, and speaking with it.

use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use command_fds::{CommandFdExt as _, FdMapping};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stdio::GuestStreams;
use crate::operator_config::OperatorConfig;
use crate::protocol::{self, CONTROL_FD, FromGuestHost, STDIO_FDS, ToGuestHost, receive_with_descriptor, send_message};

/// The shim's end of the socket to a guest host.
pub(super) struct Control(AsyncFd<OwnedFd>);

impl Control {
    /// Executes a guest host for the container of a bundle.
    pub(super) fn launch(
        operator: &OperatorConfig,
        bundle: &Path,
        debug: bool,
        streams: GuestStreams,
    ) -> anyhow::Result<Self> {
        let (control, theirs) = protocol::pair()?;
        let guest_host = match &operator.guest_host {
            Some(program) => program.clone(),
            None => env::current_exe()?.with_file_name("dapr-guest-host"),
        };
        let [stdin, stdout, stderr] = STDIO_FDS;
        let mut command = Command::new(&guest_host);
        command
            .args(["serve", if debug { "debug" } else { "info" }])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_of(bundle))
            .fd_mappings(vec![
                FdMapping { parent_fd: theirs, child_fd: CONTROL_FD },
                FdMapping { parent_fd: streams.stdin, child_fd: stdin },
                FdMapping { parent_fd: streams.stdout, child_fd: stdout },
                FdMapping { parent_fd: streams.stderr, child_fd: stderr },
            ])?;
        command.spawn().with_context(|| format!("cannot start {}", guest_host.display()))?;
        // The mapped descriptors are the child's alone from here on: the socket ends when the child does.
        drop(command);
        rustix::io::ioctl_fionbio(&control, true)?;
        // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as it lives.
        #[expect(unsafe_code, reason = "see above")]
        Ok(Self(unsafe { AsyncFd::register(control) }?))
    }

    pub(super) fn send(&self, message: &ToGuestHost) -> anyhow::Result<()> {
        send_message(self.0.get_ref(), message).context("the container's process is gone")
    }

    /// The next message but a failure, which is an error here; `None` when the process has closed the socket.
    pub(super) async fn receive(&self) -> anyhow::Result<Option<(FromGuestHost, Option<OwnedFd>)>> {
        match self.0.async_io(Interest::READABLE, receive_with_descriptor).await? {
            Some((FromGuestHost::Failed { message }, _)) => bail!(message),
            message => Ok(message),
        }
    }
}

/// Where the guest host logs to: the FIFO in the bundle of the sandbox, which is this process's working directory.
fn log_of(bundle: &Path) -> Stdio {
    let open = |path: &Path| fs::File::options().write(true).open(path);
    open(Path::new("log")).or_else(|_| open(&bundle.join("log"))).map_or_else(|_| Stdio::null(), Stdio::from)
}
