//! Who keeps guests from holding a thread for ever.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long a guest may run before it lets others have its thread, and looks whether it was cancelled.
const TURN: Duration = Duration::from_millis(10);

/// A thread that advances the engine's epoch at every turn, as long as any guest runs. Guests may keep every thread of
/// their own runtime busy.
pub(super) struct Watch {
    guests: Arc<Guests>,
    watcher: Thread,
}

#[derive(Default)]
struct Guests {
    running: AtomicUsize,
    /// Nobody is left who could run one.
    gone: AtomicBool,
}

/// A guest that runs.
pub(super) struct Running<'a>(&'a Guests);

impl Watch {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        let guests = Arc::new(Guests::default());
        let watched = Arc::clone(&guests);
        let turns = move || {
            while !watched.gone.load(Ordering::SeqCst) {
                if watched.running.load(Ordering::SeqCst) == 0 {
                    thread::park();
                } else {
                    thread::sleep(TURN);
                    engine.increment_epoch();
                }
            }
        };
        let thread = thread::Builder::new().name("turns".to_owned()).spawn(turns)?;
        Ok(Self { guests, watcher: thread.thread().clone() })
    }

    /// A guest runs until the answer is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        if self.guests.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.watcher.unpark();
        }
        Running(&self.guests)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.guests.gone.store(true, Ordering::SeqCst);
        self.watcher.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
