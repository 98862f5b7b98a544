//! The container's process, from libcontainer's clone on: inside the namespaces, the root and the cgroup, with the
//! container's user, capabilities and seccomp filter. It has one thread until it makes more.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use components::App;
use components::manifest::sources;
use engines::engine::{Module, Preopen, WasiConfig};
use host_abi::host_functions::HostContext;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::close;
use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};
use rustix::thread::set_name;
use tokio::runtime;

use super::HOST_FAILED;
use super::confinement::{Confinement, drop_as_an_execution_would};
use super::container_config::Trigger;
use super::descriptors::{disarm_all_but, open_descriptors};
use super::http_client::HttpCaller;
use super::native;
use super::program::{Program, WasmProgram};
use super::standard_streams::is_null;
use super::trigger::{self, Guests};
use crate::logging;
use crate::protocol::{self, FromGuestHost, ToGuestHost};

/// libcontainer clones this into the container.
#[derive(Clone)]
pub(super) struct ContainerExecutor {
    program: Program,
    control: Arc<OwnedFd>,
    role: Role,
}

#[derive(Clone)]
enum Role {
    /// The container's first process waits for the shim's word.
    Container,
    /// One more runs at once.
    Exec { confinement: Box<Confinement>, creators: BTreeSet<RawFd> },
}

impl ContainerExecutor {
    pub(super) fn of_container(program: Program, control: Arc<OwnedFd>) -> Self {
        Self { program, control, role: Role::Container }
    }

    /// To be made before libcontainer opens anything: of the descriptors that it adds, one must be closed for it to
    /// see that the process runs.
    pub(super) fn of_exec(program: Program, control: Arc<OwnedFd>, confinement: Confinement) -> Self {
        Self { program, control, role: Role::Exec { confinement: Box::new(confinement), creators: open_descriptors() } }
    }

    fn run(&self, spec: &Spec) -> anyhow::Result<u8> {
        let added = match &self.role {
            Role::Container => BTreeSet::new(),
            Role::Exec { confinement, creators } => {
                confinement.apply()?;
                open_descriptors().difference(creators).copied().collect()
            }
        };
        reopen_null_outputs()?;
        match &self.program {
            Program::Native => match self.exec_native(spec)? {},
            Program::Wasm(program) => {
                let _ = set_name(c"dapr-guest-host");
                disarm_all_but(&self.descriptors(program, &added)).context("cannot close what is open")?;
                drop_as_an_execution_would()?;
                leave_zombies_to_the_kernel()?;
                self.run_wasm(program, spec, &added)
            }
        }
    }

    /// Those that a guest's process has use for. `added` has one that libcontainer waits for.
    fn descriptors(&self, program: &WasmProgram, added: &BTreeSet<RawFd>) -> BTreeSet<RawFd> {
        let own = [self.control.as_raw_fd(), program.artifact.file().as_raw_fd()];
        let own = own.into_iter().chain(logging::descriptor()).chain(added.iter().copied());
        own.chain(program.opened.still_open()).collect()
    }

    /// Waits for the shim's word where it is needed.
    fn wait_for_start(&self) -> anyhow::Result<()> {
        if let Role::Exec { .. } = self.role {
            return Ok(());
        }
        self.tell(&FromGuestHost::Ready)?;
        match protocol::receive_message(&self.control)? {
            Some(ToGuestHost::Start) => Ok(()),
            Some(message) => bail!("the shim asked a created container for {message:?}"),
            None => bail!("the shim went before it started the container"),
        }
    }

    fn tell(&self, message: &FromGuestHost) -> anyhow::Result<()> {
        protocol::send_message(&self.control, message).context("the shim is gone")
    }

    /// Runs an ordinary program in the place of this one. Returns only if that cannot be.
    fn exec_native(&self, spec: &Spec) -> anyhow::Result<Infallible> {
        self.wait_for_start()?;
        // The control socket closes with the execution, and that is the shim's answer.
        native::execute(arguments(spec))
    }

    fn run_wasm(&self, program: &WasmProgram, spec: &Spec, added: &BTreeSet<RawFd>) -> anyhow::Result<u8> {
        // SAFETY: the artifact comes from this engine, through the cache of this process's parent or its compiler.
        #[expect(unsafe_code, reason = "see above")]
        let module = unsafe { program.engine.load(&program.artifact) }?;
        let workers = trigger::workers(&program.config.trigger, spec)?;
        let guests = {
            let _runtime = workers.runtime().enter();
            guests(program, module, spec)?
        };
        let ready = trigger::prepare(&program.config.trigger)?;
        self.wait_for_start()?;
        let started = || match self.role {
            Role::Container => self.tell(&FromGuestHost::Started),
            Role::Exec { .. } => Ok(added.iter().try_for_each(|&descriptor| close(descriptor))?),
        };
        // The signals' own thread: this one.
        let supervisor = runtime::Builder::new_current_thread().enable_all().build()?;
        supervisor.block_on(trigger::run(ready, guests, workers, started))
    }
}

