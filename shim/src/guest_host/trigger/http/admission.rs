//! How many requests guests work on at the same time.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Places for requests that guests work on, and a queue for those that wait for a place.
pub(super) struct Admission {
    places: Semaphore,
    queue: Semaphore,
}

impl Admission {
    pub(super) fn new(places: u32, queue: u32) -> Self {
        Self { places: Semaphore::new(places as usize), queue: Semaphore::new(queue as usize) }
    }

    /// Whether there is no place now, not even to wait.
    pub(super) fn is_full(&self) -> bool {
        self.places.available_permits() == 0 && self.queue.available_permits() == 0
    }

    /// Waits for a place, in turn. There is none if too many wait already.
    pub(super) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let _queued = self.queue.try_acquire().ok()?;
        self.places.acquire().await.ok()
    }
}
