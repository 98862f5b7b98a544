//! State stores, and what they have in common.
//!
//! None of them keeps the content type of a value, as none of Dapr's does.

pub mod in_memory;
pub(crate) mod key_prefix;
mod patience;
#[cfg(feature = "postgresql")]
pub mod postgresql;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgresql", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "postgresql", feature = "redis"))]
mod tls;
pub(crate) mod ttl;

use std::sync::Arc;

use async_trait::async_trait;
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore};

use crate::app::App;
use crate::field::{Description, Field, fields};
use crate::properties::{InvalidProperty, Properties, Secrets};
use key_prefix::KeyPrefix;
pub(crate) use patience::PatientStore;

fields! {
    pub(crate) FIELDS {
        KEY_PREFIX = Field::text(
            "keyPrefix",
            "what goes before `||` and a guest's key: `appid`, the app's id; `name`, the component's; `namespace`, the \
             pod's namespace, a dot and the app's id; `none`, nothing, not even `||`; anything else, that itself in \
             lower case. Without an app id, `appid` and `namespace` add no prefix at all",
        ).or("appid");
        PRIMARY_KEY = Field::refused("primaryEncryptionKey", "values are written as the guest hands them over");
        SECONDARY_KEY = Field::refused("secondaryEncryptionKey", "as above");
        OUTBOX_PUBSUB = Field::refused("outboxPublishPubsub", "transactions publish no messages");
        OUTBOX_TOPIC = Field::refused("outboxPublishTopic", "as above");
    }
}

/// What every state store has, whatever its type.
pub const EVERY_STORE: Description =
    Description { about: "Every state store has these as well.", fields: FIELDS, without_effect: &["actorStateStore"] };

/// A store as the guests of one app see it under its component's name. The concerns of every store are here and
/// nowhere else: empty and prefixed keys, an empty etag (there is none), and the name of the component, but none of
/// its secrets, in every error.
pub struct NamedStore {
    name: String,
    store: Arc<dyn StateStore>,
    prefix: KeyPrefix,
    secrets: Secrets,
}

impl NamedStore {
    /// # Errors
    /// `keyPrefix` of the component is malformed.
    pub fn new(
        name: &str,
        store: Arc<dyn StateStore>,
        properties: &Properties,
        app: &App,
    ) -> Result<Self, InvalidProperty> {
        let prefix = KeyPrefix::new(properties.text(&KEY_PREFIX), name, app)?;
        Ok(Self { name: name.to_owned(), store, prefix, secrets: properties.secrets().clone() })
    }

    fn named<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| {
            let message = self.secrets.hidden_in(error.message);
            Error::new(error.class, format!("component {}: {message}", self.name))
        })
    }

    fn prefixed_get(&self, mut request: GetRequest) -> Result<GetRequest, Error> {
        request.key = self.prefix.apply(&request.key)?;
        Ok(request)
    }

    fn prefixed_set(&self, mut request: SetRequest) -> Result<SetRequest, Error> {
        request.key = self.prefix.apply(&request.key)?;
        request.etag = request.etag.filter(|etag| !etag.is_empty());
        Ok(request)
    }

    fn prefixed_delete(&self, mut request: DeleteRequest) -> Result<DeleteRequest, Error> {
        request.key = self.prefix.apply(&request.key)?;
        request.etag = request.etag.filter(|etag| !etag.is_empty());
        Ok(request)
    }

    fn prefixed_operation(&self, operation: Operation) -> Result<Operation, Error> {
        match operation {
            Operation::Upsert(request) => self.prefixed_set(request).map(Operation::Upsert),
            Operation::Delete(request) => self.prefixed_delete(request).map(Operation::Delete),
        }
    }
}

#[async_trait]
impl StateStore for NamedStore {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        self.named(async { self.store.get(self.prefixed_get(request)?).await }.await)
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        self.named(async { self.store.set(self.prefixed_set(request)?).await }.await)
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.named(async { self.store.delete(self.prefixed_delete(request)?).await }.await)
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let operations = operations.into_iter().map(|operation| self.prefixed_operation(operation));
        let operations = operations.collect::<Result<_, Error>>();
        self.named(async { self.store.transact(operations?).await }.await)
    }
}

/// What a store answers to a write whose etag, or whose absence of one, does not fit the item.
fn etag_mismatch(key: &str) -> Error {
    Error::new(ErrorClass::EtagMismatch, format!("key {key:?} was written since, or is not there"))
}

/// For the stores whose etags are UUIDs.
fn check_uuid_etag(request: &SetRequest) -> Result<(), Error> {
    match &request.etag {
        Some(etag) if uuid::Uuid::parse_str(etag).is_err() => Err(etag_invalid(&request.key)),
        _ => Ok(()),
    }
}

fn etag_invalid(key: &str) -> Error {
    Error::new(ErrorClass::EtagInvalid, format!("key {key:?}: the store never issued such an etag"))
}
