//! The threads that guests run on.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// A turn of this length was spent at work, or without a processor.
const LONG_TURN: Duration = Duration::from_millis(1);
/// Work that has so many of them, one after the other, is long: a thread can be without a processor once.
const LONG_TURNS: u32 = 2;
/// How many tasks fewer another thread has to have before a task goes there.
const CLEARLY_FEWER: usize = 2;

/// Threads with a runtime each: what begins on one has its timers and what it opens there, and no other thread need be
/// woken for it. Only work that turns out to be long goes on elsewhere. See docs/decisions/0010-workers.md.
///
/// A clone is the same workers; they end with the last one.
#[derive(Clone)]
pub struct Workers(Arc<Threads>);

struct Threads {
    short: Vec<Handle>,
    /// Started when there is long work; none where there can be no more threads.
    long: OnceLock<Option<Vec<Handle>>>,
    end: CancellationToken,
    _ends: DropGuard,
}

impl Workers {
    /// Starts so many threads, at least one.
    pub fn start(count: usize) -> io::Result<Self> {
        let end = CancellationToken::new();
        let ends = end.clone().drop_guard();
        Ok(Self(Arc::new(Threads { short: start(count.max(1), &end)?, long: OnceLock::new(), end, _ends: ends })))
    }

    /// The runtimes of all workers.
    pub fn runtimes(&self) -> &[Handle] {
        &self.0.short
    }

    /// The runtime for one more task: that of the worker that asks, unless another has clearly fewer.
    pub fn runtime(&self) -> &Handle {
        least_busy(&self.0.short)
    }

    /// Does something on the worker that asks, as long as it is short or waits. What is long goes on with all other long work
    /// on threads apart, and the worker is free.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub(super) async fn run_here_while_short<W>(&self, work: W) -> W::Output
    where
        W: Future + Send + 'static,
        W::Output: Send + 'static,
    {
        let mut outcome = unless_long(Box::pin(work), || true).await;
        loop {
            let work = match outcome {
                Ok(output) => return output,
                Err(work) => work,
            };
            let Some(threads) = self.long_threads() else { return work.await };
            let threads = threads.to_vec();
            let thread = least_busy(&threads).clone();
            let elsewhere = thread.spawn(unless_long(work, move || !is_here(least_busy(&threads))));
            outcome = AbortOnDropHandle::new(elsewhere).await.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        }
    }

    fn long_threads(&self) -> Option<&[Handle]> {
        let Threads { short, long, end, .. } = &*self.0;
        let threads = long.get_or_init(|| {
            let started = start(short.len(), end);
            started.inspect_err(|error| tracing::warn!(%error, "no threads for requests that take long")).ok()
        });
        threads.as_deref()
    }
}

/// What a task spawns of itself, as each stream of an HTTP/2 connection, is a task like any other.
impl<F> Executor<F> for Workers
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.runtime().spawn(task);
    }
}

fn start(count: usize, end: &CancellationToken) -> io::Result<Vec<Handle>> {
    let threads = (0..count).map(|_| {
        let (runtime, end) = (Builder::new_current_thread().enable_all().build()?, end.clone());
        let handle = runtime.handle().clone();
        thread::Builder::new().name("worker".to_owned()).spawn(move || runtime.block_on(end.cancelled_owned()))?;
        Ok(handle)
    });
    threads.collect()
}

/// The runtime that one more task is for: the one it comes from, unless another has clearly fewer tasks.
fn least_busy(runtimes: &[Handle]) -> &Handle {
    let tasks = |runtime: &&Handle| runtime.metrics().num_alive_tasks();
    let idlest = runtimes.iter().min_by_key(tasks).expect("at least one thread");
    let here = runtimes.iter().find(|runtime| is_here(runtime));
    here.filter(|here| tasks(here) < tasks(&idlest) + CLEARLY_FEWER).unwrap_or(idlest)
}

fn is_here(runtime: &Handle) -> bool {
    Handle::try_current().is_ok_and(|here| here.id() == runtime.id())
}

