//! Starting a guest host, and speaking with it.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stdio::GuestStreams;
use crate::operator_config::OperatorConfig;
use crate::protocol::{self, FromGuestHost, Job, ToGuestHost, receive_with_descriptors, send_message};
use crate::read_only;

/// The reason not to do what was asked for, which its author can mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Declined(pub(super) String);

/// The shim's end of the socket to a guest host.
pub(super) struct Control(AsyncFd<OwnedFd>);

impl Control {
    /// Executes a guest host, for the container of a bundle, and sends it its request.
    pub(super) fn launch(
        operator: &OperatorConfig,
        bundle: &Path,
        debug: bool,
        job: &Job,
        streams: &GuestStreams,
    ) -> anyhow::Result<Self> {
        let (control, theirs) = protocol::pair()?;
        let guest_host = protocol::guest_host(operator)?;
        let cannot_start = || format!("cannot start {}", guest_host.display());
        let program = read_only::mount(&guest_host).with_context(cannot_start)?;
        // Nothing that would have the standard library clone this process instead of just executing the other.
        Command::new(read_only::path_of(&program))
            .arg0(&guest_host)
            .args(["serve", if debug { "debug" } else { "info" }])
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(log_of(bundle))
            .spawn()
            .with_context(cannot_start)?;
        let GuestStreams { stdin, stdout, stderr } = streams;
        protocol::send_job(&control, job, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
            .context("the guest host ended before it knew what for; its log is in containerd's")?;
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
        match self.0.async_io(Interest::READABLE, receive_with_descriptors).await? {
            Some((FromGuestHost::Failed { message }, _)) => bail!(Declined(message)),
            message => Ok(message.map(|(message, descriptors)| (message, descriptors.into_iter().next()))),
        }
    }
}

/// Where the guest host logs to: the FIFO in the bundle of the sandbox, which is this process's working directory.
fn log_of(bundle: &Path) -> Stdio {
    let open = |path: &Path| fs::File::options().write(true).open(path);
    open(Path::new("log")).or_else(|_| open(&bundle.join("log"))).map_or_else(|_| Stdio::null(), Stdio::from)
}
