//! What an engine must do. This file imports no engine.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use host_abi::canonical::{AbiError, ExportCall};
use host_abi::host_functions::HostContext;
use tokio_util::sync::CancellationToken;

use crate::artifact_cache::Artifact;
use crate::names;

/// An engine: compiles modules, loads artifacts, runs instances.
///
/// Concurrency: everything may be used from any number of threads at once. Instances are made and called inside a tokio
/// runtime, which may have one thread; the functions of this trait need none. [`compile`](Self::compile) may use all cores.
pub trait Engine: Send + Sync {
    /// The value of the annotation `dapr.wasm/engine` that chooses this engine.
    fn name(&self) -> &'static str;

    /// Everything but the module that an artifact depends on: version, configuration, processor features. Two
    /// engines with equal fingerprints load each other's artifacts.
    fn fingerprint(&self) -> String;

    /// Validates and compiles the bytes of a core module.
    ///
    /// # Errors
    /// The module's fault: it is not valid, or uses what the engine does not support.
    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError>;

    /// Makes an artifact ready for instantiation and links every host function and WASI to it. In the container's process:
    /// descriptors that were opened when the engine was made are as they were; those opened later, before this call, are not
    /// usable.
    ///
    /// # Errors
    /// The artifact is not this engine's, or the module imports something with another type.
    ///
    /// # Safety
    /// The artifact is native code. It must be what [`compile`](Self::compile) answered for an equal
    /// [`fingerprint`](Self::fingerprint), unchanged; never bytes that came with an image.
    #[expect(unsafe_code, reason = "the caller vouches for the artifact")]
    unsafe fn load(&self, artifact: &Artifact) -> Result<Arc<dyn Module>, LoadError>;
}

/// A loaded module.
#[async_trait]
pub trait Module: Send + Sync {
    /// A new instance with a memory of its own, its start function run, and its initializer.
    ///
    /// # Errors
    /// The guest's fault ([`Stop`]) or lack of memory, which is a trap as well.
    async fn instantiate(&self, guest: GuestConfig) -> Result<Box<dyn Instance>, Stop>;

    /// Makes a call in a new instance, which ends with it. An engine that has a shorter way for both takes it.
    ///
    /// # Errors
    /// As for [`instantiate`](Self::instantiate) and [`Instance::call`].
    async fn call_once(&self, guest: GuestConfig, call: &mut dyn ExportCall) -> Result<(), Stop> {
        self.instantiate(guest).await?.call(call).await
    }
}

/// A running guest. One call at a time; after an error it is of no more use.
///
/// Cancellation: every call ends soon after [`GuestConfig::cancel`] is cancelled, with [`Stop::Cancelled`], also when
/// the guest loops for ever or waits for a host function. A call whose future is dropped ends as well, and no one is told.
#[async_trait]
pub trait Instance: Send {
    /// Calls an export without parameters and results, such as `_start`.
    async fn run(&mut self, export: &str) -> Result<(), Stop>;

    /// Calls an export through the canonical ABI.
    async fn call(&mut self, call: &mut dyn ExportCall) -> Result<(), Stop>;
}

/// What one instance gets.
pub struct GuestConfig {
    pub wasi: Arc<WasiConfig>,
    pub host: Arc<HostContext>,
    /// The export to call before anything else. It may end with exit code 0 as well as return.
    pub initializer: Option<&'static str>,
    /// Ends the guest wherever it is, for whoever goes on to wait for its end.
    pub cancel: Option<CancellationToken>,
}

/// WASI preview 1, as a guest sees it. Instances that have the same write to the same files.
#[derive(Clone)]
pub struct WasiConfig {
    /// The program's name first.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdin: Arc<File>,
    pub stdout: Arc<File>,
    pub stderr: Arc<File>,
    pub preopens: Vec<Preopen>,
}

impl WasiConfig {
    /// Neither arguments, environment, files nor input; output is thrown away.
    pub fn empty() -> std::io::Result<Self> {
        let null = Arc::new(File::options().read(true).write(true).open("/dev/null")?);
        Ok(Self {
            args: Vec::new(),
            env: Vec::new(),
            stdin: Arc::clone(&null),
            stdout: Arc::clone(&null),
            stderr: null,
            preopens: Vec::new(),
        })
    }
}

/// A directory of the host that a guest may use with all its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preopen {
    pub host: PathBuf,
    /// Its name for the guest: an absolute path or `.`. What is called `.` lies in a directory with an absolute path.
    pub guest: String,
}

/// What the end of an initializer means for its instance.
pub(crate) fn initialized(ended: Result<(), Stop>) -> Result<(), Stop> {
    ended.or_else(|stop| if matches!(stop, Stop::Exit(0)) { Ok(()) } else { Err(stop) })
}

