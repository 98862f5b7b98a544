//! The bodies of requests, until a guest has them.

use host_abi::canonical::ByteChunks;
use http::{StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The part of a body that takes up no room, where a connection has one at a time: as much as a request's head may have, and
/// mostly what comes with it.
const SMALL: usize = 16 << 10;

/// Room for the bodies that are read, or wait for a guest. A body takes it up as it comes: one that is only promised keeps
/// nobody out.
pub(super) struct Bodies {
    room: Semaphore,
    largest: usize,
}

/// What a body takes up.
pub(super) type Room<'a> = Option<SemaphorePermit<'a>>;

impl Bodies {
    /// At most so many bytes in all, or one body of the largest size.
    pub(super) fn new(bytes: u32, largest: usize) -> Self {
        Self { room: Semaphore::new(largest.max(bytes as usize)), largest }
    }

    /// All that comes of a body. Without room for it the request is refused: if it waited, it would keep the room that others
    /// wait for.
    pub(super) async fn collect(
        &self,
        mut body: Incoming,
        version: Version,
    ) -> Result<(ByteChunks, Room<'_>), StatusCode> {
        let free = if version == Version::HTTP_2 { 0 } else { SMALL };
        let (mut chunks, mut received, mut room) = (ByteChunks::default(), 0_usize, None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
            // What is no data are trailers, for which guests have no place.
            let Ok(data) = frame.into_data() else { continue };
            received += data.len();
            if received > self.largest {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            if received > free {
                self.enlarge(&mut room, received - free)?;
            }
            chunks.push(data);
        }
        Ok((chunks, room))
    }

    fn enlarge<'a>(&'a self, room: &mut Room<'a>, bytes: usize) -> Result<(), StatusCode> {
        let more = bytes - room.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = u32::try_from(more).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        let more = self.room.try_acquire_many(more).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}
