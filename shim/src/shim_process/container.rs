//! A container, as the shim knows it: its process, its streams, its state, and what must go when it goes.

mod resources;

use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, bail};
use command_fds::{CommandFdExt as _, FdMapping};
use containerd_shim::asynchronous::monitor::{Subscription, monitor_subscribe, monitor_unsubscribe};
use containerd_shim::monitor::{Subject, Topic};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use time::OffsetDateTime;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::cgroup::Cgroup;
use super::stdio::{self, KeptStreams};
use super::task_state::{Exit, Refused, Request, TaskState};
use crate::protocol::{
    self, CONTROL_FD, CreateContainer, FromGuestHost, STDIO_FDS, ToGuestHost, receive_message, send_message,
};

/// The name of the file in the bundle that holds the pid, for whoever cleans up behind a dead shim.
const PID_FILE: &str = "init.pid";

/// Names of the standard streams in a create request.
pub(super) struct StreamNames {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

pub(super) struct Container {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) pid: i32,
    pub(super) streams: StreamNames,
    control: AsyncFd<OwnedFd>,
    kept: Mutex<KeptStreams>,
    state: watch::Sender<TaskState>,
    cgroup: Cgroup,
    /// What was used in the end, where the cgroup goes with the last process.
    last_metrics: OnceLock<Any>,
    /// Held while a step of the container's life is taken and published, so that events come in order.
    pub(super) step: tokio::sync::Mutex<()>,
}

/// The exits of this process's children from now on.
pub(super) struct Exits(Subscription);

impl Exits {
    async fn watch() -> anyhow::Result<Self> {
        Ok(Self(monitor_subscribe(Topic::Pid).await?))
    }

    /// Waits until `pid` has ended.
    pub(super) async fn of(mut self, pid: i32) -> Exit {
        let mut status = 255;
        while let Some(event) = self.0.rx.recv().await {
            if matches!(event.subject, Subject::Pid(ended) if ended == pid) {
                status = event.exit_code.cast_unsigned();
                break;
            }
        }
        let _ = monitor_unsubscribe(self.0.id).await;
        Exit { status, at: OffsetDateTime::now_utc() }
    }
}

