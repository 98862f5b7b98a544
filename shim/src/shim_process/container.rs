//! A container, as the shim knows it: its processes, and what must go when it goes.

mod mounts;
mod resources;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::oci::ProcessDetails;
use containerd_shim::protos::types::task::ProcessInfo;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::cgroup::{Cgroup, expect_move};
use super::launch::{Control, GuestHost, can_be_a_clone};
use super::poststop::Poststop;
use super::process::{Exits, OpenStreams, Process};
use super::signal::Signal;
use super::spec::Spec;
use super::stdio::{self, StreamNames};
use super::task_state::{Refused, Request, TaskState};
use crate::operator_config::OperatorConfig;
use crate::protocol::{CreateContainer, ExecProcess, FromGuestHost, Job, STATE_FOLDER, ToGuestHost};
use mounts::{Mounts, unmount};

/// The name of the file in the bundle that holds the pid, for whoever cleans up behind a dead shim.
const PID_FILE: &str = "init.pid";

pub(super) struct Container {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// Its first process.
    pub(super) init: Arc<Process>,
    /// Its pidfd.
    init_handle: OwnedFd,
    control: Control,
    operator: OperatorConfig,
    debug: bool,
    /// The end of its first process is the end of them all.
    has_pid_namespace: bool,
    execs: Mutex<HashMap<String, Exec>>,
    cgroup: Cgroup,
    poststop: Poststop,
    /// Its first process was sent SIGKILL.
    is_killed: AtomicBool,
    mounts: Mounts,
    /// The last figures that were read: the cgroup may go with the last process.
    last_metrics: Mutex<Option<Any>>,
}

/// One more process, which may not have been started yet.
#[derive(Clone)]
struct Exec {
    process: Arc<Process>,
    spec: Value,
}

/// What one more process was refused for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecRefused {
    #[error("process {0:?} exists already")]
    Exists(String),
    #[error(transparent)]
    State(#[from] Refused),
}

impl Container {
    /// Has a guest host make the container and waits until it is ready to start. The caller waits for its exit.
    ///
    /// # Errors
    /// The reason: the guest host's, that others run in the container's cgroup, or that it was cancelled. Nothing of the
    /// container is left then but its bundle.
    pub(super) async fn create(
        request: CreateContainer,
        names: StreamNames,
        debug: bool,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<(Self, Exits)> {
        let (guest_streams, kept) = stdio::open(&names)?;
        let (id, bundle, operator) = (request.id.clone(), request.bundle.clone(), request.operator.clone());
        // Before there is anything to clean up: whoever does, ends all that runs in the cgroup.
        let spec = Spec::of(&bundle)?;
        let cgroup = Cgroup::of(&spec, &id)?;
        // Most others begin in their cgroup.
        if cgroup.is_systemds() || spec.has_hooks_of_the_guest_host() {
            expect_move();
        }
        cgroup.ensure_unused()?;
        let poststop = Poststop::of(&spec, &id, &bundle);
        // Before the process exists: it may be gone before its pid is known.
        let exits = Exits::watch().await?;
        fs::create_dir(bundle.join(STATE_FOLDER))?;
        let job = Job::Create(Box::new(request));
        let guest_host = match GuestHost::launch(&operator, &bundle, debug, &job, &guest_streams, None) {
            Ok(guest_host) => guest_host,
            Err(error) => {
                remove_uncreated(&id, &bundle, &cgroup, &poststop).await;
                return Err(error);
            }
        };
        // Each is at its end when the container is.
        drop(guest_streams);
        let created = async {
            let (pid, terminal) = await_creation(&guest_host).await?;
            guest_host.has_ended().await;
            let handle = handle_of(pid).context("the container's process has ended")?;
            fs::write(bundle.join(PID_FILE), pid.to_string())?;
            Ok((pid, handle, OpenStreams::of(terminal, kept, &names)?))
        };
        let created = cancelled.run_until_cancelled(created).await;
        let (pid, init_handle, streams) = match created.unwrap_or_else(|| Err(anyhow!("the create was cancelled"))) {
            Ok(created) => created,
            Err(error) => {
                guest_host.end().await;
                remove_uncreated(&id, &bundle, &cgroup, &poststop).await;
                return Err(error);
            }
        };
        let init = Arc::new(Process::new(String::new(), names));
        init.exists(pid, streams);
        let has_pid_namespace = spec.has_own_pid_namespace();
        let mounts = Mounts::of(pid, &bundle);
        let container = Self {
            id,
            bundle,
            init,
            init_handle,
            control: guest_host.into_control(),
            operator,
            debug,
            has_pid_namespace,
            execs: Mutex::default(),
            cgroup,
            poststop,
            is_killed: AtomicBool::new(false),
            mounts,
            last_metrics: Mutex::default(),
        };
        Ok((container, exits))
    }

    /// Starts the guest, and waits until its trigger is at work.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        self.init.state().allows(Request::Start)?;
        self.control.send(&ToGuestHost::Start)?;
        match self.control.receive().await? {
            // A native program closes the socket when it is executed.
            Some((FromGuestHost::Started, _)) | None => {}
            Some((message, _)) => bail!("the guest host answered a start with {message:?}"),
        }
        self.init.has_started();
        Ok(())
    }

