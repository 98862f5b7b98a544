//! What makes the guest run.

mod command;
pub mod http;
mod reports;

use std::sync::Arc;

use anyhow::Context as _;
use engines::engine::{GuestConfig, Module, WasiConfig};
use engines::module_info::ModuleInfo;
use futures::future::select_all;
use host_abi::host_functions::HostContext;
use nix::libc;
use oci_spec::runtime::{LinuxCpu, Spec};
use rustix::process::Signal;
use rustix::thread::sched_getaffinity;
use tokio::net::TcpSocket;
use tokio::signal::unix::{self, SignalKind};

use super::container_config::Trigger;
use super::workers::Workers;
use crate::idle_memory::give_back_once_settled;
use http::HttpOptions;

/// The exit code of a guest that trapped: what a native program that aborts has.
const TRAPPED: u8 = 128 + 6;

/// The time, in microseconds, that a limit on processor time is for, if the limit does not say.
const DEFAULT_PERIOD: u64 = 100_000;

/// What every instance of a container is made of.
pub struct Guests {
    pub module: Arc<dyn Module>,
    pub host: Arc<HostContext>,
    pub wasi: Arc<WasiConfig>,
    /// Of instances whose handler is called; see [`initializer`].
    pub initializer: Option<&'static str>,
}

/// What runs once in an instance before its handler is called: a reactor's `_initialize`; the `_start` of a guest that
/// has only that.
pub fn initializer(module: &ModuleInfo) -> Option<&'static str> {
    ["_initialize", "_start"].into_iter().find(|function| module.exports_function(function))
}

impl Guests {
    /// For one instance, whose handler is called.
    fn config(&self) -> GuestConfig {
        let (wasi, host) = (Arc::clone(&self.wasi), Arc::clone(&self.host));
        GuestConfig { wasi, host, initializer: self.initializer, cancel: None }
    }
}

/// The threads a trigger needs: one guest runs on one; requests use every core the container may use.
pub(super) fn workers(trigger: &Trigger, spec: &Spec) -> std::io::Result<Workers> {
    let threads = match trigger {
        Trigger::Command { .. } => 1,
        Trigger::Http { .. } => cores(spec, sched_getaffinity(None)?.count()),
    };
    Workers::start(threads)
}

/// How many cores a container keeps busy at its limit. `allowed` is how many its process may run on. That is no
/// question for the standard library, which sees a container's limit only where the cgroups are mounted.
fn cores(spec: &Spec, allowed: u32) -> usize {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    let quota = cpu.and_then(|cpu| u64::try_from(cpu.quota()?).ok()).filter(|quota| *quota > 0);
    let period = cpu.and_then(LinuxCpu::period).filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD);
    let limit = quota.map_or(u64::MAX, |quota| quota.div_ceil(period));
    u64::from(allowed).min(limit).max(1) as usize
}

/// A trigger that is ready: only the start is missing.
pub(super) enum ReadyTrigger {
    Command { function: String },
    Http { socket: TcpSocket, options: HttpOptions },
}

/// Does what can fail before the start: an HTTP port is taken, but nobody can connect to it yet.
pub(super) fn prepare(trigger: &Trigger) -> anyhow::Result<ReadyTrigger> {
    Ok(match trigger {
        Trigger::Command { function } => ReadyTrigger::Command { function: function.clone() },
        Trigger::Http { port, options } => {
            let socket = http::bind(*port).with_context(|| format!("cannot listen on port {port}"))?;
            ReadyTrigger::Http { socket, options: options.clone() }
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
    workers: Workers,
    started: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let signals = Signals::listen()?;
    tokio::spawn(give_back_once_settled());
    match trigger {
        ReadyTrigger::Command { function } => command::run(function, guests, workers, signals, started).await,
        ReadyTrigger::Http { socket, options } => http::run(socket, guests, options, workers, signals, started).await,
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

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxBuilder, LinuxCpuBuilder, LinuxResourcesBuilder};

    use super::*;

    fn limited(quota: i64, period: Option<u64>) -> Spec {
        let cpu = LinuxCpuBuilder::default().quota(quota);
        let cpu = if let Some(period) = period { cpu.period(period) } else { cpu };
        let resources = LinuxResourcesBuilder::default().cpu(cpu.build().unwrap()).build().unwrap();
        let mut spec = Spec::default();
        spec.set_linux(Some(LinuxBuilder::default().resources(resources).build().unwrap()));
        spec
    }

    #[test]
    fn requests_use_every_core_that_the_process_may_run_on() {
        assert_eq!(cores(&Spec::default(), 8), 8);
        assert_eq!(cores(&limited(-1, Some(100_000)), 8), 8);
    }

    #[test]
    fn requests_use_as_many_cores_as_the_limit_keeps_busy() {
        assert_eq!(cores(&limited(250_000, None), 8), 3);
        assert_eq!(cores(&limited(50_000, Some(50_000)), 8), 1);
        assert_eq!(cores(&limited(1_000, None), 8), 1);
        assert_eq!(cores(&limited(1_000_000, None), 2), 2);
    }
}
