//! The threads that guests live on: wasmer's store cannot leave the one it was made on. A thread whose guest is gone
//! waits a while for the next one, since starting a thread takes as long as making an instance.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::guest::RunningGuest;
use super::interrupt::GuestHandle;
use super::store::{LinkedStore, StartedGuest};
use super::{LoadedModule, signal, stop};
use crate::engine::{GuestConfig, Stop};

/// How many threads wait for a guest, at most, and how long.
const MOST_IDLE: usize = 64;
const IDLE_TIME: Duration = Duration::from_secs(10);

/// The threads without a guest. Who came last goes first: its stack and its memory are in a processor's cache.
static IDLE: Mutex<Vec<Thread>> = Mutex::new(Vec::new());

type Job = Box<dyn FnOnce(&mut Slot) + Send>;

/// The place on a thread where a guest is, or was.
#[derive(Default)]
struct Slot {
    guest: Option<StartedGuest>,
    /// Of the last guest, where it can be used again.
    store: Option<LinkedStore>,
}

impl Slot {
    fn start(&mut self, module: &Arc<LoadedModule>, guest: GuestConfig, handle: Arc<GuestHandle>) -> Result<(), Stop> {
        let kept = self.store.take().filter(|store| store.is_of(module));
        let store = kept.map_or_else(|| LinkedStore::new(module), Ok).map_err(stop::failed)?;
        self.guest = Some(store.start(guest, handle)?);
        Ok(())
    }

    fn run<T>(&mut self, work: impl FnOnce(RunningGuest<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        match &mut self.guest {
            Some(guest) => guest.run(work),
            None => Err(stop::failed("the guest is gone")),
        }
    }

    fn end(&mut self) {
        self.store = self.guest.take().and_then(StartedGuest::end);
    }
}

struct Thread {
    id: ThreadId,
    jobs: Sender<Job>,
}

impl Thread {
    fn idle_or_new() -> Result<Self, Stop> {
        let idle = idle().pop();
        idle.map_or_else(Self::start, Ok)
    }

    fn start() -> Result<Self, Stop> {
        let (jobs, inbox) = mpsc::channel();
        let thread =
            thread::Builder::new().name("guest".to_owned()).spawn(move || work(&inbox)).map_err(stop::failed)?;
        Ok(Self { id: thread.thread().id(), jobs })
    }

    /// Has the guest be gone, and waits for the next one, or ends if too many wait.
    fn free(self, slot: &mut Slot) {
        slot.end();
        let mut idle = idle();
        if idle.len() < MOST_IDLE {
            idle.push(self);
        }
    }
}

fn idle() -> MutexGuard<'static, Vec<Thread>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each thread does.
fn work(inbox: &Receiver<Job>) {
    signal::prepare_thread();
    let mut slot = Slot::default();
    loop {
        let job = match slot.guest {
            Some(_) => inbox.recv().map_err(RecvTimeoutError::from),
            None => inbox.recv_timeout(IDLE_TIME),
        };
        match job {
            Ok(job) => job(&mut slot),
            Err(RecvTimeoutError::Timeout) => idle().retain(|idle| idle.id != thread::current().id()),
            // Nobody has any work for it, nor will have.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A guest on its thread. When this is dropped, the guest is gone after the job at hand, and the thread is free.
pub(super) struct GuestThread {
    /// There until this is dropped.
    thread: Option<Thread>,
    runtime: Handle,
}

impl GuestThread {
    /// Makes a guest, which belongs to the runtime of whoever asks.
    pub(super) async fn start(
        module: Arc<LoadedModule>,
        guest: GuestConfig,
        handle: Arc<GuestHandle>,
    ) -> Result<Self, Stop> {
        let started = Self { thread: Some(Thread::idle_or_new()?), runtime: Handle::current() };
        started.ask(move |slot| slot.start(&module, guest, handle)).await?;
        Ok(started)
    }

    /// Has the guest do something on its thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(RunningGuest<'_>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Stop> {
        self.ask(|slot| slot.run(work)).await
    }

    /// Makes a guest that does one thing and is gone.
    pub(super) async fn run_once<T: Send + 'static>(
        module: Arc<LoadedModule>,
        guest: GuestConfig,
        handle: Arc<GuestHandle>,
        work: impl FnOnce(RunningGuest<'_>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Stop> {
        let thread = Thread::idle_or_new()?;
        let jobs = thread.jobs.clone();
        let work = move |slot: &mut Slot| {
            slot.start(&module, guest, handle)?;
            slot.run(work)
        };
        let (job, answer) = job(Handle::current(), work, move |slot| thread.free(slot));
        let _ = jobs.send(job);
        received(answer).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Slot) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Stop> {
        let (job, answer) = job(self.runtime.clone(), work, |_| {});
        if let Some(thread) = &self.thread {
            let _ = thread.jobs.send(job);
        }
        received(answer).await
    }
}

type Answer<T> = oneshot::Receiver<Result<T, Stop>>;

/// Work, what is left to do once its answer was sent, and where that arrives.
fn job<T: Send + 'static>(
    runtime: Handle,
    work: impl FnOnce(&mut Slot) -> Result<T, Stop> + Send + 'static,
    afterwards: impl FnOnce(&mut Slot) + Send + 'static,
) -> (Job, Answer<T>) {
    let (done, answer) = oneshot::channel();
    let job = move |slot: &mut Slot| {
        let _runtime = runtime.enter();
        let _ = done.send(work(slot));
        afterwards(slot);
    };
    (Box::new(job), answer)
}

/// A panic of the engine ends its guest and its thread, and those only. A thread that is gone drops its jobs, and with
/// them the other end of the answer.
async fn received<T>(answer: Answer<T>) -> Result<T, Stop> {
    answer.await.unwrap_or_else(|_| Err(stop::failed("the engine failed")))
}

impl Drop for GuestThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let (jobs, runtime) = (thread.jobs.clone(), self.runtime.clone());
        let free = move |slot: &mut Slot| {
            let _runtime = runtime.enter();
            thread.free(slot);
        };
        let _ = jobs.send(Box::new(free));
    }
}
