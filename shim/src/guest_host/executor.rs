//! The container's process, from libcontainer's clone on: inside the namespaces, the root and the cgroup, with the
//! container's user, capabilities and seccomp filter. It has one thread until it makes more.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;

use anyhow::Context as _;
use components::Registry;
use engines::artifact_cache::Artifact;
use engines::engine::{Engine, Module, Preopen, WasiConfig};
use host_abi::host_functions::HostContext;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::thread::set_name;
use tokio::runtime;

use super::HOST_FAILED;
use super::container_config::{Trigger, WasmConfig};
use super::http_client::HttpCaller;
use super::trigger::{self, Guests};
use crate::protocol::{self, FromGuestHost, ToGuestHost};

/// What the container's process is to run.
#[derive(Clone)]
pub(super) enum Program {
    Native,
    Wasm(Arc<WasmProgram>),
}

pub(super) struct WasmProgram {
    pub(super) config: WasmConfig,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) artifact: Artifact,
    /// The export to run in a new instance before its handler is called.
    pub(super) initializer: Option<&'static str>,
    pub(super) registry: Registry,
    /// Components of the node, outside the container.
    pub(super) node_components: Option<PathBuf>,
}

/// libcontainer clones this into the container.
#[derive(Clone)]
pub(super) struct ContainerExecutor {
    program: Program,
    control: Arc<OwnedFd>,
}

impl ContainerExecutor {
    pub(super) fn new(program: Program, control: Arc<OwnedFd>) -> Self {
        Self { program, control }
    }

    fn wait_for_start(&self) -> anyhow::Result<()> {
        match protocol::receive_message(&self.control)? {
            Some(ToGuestHost::Start) => Ok(()),
            Some(ToGuestHost::Create(_)) => anyhow::bail!("the shim asked a container to be created twice"),
            None => anyhow::bail!("the shim went before it started the container"),
        }
    }

    fn tell(&self, message: &FromGuestHost) -> anyhow::Result<()> {
        protocol::send_message(&self.control, message).context("the shim is gone")
    }

    /// Runs an ordinary program in the place of this one. Returns only if that cannot be.
    fn exec_native(&self, spec: &Spec) -> anyhow::Result<u8> {
        self.tell(&FromGuestHost::Ready)?;
        self.wait_for_start()?;
        // The control socket closes with the execution, and that is the shim's answer.
        DefaultExecutor {}.exec(spec).map(|()| HOST_FAILED).map_err(Into::into)
    }

    fn run_wasm(&self, program: &WasmProgram, spec: &Spec) -> anyhow::Result<u8> {
        // SAFETY: the artifact comes from this engine, through the cache of this process's parent or its compiler.
        #[expect(unsafe_code, reason = "see above")]
        let module = unsafe { program.engine.load(&program.artifact) }?;
        let workers = trigger::workers(&program.config.trigger)?;
        let guests = {
            let _workers = workers.enter();
            guests(program, module, spec)?
        };
        let ready = trigger::prepare(&program.config.trigger)?;
        self.tell(&FromGuestHost::Ready)?;
        self.wait_for_start()?;
        let started = || self.tell(&FromGuestHost::Started);
        // The signals' own thread: this one.
        let supervisor = runtime::Builder::new_current_thread().enable_all().build()?;
        supervisor.block_on(trigger::run(ready, guests, workers.handle(), started))
    }
}

impl Executor for ContainerExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let run = || match &self.program {
            Program::Native => self.exec_native(spec),
            Program::Wasm(program) => {
                let _ = set_name(c"dapr-guest-host");
                self.run_wasm(program, spec)
            }
        };
        let code = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(code)) => code,
            Ok(Err(error)) => {
                tracing::error!(error = format!("{error:#}"), "the container failed");
                let _ = self.tell(&FromGuestHost::Failed { message: format!("{error:#}") });
                HOST_FAILED
            }
            // The panic was logged.
            Err(_) => HOST_FAILED,
        };
        process::exit(code.into())
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        match self.program {
            Program::Native => DefaultExecutor {}.validate(spec),
            Program::Wasm(_) => Ok(()),
        }
    }

    /// The environment of the spec is a native program's; a guest gets it through WASI, and it never configures its
    /// host.
    fn setup_envs(&self, environment: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        match self.program {
            Program::Native => DefaultExecutor {}.setup_envs(environment),
            Program::Wasm(_) => Ok(()),
        }
    }
}

/// Everything that the guests of this container share.
fn guests(program: &WasmProgram, module: Arc<dyn Module>, spec: &Spec) -> anyhow::Result<Guests> {
    let config = &program.config;
    let sources: Vec<&PathBuf> = program.node_components.iter().chain(&config.components).collect();
    let components = program.registry.load(&sources, &config.app)?;
    let host = HostContext { state_stores: components.state_stores, http_client: Some(Arc::new(HttpCaller::new())) };
    let stdin = match config.trigger {
        Trigger::Command { .. } => rustix::io::dup(rustix::stdio::stdin())?,
        Trigger::Http { .. } => std::fs::File::open("/dev/null").context("the container has no /dev/null")?.into(),
    };
    Ok(Guests {
        module,
        host: Arc::new(host),
        initializer: program.initializer,
        wasi: WasiConfig {
            args: config.args.clone(),
            env: environment(spec),
            stdin: stdin.into(),
            stdout: rustix::io::dup(rustix::stdio::stdout())?.into(),
            stderr: rustix::io::dup(rustix::stdio::stderr())?.into(),
            // Relative paths start there too: WASI preview 1 knows no working directory.
            preopens: vec![Preopen { host: "/".into(), guest: "/".to_owned() }],
        },
    })
}

fn environment(spec: &Spec) -> Vec<(String, String)> {
    let environment = spec.process().as_ref().and_then(|process| process.env().as_deref());
    let pairs = environment.unwrap_or_default().iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