    /// Notes that one more process is wanted. It does not exist before it is started.
    pub(super) fn add_exec(&self, exec_id: &str, spec: Value, names: StreamNames) -> Result<(), ExecRefused> {
        self.init.state().allows(Request::Exec)?;
        let mut execs = self.execs();
        if execs.contains_key(exec_id) {
            return Err(ExecRefused::Exists(exec_id.to_owned()));
        }
        let process = Arc::new(Process::new(exec_id.to_owned(), names));
        execs.insert(exec_id.to_owned(), Exec { process, spec });
        Ok(())
    }

    /// Starts one more process. The caller waits for its exit.
    pub(super) async fn start_exec(&self, process: &Process) -> anyhow::Result<Exits> {
        process.state().allows(Request::Start)?;
        self.init.state().allows(Request::Exec)?;
        let spec = self.execs().get(&process.exec_id).map(|exec| exec.spec.clone()).context("the process is gone")?;
        let (guest_streams, kept) = stdio::open(&process.streams)?;
        let exits = Exits::watch().await?;
        let job = Job::Exec(Box::new(ExecProcess {
            container_id: self.id.clone(),
            bundle: self.bundle.clone(),
            container_pid: self.init.pid(),
            process: spec,
            operator: self.operator.clone(),
        }));
        let container = Some(self.init_handle.as_fd());
        let guest_host = GuestHost::launch(&self.operator, &self.bundle, self.debug, &job, &guest_streams, container)?;
        drop(guest_streams);
        let created = match self.init.is_gone.run_until_cancelled(guest_host.answer()).await {
            Some(answer) => answer.and_then(created_process),
            None => Err(anyhow!("the container has ended")),
        };
        let (pid, terminal) = match created {
            Ok(created) => created,
            Err(error) => {
                guest_host.end().await;
                return Err(error);
            }
        };
        guest_host.has_ended().await;
        let streams = OpenStreams::of(terminal, kept, &process.streams).inspect_err(|_| {
            // Without its terminal, it is of no use.
            let _ = Signal::KILL.send(pid);
        })?;
        process.exists(pid, streams);
        process.has_started();
        Ok(exits)
    }

    /// A process by its exec id; the first for an empty one.
    pub(super) fn process(&self, exec_id: &str) -> Option<Arc<Process>> {
        if exec_id.is_empty() {
            return Some(Arc::clone(&self.init));
        }
        self.execs().get(exec_id).map(|exec| Arc::clone(&exec.process))
    }

