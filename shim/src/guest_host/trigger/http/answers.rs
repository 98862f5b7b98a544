//! The answers of guests, until they are written.

use std::sync::Arc;

use bytes::Bytes;
use http::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::activity::{Activity, SMALL, Unread};

/// Room for the answers that are not written yet, and a queue for those that wait for room.
pub(super) struct Answers {
    room: Arc<Semaphore>,
    bytes: u32,
    queue: Semaphore,
}

impl Answers {
    /// At most so many bytes in all, of which one answer counts as half at most, whatever its size: smaller ones would have
    /// to wait until all was free. A request that waits for room keeps its place meanwhile. At most half of the places: the
    /// others go on answering, whoever does not read.
    pub(super) fn new(bytes: u32, places: u32) -> Self {
        let queue = Semaphore::new(places as usize / 2);
        Self { room: Arc::new(Semaphore::new(bytes as usize)), bytes, queue }
    }

    /// Gives an answer room until it is written, or given up. There is none if too many wait already, or nothing is free
    /// in time. Where a connection has one answer at a time, a small one takes up no room.
    pub(super) async fn hold(
        &self,
        answer: Bytes,
        version: Version,
        activity: &Arc<Activity>,
        deadline: Instant,
    ) -> Option<Bytes> {
        if answer.is_empty() || (answer.len() <= SMALL && version != Version::HTTP_2) {
            return Some(answer);
        }
        let bytes = u32::try_from(answer.len()).unwrap_or(u32::MAX).min(self.bytes / 2);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(bytes) {
            Ok(room) => room,
            Err(_) => {
                let _queued = self.queue.try_acquire().ok()?;
                timeout_at(deadline, Arc::clone(&self.room).acquire_many_owned(bytes)).await.ok()?.ok()?
            }
        };
        let unread = Unread::begin(activity, answer.len());
        Some(Bytes::from_owner(Held { answer, _room: room, _unread: unread }))
    }
}

/// An answer with its room: dropped when hyper has written the last of it, or given it up.
struct Held {
    answer: Bytes,
    _room: OwnedSemaphorePermit,
    _unread: Unread,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}
