//! containerd's task API, version 2 (`containerd.task.v2.Task`). Each method finds its container, has it work, and puts
//! the answer into containerd's words.

use std::collections::HashMap;
use std::future::pending;
use std::pin::pin;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use containerd_shim::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
    StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim::asynchronous::ExitSignal;
use containerd_shim::protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused, TaskResumed,
    TaskStart,
};
use containerd_shim::protos::ttrpc::{self, Code, get_status};
use containerd_shim::util::convert_to_timestamp;
use containerd_shim::{Task, TtrpcContext};
use oci_spec::runtime::LinuxResources;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use super::container::{Container, ExecRefused};
use super::creations::Creations;
use super::launch::Declined;
use super::options::operator_config;
use super::process::{Exits, Process};
use super::publisher::Publisher;
use super::signal::Signal;
use super::stdio::StreamNames;
use super::task_state::{Exit, Refused, TaskState};
use crate::idle_memory::give_back_once_settled;
use crate::protocol::{CreateContainer, RootfsMount};

/// Set in containerd's environment, it has every create wait for SIGUSR1.
const WAIT_DEBUGGER: &str = "CONTAINERD_SHIM_DAPR_V1_WAIT_DEBUGGER";

pub(super) struct TaskService {
    /// The sandbox's id: that of the container which this shim was started for.
    sandbox: String,
    debug: bool,
    exit: Arc<ExitSignal>,
    publisher: Arc<Publisher>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    creations: Creations,
}

