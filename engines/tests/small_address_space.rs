//! A process that may map little memory.

#![cfg(feature = "wasmtime")]

use std::sync::Arc;

use engines::engine::{GuestConfig, WasiConfig, compile_and_load};
use engines::wasmtime::Wasmtime;
use rustix::process::{Resource, Rlimit, setrlimit};

#[tokio::test]
async fn guests_who_come_one_after_the_other_need_the_address_space_of_one() {
    let limit = Some(16 << 30);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    let module = wat::parse_str(r#"(module (memory 1) (func (export "run")))"#).unwrap();
    let module = compile_and_load(&Wasmtime::new(), &module).unwrap();
    for _ in 0..100 {
        let wasi = Arc::new(WasiConfig::empty().unwrap());
        let guest = GuestConfig { wasi, host: Arc::default(), initializer: None, cancel: None };
        module.instantiate(guest).await.unwrap().run("run").await.unwrap();
    }
}
