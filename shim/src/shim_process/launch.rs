//! Starting a guest host, and speaking with it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::fstat;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use super::signal::Signal;
use super::stdio::{self, GuestStreams};
use crate::operator_config::OperatorConfig;
use crate::protocol::{self, FromGuestHost, Job, ToGuestHost, receive_with_descriptors, send_message};
use crate::read_only;

/// A process that waits in the kernel does not die before that is over.
const DEATH_PATIENCE: Duration = Duration::from_secs(4);

/// The longest between two looks for what a guest host has cloned: each is at all processes of the node.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// A message, and a descriptor that came with it.
type Message = (FromGuestHost, Option<OwnedFd>);

/// The reason not to do what was asked for, which its author can mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Declined(pub(super) String);

/// A guest host, and what it has cloned so far.
pub(super) struct GuestHost {
    control: Control,
    pid: Pid,
    /// Its pidfd: it can be read from once the process has ended.
    process: AsyncFd<OwnedFd>,
    /// The inode of the other end of the control socket, by which the clones are known.
    socket: u64,
}

impl GuestHost {
    /// Executes a guest host, for the container of a bundle, and sends it its request. For one more process,
    /// `container` is a pidfd of the container's first.
    pub(super) fn launch(
        operator: &OperatorConfig,
        bundle: &Path,
        debug: bool,
        job: &Job,
        streams: &GuestStreams,
        container: Option<BorrowedFd<'_>>,
    ) -> anyhow::Result<Self> {
        let (control, theirs) = protocol::pair()?;
        let socket = fstat(&theirs)?.st_ino;
        let guest_host = operator.guest_host_program()?;
        let cannot_start = || format!("cannot start {}", guest_host.display());
        let program = read_only::mount(&guest_host).with_context(cannot_start)?;
        // Nothing that would have the standard library clone this process instead of just executing the other.
        let child = Command::new(read_only::path_of(&program))
            .arg0(&guest_host)
            .args(["serve", if debug { "debug" } else { "info" }])
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(log_of(bundle))
            .spawn()
            .with_context(cannot_start)?;
        // No other has its pid: whoever reaps has had no turn since.
        let pid = Pid::from_child(&child);
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        rustix::io::ioctl_fionbio(&control, true)?;
        // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as it lives.
        #[expect(unsafe_code, reason = "see above")]
        let (control, process) =
            unsafe { (AsyncFd::register(control)?, AsyncFd::register_with_interest(process, Interest::READABLE)?) };
        // At last: without a job it ends when this process gives up. The socket, which is empty, has room for it.
        let GuestStreams { stdin, stdout, stderr } = streams;
        protocol::send_job(control.get_ref(), job, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], container)
            .context("the guest host ended before it knew what for; its log is in containerd's")?;
        Ok(Self { control: Control(control), pid, process, socket })
    }

    /// The next message, as [`Control::receive`], as long as it has not said that it made the process: until then its end is
    /// the end of it all, though a clone may go on and wait for it, with the socket open.
    pub(super) async fn answer(&self) -> anyhow::Result<Option<Message>> {
        tokio::select! {
            biased;
            message = self.control.receive() => message,
            () = self.has_ended() => match receive_with_descriptors(self.control.0.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    bail!(
                        "the guest host ended before it had made the process, perhaps for want of memory; its log is in containerd's"
                    )
                }
                message => told(message?),
            },
        }
    }

    /// Gives up: ends it, what it has executed, such as hooks, and what it has cloned, and waits for the ends of all but the
    /// second.
    pub(super) async fn end(&self) {
        let deadline = Instant::now() + DEATH_PATIENCE;
        let children = children_of(self.pid);
        // It may have ended by itself, and another have its pid.
        let was_there = pidfd_send_signal(self.process.get_ref(), rustix::process::Signal::KILL).is_ok();
        let _ = timeout_at(deadline, self.has_ended()).await;
        for child in children.iter().filter(|_| was_there) {
            let _ = pidfd_send_signal(child, rustix::process::Signal::KILL);
        }
        let mut pause = Duration::from_millis(1);
        // A clone may have cloned another meanwhile.
        while !self.control.is_closed() {
            if Instant::now() >= deadline {
                tracing::warn!("a process that a guest host was to make does not end");
                return;
            }
            for pid in children_with_socket(self.socket) {
                let _ = Signal::KILL.send(pid);
            }
            sleep(pause).await;
            pause = MAX_PAUSE.min(pause * 2);
        }
    }

    /// The connection, which is the container's process's from now on.
    pub(super) fn into_control(self) -> Control {
        self.control
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    /// Waits for its end, which follows once it has said that it made the process. Until then it may be in the container's cgroup.
    pub(super) async fn has_ended(&self) {
        // It stays readable, as this takes nothing from it.
        let _ = self.process.readable().await;
    }
}