impl TaskService {
    pub(super) fn new(sandbox: String, debug: bool, exit: Arc<ExitSignal>, publisher: Arc<Publisher>) -> Self {
        let (containers, creations) = (Mutex::default(), Creations::default());
        Self { sandbox, debug, exit, publisher, containers, creations }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a create that is under way, and answers whether it did: the container does not exist then.
    async fn cancel_create(&self, id: &str) -> bool {
        let Some(creation) = self.creations.of(id) else { return false };
        // It is told to all as soon as it exists.
        if !self.containers().contains_key(id) {
            creation.cancel().await;
        }
        !self.containers().contains_key(id)
    }

    /// The container of a request.
    fn container(&self, id: &str) -> ttrpc::Result<Arc<Container>> {
        let found = self.containers().get(id).cloned();
        found.ok_or_else(|| no_container(id))
    }

    /// Forgets a container that was deleted, which another request may have had done before.
    fn forget(&self, deleted: &Arc<Container>) -> ttrpc::Result<()> {
        let mut containers = self.containers();
        if !containers.get(&deleted.id).is_some_and(|container| Arc::ptr_eq(container, deleted)) {
            return Err(no_container(&deleted.id));
        }
        containers.remove(&deleted.id);
        Ok(())
    }

    /// The process of a request, and its container.
    fn process(&self, id: &str, exec_id: &str) -> ttrpc::Result<(Arc<Container>, Arc<Process>)> {
        let container = self.container(id)?;
        match container.process(exec_id) {
            Some(process) => Ok((container, process)),
            None => Err(status(Code::NOT_FOUND, format!("no process {exec_id:?} in container {id:?}"))),
        }
    }

    /// Reports the end of a container's process when it comes: that of the first one behind all others.
    fn watch(&self, container: Arc<Container>, process: Arc<Process>, exits: Exits) {
        let publisher = Arc::clone(&self.publisher);
        let is_init = process.exec_id.is_empty();
        let mut memory = is_init.then(|| container.watch_memory());
        tokio::spawn(async move {
            let out_of_memory = || {
                tracing::warn!(container.id = container.id, "a process was killed: the container is out of memory");
                let event = TaskOOM { container_id: container.id.clone(), ..TaskOOM::default() };
                publisher.publish(event);
            };
            let mut exit = pin!(exits.of(process.pid()));
            let exit = loop {
                let killed = async {
                    match &mut memory {
                        Some(memory) => memory.killed().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = killed => out_of_memory(),
                    exit = &mut exit => break exit,
                }
            };
            process.is_gone.cancel();
            tracing::info!(container.id = container.id, exec.id = process.exec_id, exit.status, "process exited");
            if is_init {
                container.keep_metrics();
                container.end_execs().await;
            }
            let step = process.step.lock().await;
            if memory.is_some_and(|mut memory| memory.has_killed()) {
                out_of_memory();
            }
            process.has_exited(exit).await;
            let event = TaskExit {
                container_id: container.id.clone(),
                id: if is_init { container.id.clone() } else { process.exec_id.clone() },
                pid: process.pid().cast_unsigned(),
                exit_status: exit.status,
                exited_at: Some(convert_to_timestamp(Some(exit.at))).into(),
                ..TaskExit::default()
            };
            publisher.publish(event);
            drop(step);
            if is_init {
                container.leave_mounts().await;
            }
        });
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() || !request.parent_checkpoint.is_empty() {
            return Err(status(Code::UNIMPLEMENTED, "a container cannot be restored from a checkpoint"));
        }
        let exists = || status(Code::ALREADY_EXISTS, format!("container {:?} exists already", request.id));
        let creation = self.creations.begin(&request.id).ok_or_else(exists)?;
        if self.containers().contains_key(&request.id) {
            return Err(exists());
        }
        // A cancelled create ends as one.
        creation.cancelled().run_until_cancelled(wait_for_debugger()).await.unwrap_or(Ok(())).map_err(internal)?;
        let rootfs = request.rootfs.iter().map(|mount| RootfsMount {
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            options: mount.options.clone(),
        });
        let create = CreateContainer {
            id: request.id.clone(),
            bundle: request.bundle.clone().into(),
            rootfs: rootfs.collect(),
            operator: operator_config(request.options.as_ref()).map_err(internal)?,
        };
        let streams = StreamNames {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let created = Container::create(create, streams, self.debug, creation.cancelled()).await;
        let (container, exits) = created
            .inspect_err(|error| {
                tracing::error!(container.id = request.id, error = format!("{error:#}"), "cannot create the container");
            })
            .map_err(|error| if error.is::<Declined>() { invalid(error) } else { internal(error) })?;
        let container = Arc::new(container);
        self.containers().insert(container.id.clone(), Arc::clone(&container));
        let pid = container.init.pid().cast_unsigned();
        tracing::info!(container.id = container.id, pid, sandbox.id = self.sandbox, "container created");
        let _step = container.init.step.lock().await;
        self.watch(Arc::clone(&container), Arc::clone(&container.init), exits);
        self.publisher.publish(TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..TaskIO::default()
            })
            .into(),
            pid,
            ..TaskCreate::default()
        });
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let _step = process.step.lock().await;
        if request.exec_id.is_empty() {
            container.start().await.map_err(refused)?;
            tokio::spawn(give_back_once_settled());
            let (container_id, pid) = (request.id, process.pid().cast_unsigned());
            self.publisher.publish(TaskStart { container_id, pid, ..TaskStart::default() });
        } else {
            let started = container.start_exec(&process).await;
            let exits = started.map_err(|error| refused(error.context("exec failed")))?;
            self.watch(container, Arc::clone(&process), exits);
            let (container_id, pid) = (request.id, process.pid().cast_unsigned());
            let exec_id = request.exec_id;
            self.publisher.publish(TaskExecStarted { container_id, exec_id, pid, ..TaskExecStarted::default() });
        }
        Ok(StartResponse { pid: process.pid().cast_unsigned(), ..StartResponse::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id)?;
        let spec = request.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
        let spec = serde_json::from_slice(spec)
            .map_err(|error| status(Code::INVALID_ARGUMENT, format!("the process is not JSON: {error}")))?;
        let streams = StreamNames {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        container.add_exec(&request.exec_id, spec, streams).map_err(|error| match error {
            ExecRefused::Exists(_) => status(Code::ALREADY_EXISTS, error.to_string()),
            ExecRefused::State(_) => status(Code::FAILED_PRECONDITION, error.to_string()),
        })?;
        let (container_id, exec_id) = (request.id, request.exec_id);
        self.publisher.publish(TaskExecAdded { container_id, exec_id, ..TaskExecAdded::default() });
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let (state, streams) = (process.state(), &process.streams);
        let mut response = StateResponse {
            id: request.id,
            exec_id: request.exec_id,
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid().cast_unsigned(),
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: streams.terminal,
            ..StateResponse::default()
        };
        response.set_status(match state {
            TaskState::Created => Status::CREATED,
            TaskState::Running => Status::RUNNING,
            TaskState::Paused => Status::PAUSED,
            TaskState::Stopped(_) => Status::STOPPED,
        });
        if let Some(Exit { status, at }) = state.exit() {
            response.exit_status = status;
            response.exited_at = Some(convert_to_timestamp(Some(at))).into();
        }
        Ok(response)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let exit = process.wait().await.ok_or_else(|| status(Code::INTERNAL, "the process's exit is lost"))?;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(convert_to_timestamp(Some(exit.at))).into(),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let signal = Signal::new(request.signal)
            .ok_or_else(|| status(Code::INVALID_ARGUMENT, format!("no signal {}", request.signal)))?;
        // There is no guest yet that might take a signal for something else than its end.
        if request.exec_id.is_empty() && self.cancel_create(&request.id).await {
            return Ok(Empty::default());
        }
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        if request.all { container.kill_all(signal) } else { process.kill(signal) }.map_err(refused)?;
        if signal == Signal::KILL && (request.all || request.exec_id.is_empty()) {
            container.thaw_for_kill().map_err(internal)?;
        }
        Ok(Empty::default())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.container(&request.id)?;
        let processes = container.processes().map_err(internal)?;
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id)?;
        let _step = container.init.step.lock().await;
        container.pause().await.map_err(refused)?;
        self.publisher.publish(TaskPaused { container_id: request.id, ..TaskPaused::default() });
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id)?;
        let _step = container.init.step.lock().await;
        container.resume().map_err(refused)?;
        self.publisher.publish(TaskResumed { container_id: request.id, ..TaskResumed::default() });
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id)?;
        let resources = resources(&request).map_err(invalid)?;
        // systemd, where it is asked, may take its time.
        let updated = spawn_blocking(move || container.update(&resources)).await;
        updated.map_err(internal)?.map_err(refused)?;
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.container(&request.id)?;
        let metrics = container.metrics().map_err(internal)?;
        let metrics = metrics.ok_or_else(|| status(Code::NOT_FOUND, "the container's cgroup is gone"))?;
        Ok(StatsResponse { stats: Some(metrics).into(), ..StatsResponse::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let too_large = |_| status(Code::INVALID_ARGUMENT, "a terminal has at most 65535 rows and columns");
        let columns = u16::try_from(request.width).map_err(too_large)?;
        let rows = u16::try_from(request.height).map_err(too_large)?;
        process.resize(columns, rows).map_err(internal)?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(status(Code::UNIMPLEMENTED, "checkpoints are not supported: a guest's memory cannot be saved"))
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        if request.exec_id.is_empty() && self.cancel_create(&request.id).await {
            let Exit { status, at } = Exit::killed();
            let exited_at = Some(convert_to_timestamp(Some(at))).into();
            return Ok(DeleteResponse { exit_status: status, exited_at, ..DeleteResponse::default() });
        }
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        if request.exec_id.is_empty() {
            container.delete().await.map_err(refused)?;
            self.forget(&container)?;
        } else {
            container.delete_exec(&process).await.map_err(refused)?;
        }
        let pid = process.pid().cast_unsigned();
        let exit = process.state().exit();
        // One that never ran ends as if it had been killed.
        let exit_status = exit.map_or(0, |exit| exit.status);
        let exited_at = exit.map(|exit| convert_to_timestamp(Some(exit.at)));
        if request.exec_id.is_empty() {
            self.publisher.publish(TaskDelete {
                container_id: request.id,
                pid,
                exit_status,
                exited_at: exited_at.clone().into(),
                ..TaskDelete::default()
            });
        }
        Ok(DeleteResponse { pid, exit_status, exited_at: exited_at.into(), ..DeleteResponse::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.containers().get(&request.id).map_or(0, |container| container.init.pid().cast_unsigned());
        Ok(ConnectResponse { shim_pid: process::id(), task_pid, ..ConnectResponse::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        // The other containers of the sandbox still need this shim, those as well that are on their way. Creates are looked at
        // first: what comes of one meanwhile is among the containers.
        while request.now || (!self.creations.has_others(&request.id) && self.containers().is_empty()) {
            // containerd asks for it behind a container, whose own create it has given up on if there is one.
            let Some(creation) = self.creations.any() else {
                self.exit.signal();
                break;
            };
            creation.cancel().await;
        }
        Ok(Empty::default())
    }
}

async fn wait_for_debugger() -> std::io::Result<()> {
    if std::env::var_os(WAIT_DEBUGGER).is_some() {
        let mut user1 = signal(SignalKind::user_defined1())?;
        tracing::info!(pid = process::id(), "waiting for SIGUSR1 before the container is created");
        user1.recv().await;
    }
    Ok(())
}

/// The limits of an update: the OCI specification's `linux.resources` as JSON.
fn resources(request: &UpdateTaskRequest) -> anyhow::Result<LinuxResources> {
    let kind = request.resources.type_url.rsplit('/').next().unwrap_or_default();
    ensure!(kind == "LinuxResources", "an update takes LinuxResources, not {kind:?}");
    serde_json::from_slice(&request.resources.value).context("the resources of the update cannot be read")
}

fn status(code: Code, message: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, message.into()))
}

fn no_container(id: &str) -> ttrpc::Error {
    status(Code::NOT_FOUND, format!("no container {id:?}"))
}

/// The request asks for what cannot be; its author can mend it.
fn invalid(error: anyhow::Error) -> ttrpc::Error {
    status(Code::INVALID_ARGUMENT, format!("{error:#}"))
}

fn internal(error: impl Into<anyhow::Error>) -> ttrpc::Error {
    status(Code::INTERNAL, format!("{:#}", error.into()))
}

/// A request at the wrong time has a code of its own.
fn refused(error: anyhow::Error) -> ttrpc::Error {
    match error.downcast_ref() {
        Some(refused @ Refused::AlreadyFinished) => status(Code::NOT_FOUND, refused.to_string()),
        Some(refused) => status(Code::FAILED_PRECONDITION, refused.to_string()),
        None => status(Code::UNKNOWN, format!("{error:#}")),
    }
}
