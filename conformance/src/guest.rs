//! A guest: compiled, loaded and run as a container's is, its output kept.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use engines::engine::{Engine, GuestConfig, Instance, Module, Preopen, Stop, Trap, WasiConfig, compile_and_load};
use engines::module_info::ModuleInfo;
use host_abi::host_functions::HostContext;
use host_abi::http::{HANDLE_HTTP_REQUEST, HandleHttpRequest, HttpClient, Request, Response};
use host_abi::secrets::SecretStore;
use host_abi::state::StateStore;
use shim::guest_host::trigger::{Guests, initializer};
use tokio_util::sync::CancellationToken;

/// A program that guests are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Program {
    /// A crate of the folder `guests`.
    Rust(&'static str),
    /// A file of `guests/c`.
    C(&'static str),
    /// A file of `guests/wat`: its name and its text.
    Wat(&'static str, &'static str),
}

/// The program `guests/wat/NAME.wat`.
macro_rules! wat {
    ($name:literal) => {
        $crate::guest::Program::Wat(
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/wat/", $name, ".wat")),
        )
    };
}
pub(crate) use wat;

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust(name) | Self::C(name) | Self::Wat(name, _) => name,
        }
    }

    /// # Errors
    /// The program is not compiled: the message says how that is done.
    pub(crate) fn check_is_there(self) -> anyhow::Result<()> {
        match self {
            Self::Rust(_) | Self::C(_) => {
                let path = self.compiled()?;
                ensure!(path.is_file(), "there is no {}: `make guests` compiles it", path.display());
            }
            Self::Wat(..) => {}
        }
        Ok(())
    }

    /// The binary format, of whatever is in the file.
    pub(crate) fn bytes(self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Rust(_) | Self::C(_) => {
                let path = self.compiled()?;
                fs::read(&path).with_context(|| format!("cannot read {} (`make guests` compiles it)", path.display()))
            }
            Self::Wat(name, text) => wat::parse_str(text).with_context(|| format!("guests/wat/{name}.wat")),
        }
    }

    /// Where `make guests` puts it: in the folder `guests`, beside the folder of this executable.
    fn compiled(self) -> anyhow::Result<PathBuf> {
        let executable = env::current_exe().context("cannot find the running executable")?;
        let target = executable.parent().and_then(Path::parent).context("the executable is in no folder of a build")?;
        let folder = if let Self::C(_) = self { "guests/c" } else { "guests" };
        Ok(target.join(folder).join(self.name()).with_extension("wasm"))
    }
}

/// An engine, and what it has compiled so far: each program once.
pub(crate) struct EngineUnderTest {
    engine: Arc<dyn Engine>,
    programs: Mutex<HashMap<Program, LoadedProgram>>,
}

#[derive(Clone)]
struct LoadedProgram {
    module: Arc<dyn Module>,
    initializer: Option<&'static str>,
}

impl EngineUnderTest {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, programs: Mutex::default() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn load(&self, program: Program) -> anyhow::Result<LoadedProgram> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = programs.get(&program) {
            return Ok(loaded.clone());
        }
        let bytes = program.bytes()?;
        let info = ModuleInfo::read(&bytes)?;
        let initializer = initializer(&info);
        let loaded = LoadedProgram { module: compile_and_load(&*self.engine, &bytes)?, initializer };
        programs.insert(program, loaded.clone());
        Ok(loaded)
    }
}

/// What a case is about: a program on an engine.
#[derive(Clone)]
pub(crate) struct Subject {
    under_test: Arc<EngineUnderTest>,
    pub(crate) program: Program,
}

impl Subject {
    pub(crate) fn new(under_test: Arc<EngineUnderTest>, program: Program) -> Self {
        Self { under_test, program }
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.under_test.engine
    }

    /// A guest that has nothing yet.
    ///
    /// # Errors
    /// What fails the create of a container: the module is none, or imports what nobody provides.
    pub(crate) fn guest(&self) -> anyhow::Result<Guest> {
        let mut wasi = WasiConfig::empty()?;
        wasi.stdout = Arc::new(tempfile::tempfile()?);
        wasi.stderr = Arc::new(tempfile::tempfile()?);
        Ok(Guest { program: self.under_test.load(self.program)?, wasi, host: HostContext::default(), cancel: None })
    }
}

