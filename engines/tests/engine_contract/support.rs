//! Guests in WAT and what is needed to watch them.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engines::engine::{Engine, GuestConfig, Instance, Module, Preopen, Stop, Trap, WasiConfig, compile_and_load};
use host_abi::canonical::ExportCall;
use host_abi::error::Error;
use host_abi::host_functions::HostContext;
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, SetRequest, StateStore};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, so that a guest that hangs fails its test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Makes a test of each named function for each engine that is compiled in.
macro_rules! for_every_engine {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "wasmtime")]
        for_every_engine! { @engine wasmtime $($test),+ }
        #[cfg(feature = "wasmer")]
        for_every_engine! { @engine wasmer $($test),+ }
    };
    (@engine $engine:ident $($test:ident),+) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let engine = $crate::support::engine(stringify!($engine));
                    tokio::time::timeout($crate::support::DEADLINE, super::$test(&*engine)).await.expect("it hangs");
                }
            )+
        }
    };
}

/// Runs a test's work where there is one worker: a guest that blocked it would block everything.
pub(crate) fn on_one_worker(work: impl Future<Output = ()> + Send) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join().unwrap());
}

pub(crate) fn engine(name: &str) -> Arc<dyn Engine> {
    engines::built_in().into_iter().find(|engine| engine.name() == name).expect("the engine is compiled in")
}

/// A module and what its instances get.
pub(crate) struct Guest {
    module: Arc<dyn Module>,
    wasi: WasiConfig,
    host: HostContext,
    pub(crate) cancel: CancellationToken,
}

/// How a guest ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<(), Stop>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Guest {
    pub(crate) fn new(engine: &dyn Engine, wat: impl AsRef<str>) -> Self {
        let module = wat::parse_str(wat).expect("the test's WAT is valid");
        let module = compile_and_load(engine, &module).expect("the engine takes the module");
        let mut wasi = WasiConfig::empty().unwrap();
        wasi.stdout = Arc::new(tempfile::tempfile().unwrap());
        wasi.stderr = Arc::new(tempfile::tempfile().unwrap());
        Self { module, wasi, host: HostContext::default(), cancel: CancellationToken::new() }
    }

    /// One that can use WASI through [`PRELUDE`].
    pub(crate) fn with_wasi(engine: &dyn Engine, functions: impl Display) -> Self {
        Self::new(engine, format!("(module {PRELUDE} {functions})"))
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.wasi.args = args.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn env(mut self, env: &[(&str, &str)]) -> Self {
        self.wasi.env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<std::os::fd::OwnedFd>) -> Self {
        self.wasi.stdin = Arc::new(File::from(stdin.into()));
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<std::os::fd::OwnedFd>) -> Self {
        self.wasi.stdout = Arc::new(File::from(stdout.into()));
        self
    }

    pub(crate) fn preopen(mut self, host: &Path, guest: &str) -> Self {
        self.wasi.preopens.push(Preopen { host: host.to_owned(), guest: guest.to_owned() });
        self
    }

    pub(crate) fn store(mut self, name: &str, store: impl StateStore + 'static) -> Self {
        self.host.state_stores.insert(name.to_owned(), Arc::new(store));
        self
    }

    fn config(&self) -> GuestConfig {
        let host = HostContext { state_stores: self.host.state_stores.clone(), ..HostContext::default() };
        let wasi = Arc::new(self.wasi.clone());
        GuestConfig { wasi, host: Arc::new(host), initializer: None, cancel: Some(self.cancel.clone()) }
    }

    pub(crate) async fn instantiate(&self) -> Result<Box<dyn Instance>, Stop> {
        self.module.instantiate(self.config()).await
    }

    /// Makes a call in a new instance, or only the instance, after `_start`.
    pub(crate) async fn initialize(&self, call: Option<&mut dyn ExportCall>) -> Result<(), Stop> {
        let config = GuestConfig { initializer: Some("_start"), ..self.config() };
        match call {
            Some(call) => self.module.call_once(config, call).await,
            None => self.module.instantiate(config).await.map(drop),
        }
    }

    /// Runs `_start` in a new instance.
    pub(crate) async fn run(self) -> Ended {
        let result = match self.instantiate().await {
            Ok(mut instance) => instance.run("_start").await,
            Err(stop) => Err(stop),
        };
        Ended { result, stdout: written(&self.wasi.stdout), stderr: written(&self.wasi.stderr) }
    }

    /// Runs `_start`, which must trap.
    pub(crate) async fn trap(self) -> Trap {
        match self.run().await.result {
            Err(Stop::Trap(trap)) => trap,
            other => panic!("no trap but {other:?}"),
        }
    }
}

