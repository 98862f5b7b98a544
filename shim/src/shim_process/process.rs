//! One process of a container: its streams, its state, and how it ends.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context as _;
use containerd_shim::asynchronous::monitor::{Subscription, monitor_subscribe, monitor_unsubscribe};
use containerd_shim::monitor::{Subject, Topic};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::signal::Signal;
use super::stdio::{KeptStreams, StreamNames};
use super::task_state::{Exit, Refused, Request, TaskState};
use super::terminal::Terminal;

pub(super) struct Process {
    /// Of an exec; empty for the container's first process.
    pub(super) exec_id: String,
    pub(super) streams: StreamNames,
    pid: OnceLock<i32>,
    /// None until the process exists.
    open_streams: Mutex<Option<OpenStreams>>,
    /// The input was ended, maybe before the process existed.
    stdin_closed: AtomicBool,
    state: watch::Sender<TaskState>,
    /// The process is gone, though its state may not say so yet.
    pub(super) is_gone: CancellationToken,
    /// Held while a step of the process's life is taken and published, so that events come in order.
    pub(super) step: tokio::sync::Mutex<()>,
}

/// What the shim holds of a process's streams.
pub(super) enum OpenStreams {
    Kept(KeptStreams),
    Terminal(Terminal),
}

impl OpenStreams {
    /// Those of a process that was created; `terminal` is the master of its own.
    pub(super) fn of(terminal: Option<OwnedFd>, kept: KeptStreams, names: &StreamNames) -> anyhow::Result<Self> {
        match terminal {
            Some(master) => Terminal::open(master, names).map(Self::Terminal),
            None => Ok(Self::Kept(kept)),
        }
    }

    fn close_stdin(&mut self) {
        match self {
            Self::Kept(kept) => kept.close_stdin(),
            Self::Terminal(terminal) => terminal.close_input(),
        }
    }
}

/// The exits of this process's children from now on.
pub(super) struct Exits(Subscription);

impl Exits {
    pub(super) async fn watch() -> anyhow::Result<Self> {
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
        Exit { status, at: OffsetDateTime::now_utc() }
    }
}

/// Also of a process that never came to be.
impl Drop for Exits {
    fn drop(&mut self) {
        let id = self.0.id;
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { monitor_unsubscribe(id).await });
        }
    }
}

impl Process {
    /// A process that does not exist yet.
    pub(super) fn new(exec_id: String, streams: StreamNames) -> Self {
        Self {
            exec_id,
            streams,
            pid: OnceLock::new(),
            open_streams: Mutex::default(),
            stdin_closed: AtomicBool::new(false),
            state: watch::Sender::new(TaskState::Created),
            is_gone: CancellationToken::new(),
            step: tokio::sync::Mutex::default(),
        }
    }

    /// Notes that the process exists.
    pub(super) fn exists(&self, pid: i32, mut streams: OpenStreams) {
        let _ = self.pid.set(pid);
        let mut open = self.open_streams();
        if self.stdin_closed.load(Ordering::Relaxed) {
            streams.close_stdin();
        }
        *open = Some(streams);
    }

    /// 0 as long as there is none.
    pub(super) fn pid(&self) -> i32 {
        self.pid.get().copied().unwrap_or(0)
    }

    pub(super) fn state(&self) -> TaskState {
        *self.state.borrow()
    }

    /// Notes that the process runs; it may have ended already.
    pub(super) fn has_started(&self) {
        self.advance(TaskState::Created, TaskState::Running);
    }

    /// Notes that the process never ran and will not, if that is so: nobody need wait for its end.
    pub(super) fn is_not_to_run(&self) {
        self.advance(TaskState::Created, TaskState::Stopped(Exit::killed()));
    }

    /// Takes a step, unless the state has become another meanwhile.
    pub(super) fn advance(&self, from: TaskState, to: TaskState) {
        self.state.send_if_modified(|state| {
            let expected = *state == from;
            if expected {
                *state = to;
            }
            expected
        });
    }

    /// Notes that the process has ended: nothing more will be written.
    pub(super) async fn has_exited(&self, exit: Exit) {
        let terminal = self.open_streams().take_if(|streams| matches!(streams, OpenStreams::Terminal(_)));
        if let Some(OpenStreams::Terminal(terminal)) = terminal {
            terminal.finish().await;
        }
        self.state.send_replace(TaskState::Stopped(exit));
    }

    /// Waits until the process has ended.
    pub(super) async fn wait(&self) -> Option<Exit> {
        let mut state = self.state.subscribe();
        let stopped = state.wait_for(|state| state.exit().is_some()).await;
        stopped.ok().and_then(|state| state.exit())
    }

    pub(super) fn kill(&self, signal: Signal) -> anyhow::Result<()> {
        self.state().allows(Request::Kill)?;
        if self.is_gone.is_cancelled() {
            // Another may have its pid.
            return Err(Refused::AlreadyFinished.into());
        }
        let pid = self.pid.get().context("the process has not been started")?;
        match signal.send(*pid) {
            // It ended, and its exit is on the way.
            Err(nix::Error::ESRCH) => Err(Refused::AlreadyFinished.into()),
            result => Ok(result?),
        }
    }

    pub(super) fn close_stdin(&self) {
        let mut open = self.open_streams();
        self.stdin_closed.store(true, Ordering::Relaxed);
        if let Some(streams) = &mut *open {
            streams.close_stdin();
        }
    }

    /// Sets the size of the process's terminal, in characters.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> anyhow::Result<()> {
        match &*self.open_streams() {
            Some(OpenStreams::Terminal(terminal)) => Ok(terminal.resize(columns, rows)?),
            Some(OpenStreams::Kept(_)) | None => Ok(()),
        }
    }

    fn open_streams(&self) -> MutexGuard<'_, Option<OpenStreams>> {
        self.open_streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