    /// Sends a signal to everything in the container.
    pub(super) fn kill_all(&self, signal: Signal) -> anyhow::Result<()> {
        self.init.state().allows(Request::Kill)?;
        self.cgroup.kill(signal);
        Ok(())
    }

    /// To be called when the first process has ended: has all others end, and waits until they have and that was
    /// published. Those that were not started will not be.
    pub(super) async fn end_execs(&self) {
        let execs: Vec<_> = self.execs().values().map(|exec| Arc::clone(&exec.process)).collect();
        self.kill_what_is_left();
        for process in execs {
            // Its start may be on the way.
            let step = process.step.lock().await;
            process.is_not_to_run();
            drop(step);
            self.kill_what_is_left();
            if process.state() == TaskState::Running {
                process.wait().await;
                drop(process.step.lock().await);
            }
        }
    }

    /// In a pid namespace of its own, the kernel does.
    fn kill_what_is_left(&self) {
        if !self.has_pid_namespace {
            self.cgroup.kill(Signal::KILL);
        }
    }

    /// To be called once the end of the first process is known to all who wait for it.
    pub(super) async fn leave_mounts(&self) {
        self.mounts.leave().await;
    }

    /// Removes what the container had beside its bundle.
    ///
    /// # Errors
    /// It runs, or something of it cannot be removed: a further call tries that again.
    pub(super) async fn delete(&self) -> anyhow::Result<()> {
        let state = self.init.state();
        state.allows(Request::Delete)?;
        if state == TaskState::Created {
            // It may have ended by itself, and another may have its pid.
            let _ = pidfd_send_signal(&self.init_handle, rustix::process::Signal::KILL);
        }
        self.init.wait().await.context("the container's exit is lost")?;
        // Of two deletions at once, the second finds nothing left.
        let _step = self.init.step.lock().await;
        // One may have been added since the end of the first process.
        self.execs().values().for_each(|exec| exec.process.is_not_to_run());
        self.leave_mounts().await;
        remove_all(&self.bundle, self.cgroup.remove(), &self.poststop)
            .await
            .context("cannot clean up behind the container")
    }

    /// Forgets one more process, which must not run, nor be about to.
    pub(super) async fn delete_exec(&self, process: &Process) -> anyhow::Result<()> {
        let _step = process.step.lock().await;
        process.state().allows(Request::Delete)?;
        process.is_not_to_run();
        self.execs().remove(&process.exec_id);
        Ok(())
    }

    /// Everything that runs in it, with the exec ids of what was started by one; when nothing does, its first process:
    /// a container without processes was never created, to a containerd (1.7 and later) that starts again, and is
    /// removed with its exit code.
    pub(super) fn processes(&self) -> anyhow::Result<Vec<ProcessInfo>> {
        let execs = self.execs().clone();
        let exec_of = |pid| {
            let mut running = execs.values().filter(|exec| exec.process.state() == TaskState::Running);
            running.find(|exec| exec.process.pid() == pid)
        };
        let info = |pid: Pid| {
            let details = exec_of(pid.as_raw()).map(|exec| process_details(&exec.process.exec_id)).transpose()?;
            let pid = pid.as_raw().cast_unsigned();
            Ok(ProcessInfo { pid, info: details.into(), ..ProcessInfo::default() })
        };
        let mut pids = self.cgroup.pids();
        if pids.is_empty() {
            pids.push(Pid::from_raw(self.init.pid()));
        }
        pids.into_iter().map(info).collect()
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Exec>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What runc's shim says of a process beside its pid: `ProcessDetails` of containerd's `runc/options/oci.proto`.
fn process_details(exec_id: &str) -> anyhow::Result<Any> {
    let details = ProcessDetails { exec_id: exec_id.to_owned(), ..ProcessDetails::default() };
    let value = details.write_to_bytes().context("an exec id that does not fit containerd's message")?;
    Ok(Any { type_url: "containerd.runc.v1.ProcessDetails".to_owned(), value, ..Any::default() })
}

/// Both answers must come: the container's pid from the process that made it, and readiness from the container's own.
async fn await_creation(guest_host: &GuestHost) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    let (mut created, mut ready) = (None, false);
    loop {
        let message =
            if created.is_none() { guest_host.answer().await? } else { guest_host.control().receive().await? };
        match message {
            Some((FromGuestHost::Created { pid }, terminal)) if created.is_none() && can_be_a_clone(pid) => {
                created = Some((pid, terminal));
            }
            Some((FromGuestHost::Ready, _)) => ready = true,
            Some((message, _)) => bail!("the guest host answered a create with {message:?}"),
            None => bail!("the guest host ended before the container was ready; its log is in containerd's"),
        }
        if ready && let Some(created) = created.take() {
            return Ok(created);
        }
    }
}

/// What the answer to an exec says of the new process.
fn created_process(answer: Option<(FromGuestHost, Option<OwnedFd>)>) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    match answer {
        Some((FromGuestHost::Created { pid }, terminal)) if can_be_a_clone(pid) => Ok((pid, terminal)),
        Some((message, _)) => bail!("the guest host answered an exec with {message:?}"),
        None => bail!("the guest host ended before the process ran; its log is in containerd's"),
    }
}

