//! Ending a guest from outside of its thread.

use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wasmer::Interrupter;
use wasmer_wasix::WasiProcess;
use wasmer_wasix::wasmer_wasix_types::wasi::Signal;

use crate::engine::Stop;

/// How often a cancelled guest is interrupted until it has ended: an interrupt that comes while the thread is on its
/// way between guest and host can be lost.
const INTERVAL: Duration = Duration::from_millis(2);

/// A guest that still runs after so many interrupts is reported: no known guest takes as long.
const REMARKABLY_OFTEN: u32 = 5000;

/// What a guest is interrupted by, from its start to its end.
#[derive(Default)]
pub(super) struct GuestHandle {
    guest: Mutex<Option<(Interrupter, WasiProcess)>>,
    interrupted: Arc<AtomicBool>,
}

impl GuestHandle {
    /// To be called before the guest runs.
    pub(super) fn open(&self, interrupter: Interrupter, process: WasiProcess) {
        *self.lock() = Some((interrupter, process));
    }

    /// Says, once it is so, that the guest was interrupted.
    pub(super) fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    /// No interrupt is sent any more when this returns.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Wakes a guest that sleeps, and interrupts one that runs or that waits in a system call of its host. One that
    /// waits in a host function of this project sees the token itself.
    fn interrupt(&self) {
        if let Some((interrupter, process)) = &*self.lock() {
            self.interrupted.store(true, Ordering::Relaxed);
            process.signal_process(Signal::Sigkill);
            interrupter.interrupt();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Interrupter, WasiProcess)>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a guest that is cancelled, or that nobody waits for any more.
pub(super) struct Cancellation {
    runtime: Handle,
    /// Of this guest alone.
    cancel: CancellationToken,
    guest: Weak<GuestHandle>,
}

impl Cancellation {
    pub(super) fn new(cancel: CancellationToken, guest: &Arc<GuestHandle>) -> Self {
        Self { runtime: Handle::current(), cancel, guest: Arc::downgrade(guest) }
    }

    /// Waits until the guest has ended. Whoever stops waiting cancels the guest.
    pub(super) async fn until_ended<T>(&self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        // On a busy machine the interrupt may come later than the guest's first words.
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let cancel_on_drop = CancelOnDrop(self);
        let ended = match select(pin!(work), pin!(self.cancel.cancelled())).await {
            Either::Left((ended, _)) => ended,
            Either::Right(((), work)) => {
                self.interrupt();
                work.await
            }
        };
        mem::forget(cancel_on_drop);
        // An interrupt shows as a trap, an exit or an error of whatever the guest was doing.
        if self.cancel.is_cancelled() { ended.map_err(|_| Stop::Cancelled) } else { ended }
    }

    /// Interrupts the guest until it has ended.
    fn interrupt(&self) {
        let guest = Weak::clone(&self.guest);
        self.runtime.spawn(async move {
            for times in 1_u32.. {
                let Some(guest) = guest.upgrade() else { return };
                guest.interrupt();
                drop(guest);
                if times == REMARKABLY_OFTEN {
                    tracing::warn!("a guest that was cancelled does not end, and goes on being interrupted");
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
    }
}

/// Cancels the guest when the wait for it is given up.
struct CancelOnDrop<'a>(&'a Cancellation);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel.cancel();
        self.0.interrupt();
    }
}
