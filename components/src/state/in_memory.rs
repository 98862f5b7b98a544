//! `state.in-memory`: gone with the process; for tests and caches.
//!
//! Etags are UUIDs. Expired items are no longer seen at once, and are removed as the store grows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use host_abi::error::Error;
use host_abi::state::{Concurrency, DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore};
use uuid::Uuid;

use super::ttl::{self, Ttl};
use super::{check_uuid_etag, etag_mismatch};
use crate::field::Description;
use crate::properties::{InvalidProperty, Properties};

pub const DESCRIPTION: Description = Description {
    about: "In the memory of the container, gone with it: for tests and caches.",
    fields: &[],
    without_effect: &[],
};

/// # Errors
/// None: there is no metadata to be wrong.
pub fn construct(_: &Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> {
    Ok(Arc::new(InMemory::default()))
}

#[derive(Default)]
pub struct InMemory {
    items: Mutex<Items>,
}

#[derive(Default)]
struct Items {
    by_key: HashMap<String, Item>,
    /// The number of items at which the expired ones are looked for again.
    sweep_at: usize,
}

#[derive(Clone)]
struct Item {
    data: Bytes,
    etag: String,
    expires: Option<SystemTime>,
}

impl Item {
    fn is_alive(&self) -> bool {
        self.expires.is_none_or(|expires| SystemTime::now() < expires)
    }
}

impl Items {
    fn alive(&self, key: &str) -> Option<&Item> {
        self.by_key.get(key).filter(|item| item.is_alive())
    }

    fn etag(&self, key: &str) -> Option<&str> {
        self.alive(key).map(|item| item.etag.as_str())
    }

    fn insert(&mut self, key: String, item: Item) {
        const SMALL: usize = 1024;
        if self.by_key.len() >= self.sweep_at.max(SMALL) {
            self.by_key.retain(|_, item| item.is_alive());
            self.sweep_at = self.by_key.len() * 2;
        }
        self.by_key.insert(key, item);
    }

    fn set(&mut self, request: SetRequest) -> Result<(), Error> {
        let ttl = Ttl::of(&request)?;
        check_uuid_etag(&request)?;
        let current = self.etag(&request.key);
        let fits = match &request.etag {
            Some(etag) => current == Some(etag),
            None => request.options.concurrency != Concurrency::FirstWrite || current.is_none(),
        };
        if !fits {
            return Err(etag_mismatch(&request.key));
        }
        let lifetime = ttl.and_then(Ttl::seconds).map(|seconds| Duration::from_secs(seconds.into()));
        let expires = lifetime.map(|lifetime| SystemTime::now() + lifetime);
        self.insert(request.key, Item { data: request.value, etag: Uuid::new_v4().to_string(), expires });
        Ok(())
    }

    fn delete(&mut self, request: &DeleteRequest) -> Result<(), Error> {
        if request.etag.is_some() && self.etag(&request.key) != request.etag.as_deref() {
            return Err(etag_mismatch(&request.key));
        }
        self.by_key.remove(&request.key);
        Ok(())
    }

    fn transact(&mut self, operations: Vec<Operation>) -> Result<(), Error> {
        let mut before = Vec::with_capacity(operations.len());
        for operation in operations {
            let key = operation.key().to_owned();
            before.push((self.by_key.get(&key).cloned(), key));
            let done = match operation {
                Operation::Upsert(request) => self.set(request),
                Operation::Delete(request) => self.delete(&request),
            };
            if done.is_err() {
                for (item, key) in before.into_iter().rev() {
                    match item {
                        Some(item) => self.by_key.insert(key, item),
                        None => self.by_key.remove(&key),
                    };
                }
                return done;
            }
        }
        Ok(())
    }
}

impl InMemory {
    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StateStore for InMemory {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let items = self.items();
        let Some(item) = items.alive(&request.key) else { return Ok(GetResponse::default()) };
        Ok(GetResponse {
            data: item.data.clone(),
            etag: Some(item.etag.clone()),
            metadata: item.expires.and_then(ttl::rfc3339).map(ttl::expiry_metadata),
            content_type: None,
        })
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        self.items().set(request)
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.items().delete(&request)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        self.items().transact(operations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn expired_items_are_removed_as_the_store_grows() {
        let store = InMemory::default();
        for index in 0..5_000 {
            let expires = Some(SystemTime::UNIX_EPOCH);
            store.items().insert(index.to_string(), Item { data: Bytes::new(), etag: String::new(), expires });
        }
        assert!(store.items().by_key.len() <= 1024);
    }

    #[tokio::test]
    async fn the_expiry_is_told_and_cleared_by_a_set_without_one() {
        let store = InMemory::default();
        let metadata = Some(vec![(ttl::TTL_IN_SECONDS.to_owned(), "1000".to_owned())]);
        let metadata_of = async || store.get(GetRequest::default()).await.unwrap().metadata;
        store.set(SetRequest { metadata, ..SetRequest::default() }).await.unwrap();
        let told = metadata_of().await.unwrap();
        assert_eq!((told[0].0.as_str(), told[0].1.len()), ("ttlExpireTime", "2026-08-21T09:30:00Z".len()));
        store.set(SetRequest::default()).await.unwrap();
        assert_eq!(metadata_of().await, None);
    }
}
