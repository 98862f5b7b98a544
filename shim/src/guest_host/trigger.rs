//! What makes the guest run.

mod command;
pub mod http;

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::Context as _;
use engines::engine::{GuestConfig, Instance, Module, Stop, WasiConfig};
use engines::module_info::ModuleInfo;
use futures::future::select_all;
use host_abi::host_functions::HostContext;
use nix::libc;
use rustix::process::Signal;
use tokio::net::TcpSocket;
use tokio::runtime::{self, Handle, Runtime};
use tokio::signal::unix::{self, SignalKind};
use tokio_util::sync::CancellationToken;

use super::container_config::Trigger;
use crate::idle_memory::give_back_once_settled;

/// The exit code of a guest that trapped: what a native program that aborts has.
const TRAPPED: u8 = 128 + 6;

/// What every instance of a container is made of.
pub struct Guests {
    pub module: Arc<dyn Module>,
    pub host: Arc<HostContext>,
    pub wasi: WasiConfig,
    /// The export to run in a new instance before its handler is called; see [`initializer`].
    pub initializer: Option<&'static str>,
}

/// What runs once in an instance before its handler is called: a reactor's `_initialize`; the `_start` of a guest that
/// has only that.
pub fn initializer(module: &ModuleInfo) -> Option<&'static str> {
    ["_initialize", "_start"].into_iter().find(|function| module.exports_function(function))
}

impl Guests {
    async fn instantiate(&self, cancel: CancellationToken) -> Result<Box<dyn Instance>, InstantiateError> {
        let wasi = self.wasi.try_clone()?;
        Ok(self.module.instantiate(GuestConfig { wasi, host: Arc::clone(&self.host), cancel }).await?)
    }
}

#[derive(Debug, thiserror::Error)]
enum InstantiateError {
    #[error("cannot share the standard streams: {0}")]
    Streams(#[from] std::io::Error),
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// The threads a trigger needs: one guest runs on one; requests use every core the container may use.
pub(super) fn workers(trigger: &Trigger) -> std::io::Result<Runtime> {
    let threads = match trigger {
        Trigger::Command { .. } => 1,
        Trigger::Http { .. } => available_parallelism().map_or(1, NonZero::get),
    };
    runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// A trigger that nothing but the start stands before.
pub(super) enum ReadyTrigger {
    Command { function: String },
    Http { socket: TcpSocket },
}

/// Does what can fail before the start: an HTTP port is taken, but nobody can connect to it yet.
pub(super) fn prepare(trigger: &Trigger) -> anyhow::Result<ReadyTrigger> {
    Ok(match trigger {
        Trigger::Command { function } => ReadyTrigger::Command { function: function.clone() },
        Trigger::Http { port } => {
            ReadyTrigger::Http { socket: http::bind(*port).with_context(|| format!("cannot listen on port {port}"))? }
        }
    })
}

/// Runs the guest on `workers` until it ends or a signal ends it, and answers the container's exit code. `started` is
/// called once the trigger is at work. To be run apart from `workers`, which a guest may keep busy for ever.
///
/// # Errors
/// The trigger cannot be set up: nothing has run.
pub(super) async fn run(
    trigger: ReadyTrigger,
    guests: Guests,
    workers: &Handle,
    started: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let signals = Signals::listen()?;
    tokio::spawn(give_back_once_settled());
    match trigger {
        ReadyTrigger::Command { function } => command::run(function, guests, workers, signals, started).await,
        ReadyTrigger::Http { socket } => http::run(socket, guests, workers, signals, started).await,
    }
}

/// The signals that end a program unless it does something about them, by number: an image may name any of them as
/// its stop signal, and the kernel spares the first process of a container from those that it does not listen to.
struct Signals(Vec<(i32, unix::Signal)>);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let named = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::TERM];
        let signals = named.map(Signal::as_raw).into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
        let listen = |signal| Ok((signal, unix::signal(SignalKind::from_raw(signal))?));
        Ok(Self(signals.map(listen).collect::<std::io::Result<_>>()?))
    }

    /// The exit code that the next signal asks for: 128 and its number.
    async fn next(&mut self) -> u8 {
        let received = self.0.iter_mut().map(|(signal, listener)| {
            let signal = *signal;
            Box::pin(async move {
                listener.recv().await;
                signal
            })
        });
        let (signal, ..) = select_all(received).await;
        128 + signal as u8
    }
}
