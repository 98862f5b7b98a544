//! Who keeps guests from holding a thread for ever.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// How long a guest may run before it lets others have its thread, and looks whether it was cancelled.
const TURN: Duration = Duration::from_millis(10);
/// With more threads than these, some count in the same place.
const PLACES: usize = 16;

/// A thread that advances the engine's epoch at every turn, as long as any guest runs. Guests may keep every thread of
/// their own runtime busy.
pub(super) struct Watch {
    guests: Arc<Guests>,
    watcher: Thread,
}

#[derive(Default)]
struct Guests {
    /// How many run. Each thread counts in a place of its own: a place that two processors count in goes back and forth
    /// between them.
    running: [CachePadded<AtomicUsize>; PLACES],
    /// Whoever begins to run has to wake the watcher.
    is_asleep: AtomicBool,
    /// Nobody is left who could run one.
    gone: AtomicBool,
}

impl Guests {
    /// The place of the thread that asks.
    fn place(&self) -> &AtomicUsize {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        &self.running[THREAD.with(|thread| thread % PLACES)]
    }

    fn any_runs(&self) -> bool {
        self.running.iter().any(|running| running.load(Ordering::SeqCst) > 0)
    }
}

/// A guest that runs.
pub(super) struct Running<'a>(&'a AtomicUsize);

impl Watch {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        let guests = Arc::new(Guests::default());
        let watched = Arc::clone(&guests);
        let turns = move || {
            while !watched.gone.load(Ordering::SeqCst) {
                // Before the look at the guests, as a guest looks for it once it is counted: one of both sees the other.
                watched.is_asleep.store(true, Ordering::SeqCst);
                if watched.any_runs() {
                    watched.is_asleep.store(false, Ordering::SeqCst);
                    thread::sleep(TURN);
                    engine.increment_epoch();
                } else {
                    thread::park();
                }
            }
        };
        let thread = thread::Builder::new().name("turns".to_owned()).spawn(turns)?;
        Ok(Self { guests, watcher: thread.thread().clone() })
    }

    /// A guest runs until the answer is dropped, be it on another thread.
    pub(super) fn running(&self) -> Running<'_> {
        let place = self.guests.place();
        place.fetch_add(1, Ordering::SeqCst);
        if self.guests.is_asleep.load(Ordering::SeqCst) {
            self.watcher.unpark();
        }
        Running(place)
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
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