impl Executor for ContainerExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let code = match catch_unwind(AssertUnwindSafe(|| self.run(spec))) {
            Ok(Ok(code)) => code,
            Ok(Err(error)) => {
                tracing::error!(error = format!("{error:#}"), "the container failed");
                let _ = self.tell(&FromGuestHost::failed(&error));
                HOST_FAILED
            }
            // The panic was logged.
            Err(_) => HOST_FAILED,
        };
        process::exit(code.into())
    }

    /// A program that is not there is known before the start.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let Program::Native = self.program else { return Ok(()) };
        let invalid = |error: anyhow::Error| ExecutorValidationError::ArgValidationError(error.to_string());
        let name = arguments(spec).first().context("the container has no program: its arguments are empty");
        let environment = environment(spec);
        let search_path = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path);
        native::find(name.map_err(invalid)?, search_path).map(drop).map_err(invalid)
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

/// In a pid namespace of its own, a container's first process becomes the parent of whatever loses its own. This one has no
/// children.
fn leave_zombies_to_the_kernel() -> nix::Result<()> {
    // SAFETY: no handler is installed.
    #[expect(unsafe_code, reason = "see above")]
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.map(drop)
}

/// libcontainer leaves an output that is /dev/null open for reading alone.
fn reopen_null_outputs() -> rustix::io::Result<()> {
    let open_null = || open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    if is_null(&fstat(stdout())?) {
        dup2_stdout(open_null()?)?;
    }
    if is_null(&fstat(stderr())?) {
        dup2_stderr(open_null()?)?;
    }
    Ok(())
}

fn arguments(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default()
}

/// Everything that the guests of this container share.
fn guests(program: &WasmProgram, module: Arc<dyn Module>, spec: &Spec) -> anyhow::Result<Guests> {
    let config = &program.config;
    let own = sources(config.components.as_slice());
    let mut variables = environment(spec);
    let values = variables.iter().map(|(name, value)| (name.clone(), value.clone().into()));
    let app = App { environment: values.collect(), ..config.app.clone() };
    let components = program.registry.load_sources(&program.node_components, &own, &app)?;
    let host = HostContext {
        state_stores: components.state_stores,
        secret_stores: components.secret_stores,
        http_client: Some(Arc::new(HttpCaller::new())),
    };
    let stdin = match config.trigger {
        Trigger::Command { .. } => rustix::io::dup(rustix::stdio::stdin())?.into(),
        Trigger::Http { .. } => File::open("/dev/null").context("the container has no /dev/null")?,
    };
    let mut preopens = vec![Preopen { host: "/".into(), guest: "/".to_owned() }];
    set_working_directory(spec, &mut variables, &mut preopens);
    Ok(Guests {
        module,
        host: Arc::new(host),
        initializer: program.initializer,
        wasi: Arc::new(WasiConfig {
            args: config.args.clone(),
            env: variables,
            stdin: Arc::new(stdin),
            stdout: Arc::new(rustix::io::dup(stdout())?.into()),
            stderr: Arc::new(rustix::io::dup(stderr())?.into()),
            preopens,
        }),
    })
}

/// WASI preview 1 knows no working directory. A guest gets it as its directory `.` and in the variable PWD, for the
/// libraries that look there. To C's, all relative paths start at the root; as `/` comes after `.`, the absolute ones do too.
fn set_working_directory(spec: &Spec, variables: &mut Vec<(String, String)>, preopens: &mut Vec<Preopen>) {
    let directory = spec.process().as_ref().map_or(Path::new("/"), |process| process.cwd());
    if directory == "/" {
        return;
    }
    preopens.insert(0, Preopen { host: directory.to_owned(), guest: ".".to_owned() });
    if !variables.iter().any(|(name, _)| name == "PWD") {
        variables.push(("PWD".to_owned(), directory.display().to_string()));
    }
}

fn environment(spec: &Spec) -> Vec<(String, String)> {
    let environment = spec.process().as_ref().and_then(|process| process.env().as_deref());
    let pairs = environment.unwrap_or_default().iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
