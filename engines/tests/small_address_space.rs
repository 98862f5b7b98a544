//! A process that may map little memory.

#![cfg(feature = "wasmtime")]

use std::sync::Arc;

use engines::engine::{GuestConfig, WasiConfig, compile_and_load};
use engines::wasmtime::Wasmtime;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn instances_are_made_without_a_pool_where_there_is_no_room_for_one() {
    let limit = Some(64 << 30);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    let module = wat::parse_str(r#"(module (memory 1) (func (export "run")))"#).unwrap();
    let module = compile_and_load(&Wasmtime::new(), &module, 1000).unwrap();
    for _ in 0..3 {
        let wasi = Arc::new(WasiConfig::empty().unwrap());
        let guest = GuestConfig { wasi, host: Arc::default(), cancel: CancellationToken::new() };
        module.instantiate(guest).await.unwrap().run("run").await.unwrap();
    }
}