/// A guest that has not started yet.
pub(crate) struct Guest {
    program: LoadedProgram,
    wasi: WasiConfig,
    host: HostContext,
    cancel: Option<CancellationToken>,
}

impl Guest {
    /// The program's own name first.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.wasi.args = args.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn env(mut self, env: &[(&str, &str)]) -> Self {
        self.wasi.env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.wasi.stdin = Arc::new(File::from(stdin.into()));
        self
    }

    /// In the place of the file that [`Ended::stdout`] is read from.
    pub(crate) fn stdout(mut self, stdout: impl Into<OwnedFd>) -> Self {
        self.wasi.stdout = Arc::new(File::from(stdout.into()));
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<OwnedFd>) -> Self {
        self.wasi.stderr = Arc::new(File::from(stderr.into()));
        self
    }

    pub(crate) fn preopen(mut self, host: &Path, guest: &str) -> Self {
        self.wasi.preopens.push(Preopen { host: host.to_owned(), guest: guest.to_owned() });
        self
    }

    pub(crate) fn state_stores(mut self, stores: BTreeMap<String, Arc<dyn StateStore>>) -> Self {
        self.host.state_stores = stores;
        self
    }

    pub(crate) fn secret_stores(mut self, stores: BTreeMap<String, Arc<dyn SecretStore>>) -> Self {
        self.host.secret_stores = stores;
        self
    }

    pub(crate) fn http_client(mut self, client: impl HttpClient + 'static) -> Self {
        self.host.http_client = Some(Arc::new(client));
        self
    }

    pub(crate) fn cancelled_by(mut self, cancel: &CancellationToken) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Runs the program.
    pub(crate) async fn start(self) -> anyhow::Result<Ended> {
        self.run("_start").await
    }

    /// Runs an export without parameters.
    pub(crate) async fn run(self, export: &str) -> anyhow::Result<Ended> {
        let (stdout, stderr) = (Arc::clone(&self.wasi.stdout), Arc::clone(&self.wasi.stderr));
        let stopped = match self.instantiate().await {
            Ok(mut instance) => instance.run(export).await,
            Err(stop) => Err(stop),
        };
        Ok(Ended { stopped, stdout: written(&stdout)?, stderr: written(&stderr)? })
    }

    /// Has the guest's handler answer a request, without a server.
    pub(crate) async fn answer(self, request: Request) -> Result<Response, Stop> {
        let mut call = HandleHttpRequest::new(HANDLE_HTTP_REQUEST, (request,));
        self.instantiate().await?.call(&mut call).await?;
        Ok(call.into_result().unwrap_or_default())
    }

    /// For a server, and the file that its guests' standard error goes to.
    pub(crate) fn into_guests(self) -> (Guests, Arc<File>) {
        let Self { program: LoadedProgram { module, initializer }, wasi, host, cancel: _ } = self;
        let stderr = Arc::clone(&wasi.stderr);
        (Guests { module, host: Arc::new(host), wasi: Arc::new(wasi), initializer }, stderr)
    }

    async fn instantiate(self) -> Result<Box<dyn Instance>, Stop> {
        let Self { program, wasi, host, cancel } = self;
        program
            .module
            .instantiate(GuestConfig { wasi: Arc::new(wasi), host: Arc::new(host), initializer: None, cancel })
            .await
    }
}

/// Everything that was written to a guest's stream; nothing of one that is a pipe.
pub(crate) fn written(mut file: &File) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.rewind().is_ok() {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// How a guest ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) stopped: Result<(), Stop>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ended {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// As a container would end.
    pub(crate) fn exit_code(&self) -> anyhow::Result<u32> {
        match &self.stopped {
            Ok(()) => Ok(0),
            Err(Stop::Exit(code)) => Ok(*code),
            Err(stop) => bail!("{stop}; standard error: {:?}", self.stderr()),
        }
    }

    /// What a guest wrote that ended with 0.
    pub(crate) fn success(self) -> anyhow::Result<Vec<u8>> {
        let code = self.exit_code()?;
        ensure!(code == 0, "exited with code {code}; standard error: {:?}", self.stderr());
        Ok(self.stdout)
    }

    pub(crate) fn trap(self) -> anyhow::Result<Trap> {
        match self.stopped {
            Err(Stop::Trap(trap)) => Ok(trap),
            other => bail!("no trap but {other:?}"),
        }
    }
}
