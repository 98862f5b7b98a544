//! What is made when it is first needed, and again once it was found to be of no use any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// Whoever needs the value first makes it, and the others wait. Who gives up waiting, or making, disturbs nobody.
pub(super) struct Renewable<T>(Mutex<Arc<OnceCell<T>>>);

/// A value, and what tells it from those made later.
pub(super) struct Made<T> {
    pub(super) value: T,
    cell: Arc<OnceCell<T>>,
}

impl<T> Default for Renewable<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Renewable<T> {
    /// # Errors
    /// That of `make`; the next one to come makes it again.
    pub(super) async fn get<E, F: Future<Output = Result<T, E>>>(
        &self,
        make: impl FnOnce() -> F,
    ) -> Result<Made<T>, E> {
        let cell = Arc::clone(&self.cell());
        let value = cell.get_or_try_init(make).await?.clone();
        Ok(Made { value, cell })
    }

    pub(super) fn is_made(&self) -> bool {
        self.cell().initialized()
    }

    /// The value, if it is there.
    pub(super) fn made(&self) -> Option<Made<T>> {
        let cell = Arc::clone(&self.cell());
        let value = cell.get()?.clone();
        Some(Made { value, cell })
    }

    /// Has the value made anew, unless somebody saw to that already.
    pub(super) fn discard(&self, stale: &Made<T>) {
        let mut cell = self.cell();
        if Arc::ptr_eq(&cell, &stale.cell) {
            *cell = Arc::default();
        }
    }

    /// Has the value made anew, whichever it is.
    pub(super) fn discard_any(&self) {
        *self.cell() = Arc::default();
    }

    fn cell(&self) -> MutexGuard<'_, Arc<OnceCell<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_stays_until_the_one_that_is_there_is_discarded() {
        let renewable = Renewable::default();
        assert!(!renewable.is_made());
        assert!(renewable.made().is_none());
        let get = async |value| renewable.get(async || Ok::<_, ()>(value)).await.unwrap();
        let first = get(1).await;
        assert_eq!(get(2).await.value, 1);
        assert!(renewable.is_made());
        renewable.discard(&first);
        assert_eq!(get(3).await.value, 3);
        renewable.discard(&first);
        assert_eq!(get(4).await.value, 3);
        renewable.discard_any();
        assert_eq!(get(5).await.value, 5);
    }

    #[tokio::test]
    async fn who_fails_leaves_it_to_the_next() {
        let renewable = Renewable::default();
        assert!(renewable.get(async || Err::<u8, _>(())).await.is_err());
        assert_eq!(renewable.get(async || Ok::<_, ()>(1)).await.map(|made| made.value), Ok(1));
    }
}
