//! The guest host: the process that holds one container's guest.
//!
//! Executed by the shim, with one thread and nothing but the descriptors it needs, it prepares everything that can
//! be prepared outside, has libcontainer clone it into the container, and leaves. The clone, a child of the shim,
//! goes on as the container's process without executing anything: a container's root need not hold a
//! dynamic linker, nor this program. See docs/decisions/0001-guest-host-process.md.

mod cgroup_entry;
mod cgroup_mounts;
mod compile;
mod compiled;
mod confinement;
mod console;
mod container_config;
mod create;
mod descriptors;
mod devices;
mod exec;
mod executor;
mod http_client;
mod http_message;
mod module;
mod name_service;
mod native;
mod program;
mod rootfs;
mod standard_streams;
pub mod trigger;
mod warm;
pub mod workers;

use std::env;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use components::Registry;
use create::Created;
use descriptors::OpenFiles;
use engines::engine::Engine;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::umask;
use rustix::stdio::{dup2_stdin, stderr, stdin};
use rustix::thread::{set_name, set_thread_groups};

use crate::inheritance::end_with;
use crate::logging;
use crate::protocol::{self, FromGuestHost, Job, ReceivedJob};

/// The exit code of a container whose host failed it after the start, as `docker run` has it for its own failures.
pub(crate) const HOST_FAILED: u8 = 125;

/// A guest host, with the engines and component types it knows.
///
/// A binary of its own is these lines, installed in the place of `dapr-guest-host`:
///
/// ```no_run
/// # fn my_engine() -> std::sync::Arc<dyn engines::engine::Engine> { unimplemented!() }
/// use std::process::ExitCode;
///
/// use shim::guest_host::GuestHost;
///
/// fn main() -> ExitCode {
///     GuestHost::new().engine(my_engine()).main()
/// }
/// ```
pub struct GuestHost {
    engines: Vec<Arc<dyn Engine>>,
    components: Registry,
    /// What engines and components opened when they were made, which they have use for in the container.
    opened: OpenFiles,
}

impl GuestHost {
    /// With everything that is compiled in.
    pub fn new() -> Self {
        Self { engines: engines::built_in(), components: Registry::builtin(), opened: OpenFiles::default() }
    }

    /// Adds an engine, or replaces the one of the same name.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engines.retain(|known| known.name() != engine.name());
        self.engines.push(engine);
        self
    }

    /// Knows these component types instead of the ones compiled in.
    #[must_use]
    pub fn components(mut self, registry: Registry) -> Self {
        self.components = registry;
        self
    }

    /// Serves the shim that executed this process, compiles on behalf of such a process, or prepares the modules of an
    /// image for `dapr-wasm` and tells it the names of the engines.
    pub fn main(self) -> ExitCode {
        let args: Vec<String> = env::args().skip(1).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match args[..] {
            ["serve", log_level] => self.serve_shim(log_level == "debug"),
            ["compile", engine, max_memory_bytes, parent] => exit_code(self.compile(engine, max_memory_bytes, parent)),
            ["warm"] => exit_code(warm::warm(&self)),
            ["engines"] => {
                self.engines.iter().for_each(|engine| println!("{}", engine.name()));
                ExitCode::SUCCESS
            }
            ["-v" | "--version"] => {
                println!("dapr-guest-host {}", env!("CARGO_PKG_VERSION"));
                ExitCode::SUCCESS
            }
            _ => {
                eprintln!("dapr-guest-host is started by containerd-shim-dapr-v1, not by hand (-v prints its version)");
                ExitCode::from(2)
            }
        }
    }

    fn serve_shim(mut self, debug: bool) -> ExitCode {
        // It was executed by the number of a descriptor.
        let _ = set_name(c"dapr-guest-host");
        // The shim left nothing else open (its `start`).
        self.opened = OpenFiles::now();
        let Ok(control) = leave_standard_streams(debug) else { return ExitCode::FAILURE };
        let control = Arc::new(control);
        match self.make_process(&control) {
            Ok(Created { pid, terminal }) => {
                let terminal: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
                let _ = protocol::send_with_descriptors(&control, &FromGuestHost::Created { pid }, &terminal);
                ExitCode::SUCCESS
            }
            Err(error) => {
                let _ = protocol::send_message(&control, &FromGuestHost::failed(&error));
                ExitCode::FAILURE
            }
        }
    }

    /// The process that the shim asks for: a container's first, or one more.
    fn make_process(self, control: &Arc<OwnedFd>) -> anyhow::Result<Created> {
        name_service::use_built_in_services().context("cannot set how names are looked up")?;
        // What a spec leaves out is not to be what containerd was started with.
        set_thread_groups(&[]).context("cannot leave the groups of root")?;
        umask(Mode::from_raw_mode(0o022));
        // The shim has made the socket. Whoever cleans up behind one that was killed does not look for who would still make
        // something.
        end_with(getsockopt(control, PeerCredentials)?.pid())?;
        let ReceivedJob { job, streams, container } = protocol::receive_job(control)?;
        match job {
            Job::Create(request) => {
                logging::name_container(&request.id);
                create::create(self, &request, control, streams)
            }
            Job::Exec(request) => {
                logging::name_container(&request.container_id);
                let container = container.context("the shim sent no container for a process")?;
                exec::exec(self, &request, &container, control, streams)
            }
        }
    }

    fn compile(self, engine: &str, max_memory_bytes: &str, parent: &str) -> anyhow::Result<()> {
        compile::serve(&*self.find_engine(engine)?, max_memory_bytes.parse()?, parent.parse()?)
    }

    /// The engine of a container; `name` is the annotation's, or the operator's.
    fn find_engine(&self, name: &str) -> anyhow::Result<Arc<dyn Engine>> {
        let found = self.engines.iter().find(|engine| engine.name() == name);
        found.cloned().with_context(|| {
            let known: Vec<_> = self.engines.iter().map(|engine| engine.name()).collect();
            format!("unknown engine {name:?}; this runtime knows {}", known.join(", "))
        })
    }

    fn default_engine(&self) -> anyhow::Result<&str> {
        self.engines.first().map(|engine| engine.name()).context("this runtime was built without any engine")
    }
}

impl Default for GuestHost {
    fn default() -> Self {
        Self::new()
    }
}

fn exit_code(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Moves the control socket and the log out of the way of the standard streams, which will be the container's. Answers the
/// socket.
fn leave_standard_streams(debug: bool) -> rustix::io::Result<OwnedFd> {
    let above_standard_streams = 3;
    logging::init(File::from(fcntl_dupfd_cloexec(stderr(), above_standard_streams)?), debug);
    let control = fcntl_dupfd_cloexec(stdin(), above_standard_streams)?;
    dup2_stdin(open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
    Ok(control)
}
