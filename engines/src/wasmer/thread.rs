//! The thread that a guest lives on: wasmer's store cannot leave the one it was made on.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::stop;
use crate::engine::Stop;

type Job<G> = Box<dyn FnOnce(&mut G) + Send>;

/// A guest `G` on a thread of its own. When this is dropped, the thread ends after the job at hand.
pub(super) struct GuestThread<G> {
    jobs: mpsc::Sender<Job<G>>,
}

impl<G: 'static> GuestThread<G> {
    /// Makes the guest on a new thread, which belongs to the runtime of whoever asks.
    pub(super) async fn start(make: impl FnOnce() -> Result<G, Stop> + Send + 'static) -> Result<Self, Stop> {
        let runtime = Handle::current();
        let (jobs, inbox) = mpsc::channel::<Job<G>>();
        let (made, answer) = oneshot::channel();
        let main = move || {
            let _runtime = runtime.enter();
            match make() {
                Ok(mut guest) => {
                    if made.send(Ok(())).is_ok() {
                        inbox.into_iter().for_each(|job| job(&mut guest));
                    }
                }
                Err(stop) => drop(made.send(Err(stop))),
            }
        };
        thread::Builder::new().name("guest".to_owned()).spawn(main).map_err(stop::failed)?;
        answered(answer).await?;
        Ok(Self { jobs })
    }

    /// Has the thread do something with its guest.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut G) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Stop> {
        let (done, answer) = oneshot::channel();
        let job = move |guest: &mut G| drop(done.send(job(guest)));
        // A thread that is gone drops the job, and with it the other end of the answer.
        let _ = self.jobs.send(Box::new(job));
        answered(answer).await
    }
}

/// A panic of the engine ends its guest, and that guest only.
async fn answered<T>(answer: oneshot::Receiver<Result<T, Stop>>) -> Result<T, Stop> {
    answer.await.unwrap_or_else(|_| Err(stop::failed("the engine failed")))
}
