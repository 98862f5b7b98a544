//! Who wakes a guest that never waits.

use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// A thread that waits for cancellations. Guests may keep every thread of their own runtime busy.
pub(super) struct Watch {
    runtime: Handle,
    _end: DropGuard,
}

impl Watch {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        thread::Builder::new().name("cancel".to_owned()).spawn(move || runtime.block_on(ended))?;
        Ok(Self { runtime: handle, _end: end.drop_guard() })
    }

    /// Advances the engine's epoch once `cancel` is cancelled: at its next loop or call, a guest sees the new one.
    pub(super) fn over(&self, engine: wasmtime::Engine, cancel: CancellationToken) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(self.runtime.spawn(async move {
            cancel.cancelled().await;
            engine.increment_epoch();
        }))
    }
}
