//! wasmer interrupts guests with SIGUSR1, which containers are sent, too.

#![cfg(feature = "wasmer")]

use std::sync::Arc;
use std::time::Duration;

use engines::engine::{GuestConfig, Module, Stop, WasiConfig, compile_and_load};
use engines::wasmer::Wasmer;
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Runs a guest that loops for ever until it is cancelled.
async fn interrupt_a_guest(module: &Arc<dyn Module>) {
    let cancel = CancellationToken::new();
    let wasi = Arc::new(WasiConfig::empty().unwrap());
    let guest = GuestConfig { wasi, host: Arc::default(), initializer: None, cancel: Some(cancel.clone()) };
    let mut instance = module.instantiate(guest).await.unwrap();
    let guest = tokio::spawn(async move { instance.run("_start").await });
    sleep(Duration::from_millis(20)).await;
    cancel.cancel();
    assert!(matches!(guest.await.unwrap(), Err(Stop::Cancelled)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_is_for_its_guest_and_a_signal_for_its_listener() {
    let endless = wat::parse_str(r#"(module (func (export "_start") (loop $forever (br $forever))))"#).unwrap();
    let module = compile_and_load(&Wasmer::new(), &endless).unwrap();
    // wasmer has its handler by now, and this one comes before it.
    let mut listener = signal(SignalKind::user_defined1()).unwrap();

    interrupt_a_guest(&module).await;
    assert!(timeout(Duration::from_millis(50), listener.recv()).await.is_err(), "that was wasmer's");

    kill_process(getpid(), Signal::USR1).unwrap();
    timeout(Duration::from_secs(5), listener.recv()).await.expect("that was the listener's");

    interrupt_a_guest(&module).await;
    assert!(timeout(Duration::from_millis(50), listener.recv()).await.is_err(), "that was wasmer's again");
}
