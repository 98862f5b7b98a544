//! The creates that are under way, and how to end one before there is a container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// By the id of the container.
#[derive(Default)]
pub(super) struct Creations(Mutex<HashMap<String, Arc<Creation>>>);

/// One create.
#[derive(Default)]
pub(super) struct Creation {
    cancelled: CancellationToken,
    ended: CancellationToken,
}

/// A create, until it is dropped.
pub(super) struct Ongoing<'a> {
    id: String,
    creation: Arc<Creation>,
    creations: &'a Creations,
}

impl Creations {
    /// Notes that a container is being created; none where it is already.
    pub(super) fn begin(&self, id: &str) -> Option<Ongoing<'_>> {
        let mut creations = self.lock();
        if creations.contains_key(id) {
            return None;
        }
        let creation = Arc::default();
        creations.insert(id.to_owned(), Arc::clone(&creation));
        Some(Ongoing { id: id.to_owned(), creation, creations: self })
    }

    pub(super) fn of(&self, id: &str) -> Option<Arc<Creation>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn any(&self) -> Option<Arc<Creation>> {
        self.lock().values().next().cloned()
    }

    /// Whether there is one of another container.
    pub(super) fn has_others(&self, id: &str) -> bool {
        self.lock().keys().any(|other| other != id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Creation>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Creation {
    /// Has it end, and waits until it has. Nothing of the container is left then, unless it had been created already.
    pub(super) async fn cancel(&self) {
        self.cancelled.cancel();
        self.ended.cancelled().await;
    }
}

impl Ongoing<'_> {
    /// Once somebody wants it to end.
    pub(super) fn cancelled(&self) -> &CancellationToken {
        &self.creation.cancelled
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        self.creations.lock().remove(&self.id);
        self.creation.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_cancels_a_create_waits_for_its_end() {
        let creations = Creations::default();
        let ongoing = creations.begin("one").expect("the first");
        assert!(creations.begin("one").is_none());
        let creation = creations.of("one").expect("it is under way");
        let (_, ended_first) = tokio::join!(creation.cancel(), async {
            ongoing.cancelled().cancelled().await;
            drop(ongoing);
            creations.of("one").is_none()
        });
        assert!(ended_first);
        assert!(creations.begin("one").is_some());
    }
}