/// A process, whatever may have its pid once it has ended.
fn handle_of(pid: i32) -> anyhow::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).context("the guest host named no process")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Removes what a container has outside its bundle, as far as it is there; `cgroup` removes its cgroup. Its hooks run
/// when these are gone.
async fn remove_all(
    bundle: &Path,
    cgroup: impl Future<Output = anyhow::Result<()>>,
    poststop: &Poststop,
) -> anyhow::Result<()> {
    let state = bundle.join(STATE_FOLDER);
    if !state.exists() {
        return Ok(());
    }
    // One must not keep the other from being tried.
    let (cgroup, root) = (cgroup.await, unmount(&bundle.join("rootfs")));
    cgroup?;
    root.context("cannot unmount the container's root")?;
    poststop.run().await;
    match fs::remove_dir_all(state) {
        // Another has done the same meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => Ok(result?),
    }
}

/// Removes what there is of a container whose creation failed. The reason of that is what matters to the caller.
async fn remove_uncreated(id: &str, bundle: &Path, cgroup: &Cgroup, poststop: &Poststop) {
    if let Err(error) = remove_all(bundle, cgroup.remove(), poststop).await {
        log_leftovers(id, &error);
    }
}

fn log_leftovers(id: &str, error: &anyhow::Error) {
    tracing::warn!(container.id = %id, error = format!("{error:#}"), "cannot clean up behind the container");
}

/// What a container may have left outside its bundle: processes, a cgroup, a mounted root.
pub(super) struct Leftovers<'a> {
    bundle: &'a Path,
}

impl<'a> Leftovers<'a> {
    /// None once they were removed, nor before there can be any.
    pub(super) fn of(bundle: &'a Path) -> Option<Self> {
        bundle.join(STATE_FOLDER).exists().then_some(Self { bundle })
    }

    /// Removes all of it, as far as it is there, and answers the pid that the container had, or 0. Trouble is
    /// logged: there is nobody left who could do better.
    pub(super) async fn remove(&self) -> u32 {
        let pid = fs::read_to_string(self.bundle.join(PID_FILE)).ok().and_then(|pid| pid.parse().ok());
        let (id, spec) = (self.id(), Spec::of(self.bundle));
        let poststop = spec.as_ref().map(|spec| Poststop::of(spec, &id, self.bundle)).unwrap_or_default();
        let cgroup = async { Cgroup::of(&spec?, &id)?.remove().await };
        if let Err(error) = remove_all(self.bundle, cgroup, &poststop).await {
            log_leftovers(&id, &error);
        }
        pid.unwrap_or(0)
    }

    fn id(&self) -> Cow<'a, str> {
        self.bundle.file_name().unwrap_or_default().to_string_lossy()
    }
}
