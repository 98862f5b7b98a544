//! Who keeps guests from holding a thread for ever.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;

/// How long a guest may run before it lets others have its thread, and looks whether it was cancelled.
const TURN: Duration = Duration::from_millis(10);

/// A thread that advances the engine's epoch at every turn, as long as any guest runs. Guests may keep every thread of
/// their own runtime busy.
pub(super) struct Watch {
    running: Arc<watch::Sender<usize>>,
}

/// A guest that runs.
pub(super) struct Running(Arc<watch::Sender<usize>>);

impl Watch {
    pub(super) fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (running, mut seen) = watch::channel(0_usize);
        // It ends when nobody is left who could run a guest.
        let turns = async move {
            while seen.wait_for(|running| *running > 0).await.is_ok() {
                tokio::time::sleep(TURN).await;
                engine.increment_epoch();
            }
        };
        thread::Builder::new().name("turns".to_owned()).spawn(move || runtime.block_on(turns))?;
        Ok(Self { running: Arc::new(running) })
    }

    /// A guest runs until the answer is dropped.
    pub(super) fn running(&self) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running(Arc::clone(&self.running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}
