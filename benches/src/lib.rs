//! What the benchmarks share: every engine, and guests to measure them with.

#![forbid(unsafe_code)]

mod large_module;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::{env, fs};

use engines::engine::{Engine, GuestConfig, Instance, Module, WasiConfig};
use host_abi::host_functions::HostContext;
use tokio::runtime::{Builder, Runtime};

pub use large_module::large_module;

/// How often [`STATE_GETS`] asks.
pub const GETS: u32 = 1000;

/// Exports `run`, which gets the key `key` from the store `state` [`GETS`] times.
pub const STATE_GETS: &str = r#"(module
  (import "dapr:state/state-interface" "get"
    (func $get (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "state")
  (data (i32.const 32) "key")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "run") (local $left i32)
    (local.set $left (i32.const 1000))
    (loop $again
      (call $get (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 3)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;

/// Where this program was built: the folder above `release`.
///
/// # Panics
/// If it was moved elsewhere.
pub fn target_folder() -> PathBuf {
    let program = env::current_exe().expect("the path of this program");
    let release = program.ancestors().find(|folder| folder.ends_with("release")).expect("a folder of programs");
    release.parent().expect("a target folder").to_owned()
}

/// A guest that `make guests` compiled.
///
/// # Panics
/// If it is not there.
pub fn guest(name: &str) -> Vec<u8> {
    let path = target_folder().join("guests").join(name).with_extension("wasm");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `make guests` compiles it", path.display()))
}

/// The runtime that guests need, with a worker for each core.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

pub fn load(engine: &dyn Engine, module: &[u8]) -> Arc<dyn Module> {
    engines::engine::compile_and_load(engine, module).expect("a module that every engine runs")
}

/// What an instance gets: WASI, but without files.
pub fn guest_config(host: &Arc<HostContext>) -> GuestConfig {
    static WASI: LazyLock<Arc<WasiConfig>> = LazyLock::new(|| Arc::new(WasiConfig::empty().expect("/dev/null")));
    GuestConfig { wasi: Arc::clone(&WASI), host: Arc::clone(host), initializer: None, cancel: None }
}

/// A new instance.
pub async fn instantiate(module: &dyn Module, host: &Arc<HostContext>) -> Box<dyn Instance> {
    module.instantiate(guest_config(host)).await.expect("a guest that starts")
}