/// Why a guest ended other than by returning.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// `proc_exit`, with any code, 0 included.
    #[error("exited with code {0}")]
    Exit(u32),
    #[error(transparent)]
    Trap(#[from] Trap),
    #[error("cancelled")]
    Cancelled,
}

impl Stop {
    /// A trigger or a host function needs an export that the module does not have.
    pub(crate) fn missing_export(export: &str) -> Self {
        let message = Some(format!("no exported function {export:?} of the type that is called"));
        Self::Trap(Trap { kind: TrapKind::MissingExport, message, backtrace: None })
    }

    /// A guest's allocator runs on behalf of a host function: it may not call another one.
    pub(crate) fn host_call_while_allocating(interface: &str, function: &str) -> Self {
        let message = Some(format!("{interface}.{function}: called by cabi_realloc"));
        Self::Trap(Trap { kind: TrapKind::HostAbi, message, backtrace: None })
    }
}

impl From<AbiError> for Stop {
    fn from(error: AbiError) -> Self {
        Self::Trap(Trap::host_abi(&error))
    }
}

/// The most elements that a guest's table may have: as many as browsers allow (WebAssembly JavaScript Interface,
/// "Implementation-defined Limits").
pub(crate) const MOST_TABLE_ELEMENTS: u32 = 10_000_000;

/// The functions that a backtrace names, innermost first: as many as wasmtime names. A recursive guest may be in tens of
/// thousands.
const MOST_FRAMES: usize = 20;

/// A guest did what no guest may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Trap {
    pub kind: TrapKind,
    /// What the kind alone does not say.
    pub message: Option<String>,
    /// The guest's functions, innermost first, a line each; a guest stripped of names has their indices.
    pub backtrace: Option<String>,
}

impl Trap {
    /// The guest broke the canonical ABI.
    pub(crate) fn host_abi(error: &AbiError) -> Self {
        Self { kind: TrapKind::HostAbi, message: Some(error.to_string()), backtrace: None }
    }

    /// The text of a backtrace, from the guest's functions: their names, or their indices.
    pub(crate) fn backtrace<'a>(frames: impl Iterator<Item = (Option<&'a str>, u32)>) -> Option<String> {
        let mut lines = String::new();
        for (name, index) in frames.take(MOST_FRAMES) {
            let _ = match name {
                Some(name) => writeln!(lines, "  at {}", names::shown(name)),
                None => writeln!(lines, "  at function {index}"),
            };
        }
        (!lines.is_empty()).then_some(lines)
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trap: {}", self.kind)?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        if let Some(backtrace) = &self.backtrace {
            write!(f, "\nwasm backtrace:\n{}", backtrace.trim_end())?;
        }
        Ok(())
    }
}

/// The kinds of trap, worded the same on every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrapKind {
    Unreachable,
    StackOverflow,
    MemoryOutOfBounds,
    TableOutOfBounds,
    IndirectCallToNull,
    BadSignature,
    IntegerOverflow,
    IntegerDivisionByZero,
    BadConversionToInteger,
    UnalignedAtomic,
    /// The guest handed the host something that is not what its interface says.
    HostAbi,
    /// No export of the name and type that a trigger needs.
    MissingExport,
    /// Whatever an engine has beside these; the message says it.
    Other,
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable instruction executed",
            Self::StackOverflow => "call stack exhausted",
            Self::MemoryOutOfBounds => "out of bounds memory access",
            Self::TableOutOfBounds => "out of bounds table access",
            Self::IndirectCallToNull => "indirect call to null",
            Self::BadSignature => "indirect call type mismatch",
            Self::IntegerOverflow => "integer overflow",
            Self::IntegerDivisionByZero => "integer divide by zero",
            Self::BadConversionToInteger => "invalid conversion to integer",
            Self::UnalignedAtomic => "unaligned atomic",
            Self::HostAbi => "host interface misused",
            Self::MissingExport => "missing export",
            Self::Other => "error",
        })
    }
}

/// A module that an engine will not compile.
#[derive(Debug, thiserror::Error)]
#[error("{engine} cannot compile the module: {reason}")]
pub struct CompileError {
    pub engine: &'static str,
    pub reason: String,
}

/// An artifact that an engine will not load.
#[derive(Debug, thiserror::Error)]
#[error("{engine} cannot load the compiled module: {reason}")]
pub struct LoadError {
    pub engine: &'static str,
    pub reason: String,
}

/// Compiles in memory and loads: for tests, benches and short-lived programs, where a cache is no use.
pub fn compile_and_load(engine: &dyn Engine, module: &[u8]) -> anyhow::Result<Arc<dyn Module>> {
    let artifact = Artifact::in_memory(&engine.compile(module)?)?;
    // SAFETY: the artifact comes from this very engine and no one else has its file.
    #[expect(unsafe_code, reason = "see above")]
    let module = unsafe { engine.load(&artifact) }?;
    Ok(module)
}