/// The shim's end of the socket to a guest host.
pub(super) struct Control(AsyncFd<OwnedFd>);

impl Control {
    pub(super) fn send(&self, message: &ToGuestHost) -> anyhow::Result<()> {
        send_message(self.0.get_ref(), message).context("the container's process is gone")
    }

    /// The next message but a failure, which is an error here; `None` when the process has closed the socket.
    pub(super) async fn receive(&self) -> anyhow::Result<Option<Message>> {
        told(self.0.async_io(Interest::READABLE, receive_with_descriptors).await?)
    }

    /// Whether everyone at the other end has gone; what was said before is thrown away.
    fn is_closed(&self) -> bool {
        loop {
            match receive_with_descriptors::<FromGuestHost>(self.0.get_ref()) {
                Ok(None) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }
}

fn told(message: Option<(FromGuestHost, Vec<OwnedFd>)>) -> anyhow::Result<Option<Message>> {
    match message {
        Some((FromGuestHost::Failed { message }, _)) => bail!(Declined(message)),
        message => Ok(message.map(|(message, descriptors)| (message, descriptors.into_iter().next()))),
    }
}

/// The children of this process that have this socket open. A guest host's clones are: made as its siblings, or left by it.
fn children_with_socket(inode: u64) -> impl Iterator<Item = i32> {
    let name = format!("socket:[{inode}]");
    let has_it = move |pid: &i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| link == Path::new(&name))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(process::id())).filter(has_it)
}

/// The pidfds of a process's children, those of its first thread.
fn children_of(parent: Pid) -> Vec<OwnedFd> {
    let parent = parent.as_raw_nonzero().get();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let open = |pid| {
        let child = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // It may have ended before, and another have its pid.
        (parent_of(pid) == Some(parent.cast_unsigned())).then_some(child)
    };
    children.split_whitespace().filter_map(|pid| open(pid.parse().ok()?)).collect()
}

/// Whether a process that a guest host names is one that it can have made: a child of this one, or one that was and has ended.
pub(super) fn can_be_a_clone(pid: i32) -> bool {
    pid > 0 && parent_of(pid).is_none_or(|parent| parent == process::id())
}

fn parent_of(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold any others.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// Where the guest host logs to: the FIFO in the bundle of the sandbox, which is this process's working directory.
fn log_of(bundle: &Path) -> Stdio {
    let log = stdio::open_log(Path::new("log")).or_else(|_| stdio::open_log(&bundle.join("log")));
    log.map_or_else(|_| Stdio::null(), Stdio::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_children_of_a_process_are_found() {
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 60 > /dev/null & echo; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        parent.stdout.take().expect("its output").read_exact(&mut [0]).expect("its line");
        let children = children_of(Pid::from_child(&parent));
        assert!(can_be_a_clone(parent.id().cast_signed()));
        assert!(![0, -1, 1].into_iter().any(can_be_a_clone));
        for child in &children {
            pidfd_send_signal(child, rustix::process::Signal::KILL).expect("it sleeps");
        }
        drop(parent.stdin.take());
        parent.wait().expect("its end");
        assert_eq!(children.len(), 1);
    }
}
