//! The shim: what containerd starts, once to begin a sandbox's shim, once as that shim, and once to clean up behind
//! one that died.

mod cgroup;
mod container;
mod info;
mod launch;
mod options;
mod process;
mod signal;
mod stdio;
mod task_service;
mod task_state;
mod terminal;

use std::env;
use std::fs::{File, read_to_string, remove_file};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim::api::DeleteResponse;
use containerd_shim::asynchronous::{ExitSignal, spawn};
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::util::{timestamp, write_str_to_file};
use containerd_shim::{Config, Error, Flags, Shim, StartOpts, socket_address};
use oci_spec::runtime::Spec;

use crate::logging;
use container::Leftovers;
use task_service::TaskService;

/// Annotations by which the containers of a sandbox find their shim: Kubernetes' own, and the one that containerd's
/// runc shim knows beside it.
const GROUP_ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Runs the shim as its command line says, and ends the process. `runtime_id` is the runtime's name in containerd,
/// such as `io.containerd.dapr.v1`.
pub fn main(runtime_id: &str) {
    let args: Vec<_> = env::args_os().skip(1).collect();
    match containerd_shim::parse(&args) {
        Ok(flags) if flags.version => {
            let program = env::args().next().unwrap_or_default();
            let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
            println!("{program}:\n  Version: {}\n  Runtime: {runtime_id}", env!("CARGO_PKG_VERSION"));
        }
        Ok(flags) if flags.info => {
            if let Err(error) = info::answer(runtime_id) {
                eprintln!("{runtime_id}: {error}");
                exit(1);
            }
        }
        Ok(_) => serve(runtime_id),
        Err(error) => {
            eprintln!("{runtime_id}: {error}");
            exit(2);
        }
    }
}

/// One thread: the shim waits, and works on one small thing at a time.
fn serve(runtime_id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    match runtime {
        Ok(runtime) => runtime.block_on(containerd_shim::asynchronous::run::<DaprShim>(runtime_id, None)),
        Err(error) => {
            eprintln!("{runtime_id}: {error}");
            exit(1);
        }
    }
}

struct DaprShim {
    id: String,
    namespace: String,
    debug: bool,
    /// The address that this process serves.
    socket: String,
    exit: Arc<ExitSignal>,
}

#[async_trait]
impl Shim for DaprShim {
    type T = TaskService;

    async fn new(_runtime_id: &str, flags: &Flags, config: &mut Config) -> Self {
        config.no_setup_logger = true;
        if flags.action.is_empty() {
            // containerd reads this FIFO of the bundle into its own log.
            if let Ok(log) = File::options().write(true).open("log") {
                logging::init(log, flags.debug);
            }
        }
        Self {
            id: flags.id.clone(),
            namespace: flags.namespace.clone(),
            debug: flags.debug,
            socket: flags.socket.clone(),
            exit: Arc::new(ExitSignal::default()),
        }
    }

    /// Answers the address of the sandbox's shim, and starts that shim where it does not run yet.
    async fn start_shim(&mut self, opts: StartOpts) -> Result<String, Error> {
        let sandbox = sandbox_of(&opts.id)?;
        let address = socket_address(&opts.address, &opts.namespace, &sandbox);
        let address = if is_served(&address) { address } else { spawn(opts, &sandbox, Vec::new()).await? };
        write_str_to_file("address", &address).await?;
        Ok(address)
    }

    /// The shim of this container has died: ends what it left.
    async fn delete_shim(&mut self) -> Result<DeleteResponse, Error> {
        let bundle = env::current_dir().map_err(|error| Error::Other(error.to_string()))?;
        let pid = Leftovers::of(&bundle).remove().await;
        // Another container of the sandbox may have been first.
        if let Ok(address) = read_to_string("address")
            && !is_served(&address)
        {
            let _ = remove_file(path_of(&address));
        }
        Ok(DeleteResponse {
            pid,
            exit_status: 128 + 9,
            exited_at: Some(timestamp()?).into(),
            ..DeleteResponse::default()
        })
    }

    async fn wait(&mut self) {
        self.exit.wait().await;
        // The crate would look into the bundle for its name, which containerd may have removed by then.
        let _ = remove_file(path_of(&self.socket));
    }

    async fn create_task_service(&self, publisher: RemotePublisher) -> TaskService {
        TaskService::new(self.namespace.clone(), self.id.clone(), self.debug, Arc::clone(&self.exit), publisher)
    }
}

/// The sandbox that the container in the working directory belongs to: itself, unless its spec names another.
fn sandbox_of(id: &str) -> Result<String, Error> {
    let spec = Spec::load("config.json").map_err(|error| Error::Other(format!("cannot read config.json: {error}")))?;
    let annotations = spec.annotations().clone().unwrap_or_default();
    let sandbox = GROUP_ANNOTATIONS.iter().find_map(|name| annotations.get(*name));
    Ok(sandbox.cloned().unwrap_or_else(|| id.to_owned()))
}

fn is_served(address: &str) -> bool {
    UnixStream::connect(path_of(address)).is_ok()
}

fn path_of(address: &str) -> &str {
    address.trim_start_matches("unix://")
}