/// What comes of the work; or the work itself, as soon as it turned out to be long and should `leave`.
async fn unless_long<W: Future>(work: Pin<Box<W>>, leave: impl Fn() -> bool) -> Result<W::Output, Pin<Box<W>>> {
    let (mut work, mut long_turns) = (Some(work), 0);
    poll_fn(|context| {
        let begun = Instant::now();
        if let Poll::Ready(output) = work.as_mut().expect("work that is still here").as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        long_turns = if begun.elapsed() < LONG_TURN { 0 } else { long_turns + 1 };
        let left = work.take_if(|_| long_turns >= LONG_TURNS && leave());
        left.map_or(Poll::Pending, |work| Poll::Ready(Err(work)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::thread::ThreadId;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// Has a piece of work done on a worker.
    fn answer<W>(workers: &Workers, work: W) -> std::thread::Result<W::Output>
    where
        W: Future + Send + 'static,
        W::Output: Send + 'static,
    {
        let (runtime, workers) = (workers.runtime().clone(), workers.clone());
        let done = runtime.spawn(async move { workers.run_here_while_short(work).await });
        let waiting = Builder::new_current_thread().build().unwrap();
        waiting.block_on(done).map_err(|error| error.into_panic())
    }

    fn here() -> ThreadId {
        thread::current().id()
    }

    async fn long_turn() {
        let begun = Instant::now();
        while begun.elapsed() < LONG_TURN {}
        yield_now().await;
    }

    async fn long() {
        for _ in 0..=LONG_TURNS {
            long_turn().await;
        }
    }

    #[test]
    fn what_is_short_or_waits_stays_on_its_worker() {
        let workers = Workers::start(1).unwrap();
        let work = async {
            let began = here();
            for _ in 0..100 {
                yield_now().await;
            }
            began == here()
        };
        assert!(answer(&workers, work).unwrap());
    }

    #[test]
    fn what_is_long_goes_on_elsewhere() {
        let workers = Workers::start(1).unwrap();
        let worker = answer(&workers, async { here() }).unwrap();
        let long = async {
            let began = here();
            long().await;
            (began, here())
        };
        let (began, ended) = answer(&workers, long).unwrap();
        assert_eq!(began, worker);
        assert_ne!(ended, worker);
    }

    #[test]
    fn a_thread_that_was_without_a_processor_once_keeps_its_work() {
        let workers = Workers::start(1).unwrap();
        let work = async {
            let began = here();
            long_turn().await;
            yield_now().await;
            began == here()
        };
        assert!(answer(&workers, work).unwrap());
    }

    #[test]
    fn tasks_are_spread_over_the_workers() {
        let workers = Workers::start(3).unwrap();
        for _ in 0..30 {
            workers.runtime().spawn(pending::<()>());
        }
        let tasks: Vec<_> = workers.0.short.iter().map(|runtime| runtime.metrics().num_alive_tasks()).collect();
        assert_eq!(tasks, [10; 3]);
    }

    #[test]
    fn a_task_stays_where_it_comes_from_unless_another_worker_has_clearly_fewer() {
        let workers = Workers::start(2).unwrap();
        let [one, two] = &workers.0.short[..] else { unreachable!("two workers") };
        let next = |runtime: &Handle| {
            let _runtime = runtime.enter();
            workers.runtime().id()
        };
        assert_eq!([next(one), next(two)], [one.id(), two.id()]);
        one.spawn(pending::<()>());
        assert_eq!([next(one), next(two)], [one.id(), two.id()]);
        one.spawn(pending::<()>());
        assert_eq!([next(one), next(two)], [two.id(), two.id()]);
    }

    #[test]
    fn long_work_that_nobody_waits_for_ends() {
        struct Gone(Option<oneshot::Sender<()>>);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = self.0.take().map(|gone| gone.send(()));
            }
        }

        let workers = Workers::start(1).unwrap();
        let (waits, waiting) = oneshot::channel();
        let (gone, is_gone) = oneshot::channel();
        let work = async move {
            let _gone = Gone(Some(gone));
            long().await;
            let _ = waits.send(());
            pending::<()>().await
        };
        let asking = workers.clone();
        let asked = workers.runtime().spawn(async move { asking.run_here_while_short(work).await });
        waiting.blocking_recv().unwrap();
        asked.abort();
        is_gone.blocking_recv().unwrap();
    }

    #[test]
    fn a_panic_elsewhere_is_one_here() {
        let workers = Workers::start(1).unwrap();
        let panic = answer(&workers, async {
            long().await;
            panic!("at work")
        });
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"at work"));
    }
}