/// What is in a file; a pipe is its test's to read.
fn written(mut file: &File) -> String {
    let mut text = Vec::new();
    if file.rewind().is_err() {
        return String::new();
    }
    file.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// A file to read from the start.
pub(crate) fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

/// A store whose `get` does what a test wants; nothing else is asked of it.
pub(crate) struct GetStore<F>(pub(crate) F);

#[async_trait]
impl<F, W> StateStore for GetStore<F>
where
    F: Fn(GetRequest) -> W + Send + Sync,
    W: Future<Output = GetResponse> + Send,
{
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        Ok(self.0(request).await)
    }

    async fn set(&self, _: SetRequest) -> Result<(), Error> {
        unreachable!("only get is tested through guests")
    }

    async fn delete(&self, _: DeleteRequest) -> Result<(), Error> {
        unreachable!("only get is tested through guests")
    }

    async fn transact(&self, _: Vec<host_abi::state::Operation>) -> Result<(), Error> {
        unreachable!("only get is tested through guests")
    }
}

/// Imports, a memory that is a test's from 4096 to 65536, and helpers: `$print` writes to standard output, `$ok` exits
/// with an error number unless it is 0.
pub(crate) const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $fd_prestat_dir_name (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_link" (func $path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_remove_directory" (func $path_remove_directory (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename" (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "dapr:state/state-interface" "get" (func $get (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65536))
    (data (i32.const 1024) "statekey")

    ;; Gets `key` from the store `state`; the result is at 2048.
    (func $get_key
      (call $get (i32.const 1024) (i32.const 5) (i32.const 1029) (i32.const 3)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048)))

    ;; Never frees.
    (func $allocate (param $align i32) (param $size i32) (result i32) (local $block i32)
      (local.set $block
        (i32.and
          (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
          (i32.sub (i32.const 0) (local.get $align))))
      (global.set $free (i32.add (local.get $block) (local.get $size)))
      (local.get $block))

    (func $ok (param $errno i32)
      (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))

    (func $write (param $fd i32) (param $at i32) (param $bytes i32)
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $bytes))
      (call $ok (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))

    (func $print (param $at i32) (param $bytes i32)
      (call $write (i32.const 1) (local.get $at) (local.get $bytes)))

    ;; Reads up to 4096 bytes to 8192; answers how many there were.
    (func $read (param $fd i32) (result i32)
      (i32.store (i32.const 0) (i32.const 8192))
      (i32.store (i32.const 4) (i32.const 4096))
      (call $ok (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (i32.load (i32.const 8)))

    ;; Prints a descriptor's content to the end.
    (func $cat (param $fd i32) (local $bytes i32)
      (loop $more
        (local.set $bytes (call $read (local.get $fd)))
        (if (local.get $bytes)
          (then (call $print (i32.const 8192) (local.get $bytes)) (br $more)))))

    ;; The preopened directory of a one-letter name, as a libc finds it: the last of that name.
    (func $directory (param $name i32) (result i32) (local $fd i32) (local $found i32)
      (local.set $fd (i32.const 3))
      (block $end
        (loop $next
          (br_if $end (call $fd_prestat_get (local.get $fd) (i32.const 16)))
          (if (i32.eq (i32.load (i32.const 20)) (i32.const 1))
            (then
              (call $ok (call $fd_prestat_dir_name (local.get $fd) (i32.const 32) (i32.const 1)))
              (if (i32.eq (i32.load8_u (i32.const 32)) (local.get $name)) (then (local.set $found (local.get $fd))))))
          (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
          (br $next)))
      (local.get $found))
    (func $root (result i32) (call $directory (i32.const 0x2f)))

    ;; Opens a path for what the flags say; links are followed. The error number; the descriptor is at 12.
    (func $open (param $dir i32) (param $path i32) (param $length i32) (param $oflags i32) (param $rights i64) (result i32)
      (call $path_open (local.get $dir) (i32.const 1) (local.get $path) (local.get $length) (local.get $oflags)
        (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 12)))
    (func $opened (result i32) (i32.load (i32.const 12)))

    ;; Sleeps for some nanoseconds.
    (func $sleep (param $nanoseconds i64)
      (i64.store (i32.const 64) (i64.const 0))
      (i64.store (i32.const 72) (i64.const 0))
      (i64.store (i32.const 80) (i64.const 1))
      (i64.store (i32.const 88) (local.get $nanoseconds))
      (i64.store (i32.const 96) (i64.const 0))
      (i64.store (i32.const 104) (i64.const 0))
      (call $ok (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8))))
"#;