impl Container {
    /// Has a guest host make the container and waits until it is ready to start. The caller waits for its exit.
    ///
    /// # Errors
    /// The guest host's reason; nothing of the container is left then but its bundle.
    pub(super) async fn create(
        request: CreateContainer,
        streams: StreamNames,
        log_level: &str,
    ) -> anyhow::Result<(Self, Exits)> {
        let (guest_streams, kept) = stdio::open(&streams.stdin, &streams.stdout, &streams.stderr)?;
        let (id, bundle) = (request.id.clone(), request.bundle.clone());
        let cgroup = Cgroup::of(&Spec::load(bundle.join("config.json"))?, &id)?;
        // Before the process exists: it may be gone before its pid is known.
        let exits = Exits::watch().await?;
        let (control, theirs) = protocol::pair()?;
        let guest_host = match &request.operator.guest_host {
            Some(program) => program.clone(),
            None => env::current_exe()?.with_file_name("dapr-guest-host"),
        };
        let [stdin, stdout, stderr] = STDIO_FDS;
        let mut command = Command::new(&guest_host);
        command
            .args(["create", log_level])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_of(&bundle))
            .fd_mappings(vec![
                FdMapping { parent_fd: theirs, child_fd: CONTROL_FD },
                FdMapping { parent_fd: guest_streams.stdin, child_fd: stdin },
                FdMapping { parent_fd: guest_streams.stdout, child_fd: stdout },
                FdMapping { parent_fd: guest_streams.stderr, child_fd: stderr },
            ])?;
        command.spawn().with_context(|| format!("cannot start {}", guest_host.display()))?;
        // The mapped descriptors are the child's alone from here on: the socket ends when the child does.
        drop(command);
        rustix::io::ioctl_fionbio(&control, true)?;
        // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as it lives.
        #[expect(unsafe_code, reason = "see above")]
        let control = unsafe { AsyncFd::register(control) }?;
        send_message(control.get_ref(), &ToGuestHost::Create(Box::new(request)))?;
        let pid = match await_creation(&control).await {
            Ok(pid) => pid,
            Err(error) => {
                Leftovers::of(&bundle).remove();
                return Err(error);
            }
        };
        fs::write(bundle.join(PID_FILE), pid.to_string())?;
        let container = Self {
            id,
            bundle,
            pid,
            streams,
            control,
            kept: Mutex::new(kept),
            state: watch::Sender::new(TaskState::Created),
            cgroup,
            last_metrics: OnceLock::new(),
            step: tokio::sync::Mutex::default(),
        };
        Ok((container, exits))
    }

    pub(super) fn state(&self) -> TaskState {
        *self.state.borrow()
    }

    /// Starts the guest, and waits until its trigger is at work.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        self.state().allows(Request::Start)?;
        send_message(self.control.get_ref(), &ToGuestHost::Start).context("the container's process is gone")?;
        match receive(&self.control).await? {
            // A native program closes the socket when it is executed.
            Some(FromGuestHost::Started) | None => {}
            Some(FromGuestHost::Failed { message }) => bail!(message),
            Some(message) => bail!("the guest host answered a start with {message:?}"),
        }
        self.advance(TaskState::Created, TaskState::Running);
        Ok(())
    }

    /// Sends a signal to the container's process, or to everything in the container.
    pub(super) fn kill(&self, signal: Signal, all: bool) -> anyhow::Result<()> {
        self.state().allows(Request::Kill)?;
        if all {
            self.cgroup.kill(signal);
        } else {
            match kill(Pid::from_raw(self.pid), signal) {
                // It ended, and its exit is on the way.
                Err(nix::Error::ESRCH) => return Err(Refused::AlreadyFinished.into()),
                result => result?,
            }
        }
        if signal == Signal::SIGKILL && self.state() == TaskState::Paused {
            // On cgroup v1, who is frozen does not die.
            self.cgroup.thaw()?;
        }
        Ok(())
    }

    /// Notes that the process has ended: nothing more will be written.
    pub(super) fn has_exited(&self, exit: Exit) {
        self.state.send_replace(TaskState::Stopped(exit));
    }

    /// Waits until the process has ended.
    pub(super) async fn wait(&self) -> Option<Exit> {
        let mut state = self.state.subscribe();
        let stopped = state.wait_for(|state| state.exit().is_some()).await;
        stopped.ok().and_then(|state| state.exit())
    }

    /// Removes what the container had beside its bundle.
    pub(super) async fn delete(&self) -> anyhow::Result<Exit> {
        self.state().allows(Request::Delete)?;
        if self.state() == TaskState::Created {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        let exit = self.wait().await.context("the container's exit is lost")?;
        Leftovers::of(&self.bundle).remove();
        Ok(exit)
    }

    pub(super) fn close_stdin(&self) {
        self.kept().close_stdin();
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.cgroup.pids().into_iter().map(|pid| pid.as_raw().cast_unsigned()).collect()
    }

    fn kept(&self) -> MutexGuard<'_, KeptStreams> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the guest host logs to: the FIFO in the bundle of the sandbox, which is this process's working directory.
fn log_of(bundle: &Path) -> Stdio {
    let open = |path: &Path| fs::File::options().write(true).open(path);
    open(Path::new("log")).or_else(|_| open(&bundle.join("log"))).map_or_else(|_| Stdio::null(), Stdio::from)
}

async fn receive(control: &AsyncFd<OwnedFd>) -> anyhow::Result<Option<FromGuestHost>> {
    Ok(control.async_io(Interest::READABLE, receive_message).await?)
}

/// Both answers must come: the container's pid from the process that made it, and readiness from the container's own.
async fn await_creation(control: &AsyncFd<OwnedFd>) -> anyhow::Result<i32> {
    let (mut pid, mut ready) = (None, false);
    loop {
        match receive(control).await? {
            Some(FromGuestHost::Created { pid: created }) => pid = Some(created),
            Some(FromGuestHost::Ready) => ready = true,
            Some(FromGuestHost::Failed { message }) => bail!(message),
            Some(FromGuestHost::Started) => bail!("the guest host started a container that was only created"),
            None => bail!("the guest host ended before the container was ready; its log is in containerd's"),
        }
        if let (Some(pid), true) = (pid, ready) {
            return Ok(pid);
        }
    }
}

/// What a container may have left outside its bundle: processes, a cgroup, a mounted root.
pub(super) struct Leftovers<'a> {
    bundle: &'a Path,
}

impl<'a> Leftovers<'a> {
    pub(super) fn of(bundle: &'a Path) -> Self {
        Self { bundle }
    }

    /// Removes all of it, as far as it is there, and answers the pid that the container had, or 0. Trouble is
    /// logged: there is nobody left who could do better.
    pub(super) fn remove(&self) -> u32 {
        let pid = fs::read_to_string(self.bundle.join(PID_FILE)).ok().and_then(|pid| pid.parse().ok());
        let id = self.bundle.file_name().unwrap_or_default().to_string_lossy();
        let spec = Spec::load(self.bundle.join("config.json"));
        let cgroup = spec.map_err(anyhow::Error::from).and_then(|spec| Cgroup::of(&spec, &id));
        if let Err(error) = cgroup.and_then(|cgroup| cgroup.remove()) {
            tracing::warn!(container.id = %id, error = format!("{error:#}"), "cannot clean up the cgroup");
        }
        let rootfs = self.bundle.join("rootfs");
        if let Some(rootfs) = rootfs.to_str()
            && let Err(error) = containerd_shim::mount::umount_recursive(Some(rootfs), 0)
        {
            tracing::warn!(container.id = %id, %error, "cannot unmount the container's root");
        }
        let _ = fs::remove_dir_all(self.bundle.join("libcontainer"));
        pid.unwrap_or(0)
    }
}
