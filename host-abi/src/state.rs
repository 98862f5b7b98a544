//! `dapr:state`: the types of its interfaces, and what a state store must do.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;

use crate::canonical::{wit_enum, wit_record, wit_variant};
use crate::error::{Error, ErrorClass};

/// Name and value pairs of a request, in the order the guest gave them.
pub type Metadata = Vec<(String, String)>;

/// What becomes of a transaction's metadata, in all of its operations together.
const MOST_SHARED_BYTES: usize = 16 << 20;

wit_enum! {
    /// How fresh a read, or how widely acknowledged a write, has to be.
    #[derive(Default)]
    pub enum Consistency {
        #[default]
        Unspecified,
        Eventual,
        Strong,
    }
}

wit_enum! {
    /// What happens when two writers meet. Unspecified means last-write.
    #[derive(Default)]
    pub enum Concurrency {
        #[default]
        Unspecified,
        FirstWrite,
        LastWrite,
    }
}

wit_record! {
    #[derive(Copy, Default)]
    pub struct GetOptions {
        pub consistency: Consistency,
    }
}

wit_record! {
    #[derive(Copy, Default)]
    pub struct WriteOptions {
        pub concurrency: Concurrency,
        pub consistency: Consistency,
    }
}

wit_record! {
    #[derive(Default)]
    pub struct GetRequest {
        pub key: String,
        pub metadata: Option<Metadata>,
        pub options: GetOptions,
    }
}

wit_record! {
    /// A key that does not exist is empty `data` without an `etag`.
    #[derive(Default)]
    pub struct GetResponse {
        pub data: Bytes,
        pub etag: Option<String>,
        pub metadata: Option<Metadata>,
        pub content_type: Option<String>,
    }
}

wit_record! {
    #[derive(Default)]
    pub struct SetRequest {
        pub key: String,
        pub value: Bytes,
        pub etag: Option<String>,
        pub metadata: Option<Metadata>,
        pub options: WriteOptions,
        pub content_type: Option<String>,
    }
}

impl SetRequest {
    /// Whether it depends on what is there. Such a write changes what its condition is about: done twice, it is refused.
    pub fn is_conditional(&self) -> bool {
        self.etag.is_some() || self.options.concurrency == Concurrency::FirstWrite
    }
}

wit_record! {
    #[derive(Default)]
    pub struct DeleteRequest {
        pub key: String,
        pub etag: Option<String>,
        pub metadata: Option<Metadata>,
        pub options: WriteOptions,
    }
}

wit_variant! {
    /// One step of a [`Transaction`].
    pub enum Operation {
        Upsert(SetRequest),
        Delete(DeleteRequest),
    }
}

impl Operation {
    /// As [`SetRequest::is_conditional`].
    pub fn is_conditional(&self) -> bool {
        match self {
            Self::Upsert(request) => request.is_conditional(),
            Self::Delete(request) => request.etag.is_some(),
        }
    }

    pub fn key(&self) -> &str {
        match self {
            Self::Upsert(request) => &request.key,
            Self::Delete(request) => &request.key,
        }
    }

    fn metadata(&mut self) -> &mut Option<Metadata> {
        match self {
            Self::Upsert(request) => &mut request.metadata,
            Self::Delete(request) => &mut request.metadata,
        }
    }
}

wit_record! {
    #[derive(Default)]
    pub struct Transaction {
        pub operations: Vec<Operation>,
        /// Pairs for every operation that has none of that name.
        pub metadata: Option<Metadata>,
    }
}

impl Transaction {
    /// The operations, each with all of its metadata.
    ///
    /// # Errors
    /// The transaction's metadata, once for each operation, would be larger than 16 MiB.
    pub fn into_operations(self) -> Result<Vec<Operation>, Error> {
        let (mut operations, shared) = (self.operations, self.metadata.unwrap_or_default());
        if shared.is_empty() {
            return Ok(operations);
        }
        let pair_bytes = |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
        let bytes: usize = shared.iter().map(pair_bytes).sum();
        if bytes.saturating_mul(operations.len()) > MOST_SHARED_BYTES {
            let message = format!(
                "metadata of {bytes} bytes for each of {} operations is more than {MOST_SHARED_BYTES} bytes",
                operations.len()
            );
            return Err(Error::new(ErrorClass::InvalidArgument, message));
        }
        for operation in &mut operations {
            let own = operation.metadata().get_or_insert_default();
            let known: HashSet<_> = own.iter().map(|(name, _)| name.as_str()).collect();
            let missing = shared.iter().filter(|(name, _)| !known.contains(name.as_str()));
            let missing: Metadata = missing.cloned().collect();
            own.extend(missing);
        }
        Ok(operations)
    }
}

wit_variant! {
    /// An [`Error`] as the interface `state-store` has it: a case for each class.
    pub enum StoreError {
        EtagMismatch(String),
        EtagInvalid(String),
        NotFound(String),
        InvalidArgument(String),
        Unavailable(String),
        PermissionDenied(String),
        Internal(String),
    }
}

impl From<Error> for StoreError {
    fn from(Error { class, message, .. }: Error) -> Self {
        match class {
            ErrorClass::EtagMismatch => Self::EtagMismatch(message),
            ErrorClass::EtagInvalid => Self::EtagInvalid(message),
            ErrorClass::NotFound => Self::NotFound(message),
            ErrorClass::InvalidArgument => Self::InvalidArgument(message),
            ErrorClass::Unavailable => Self::Unavailable(message),
            ErrorClass::PermissionDenied => Self::PermissionDenied(message),
            ErrorClass::Internal => Self::Internal(message),
        }
    }
}

wit_record! {
    pub struct ItemError {
        pub key: String,
        pub error: StoreError,
    }
}

wit_variant! {
    /// Why not all items of a bulk operation were written.
    pub enum BulkError {
        /// Nothing was attempted.
        Store(StoreError),
        /// These items failed; all others were written.
        Items(Vec<ItemError>),
    }
}

/// A Dapr state component, ready for use by any number of guests at once.
///
/// Required of every store, as Dapr's own conformance suite has it (components-contrib,
/// `tests/conformance/state`):
/// - what was set comes back byte for byte; an etag is never empty and changes with every write;
/// - a wrong etag is [`ErrorClass::EtagMismatch`], one the store could never have issued
///   [`ErrorClass::EtagInvalid`] where the store can tell;
/// - `first-write` without an etag succeeds only if the key does not exist;
/// - an empty key is [`ErrorClass::InvalidArgument`];
/// - metadata `ttlInSeconds` (exact case): above 0 the key expires after that many seconds, 0 or below clears
///   the expiry; not a whole number is [`ErrorClass::InvalidArgument`] and nothing is written;
/// - a store that cannot be reached is [`ErrorClass::Unavailable`], within the component's own time-out; the
///   next call tries again. Where nothing was sent, or what had begun was undone, the error says that it is
///   [without effect](Error::without_effect): only then is a write with a condition tried again.
///
/// Cancellation: dropping a future gives up the answer, not necessarily the write.
///
/// [`ErrorClass::EtagMismatch`]: crate::error::ErrorClass::EtagMismatch
/// [`ErrorClass::EtagInvalid`]: crate::error::ErrorClass::EtagInvalid
/// [`ErrorClass::InvalidArgument`]: crate::error::ErrorClass::InvalidArgument
/// [`ErrorClass::Unavailable`]: crate::error::ErrorClass::Unavailable
#[async_trait]
pub trait StateStore: Send + Sync {
    /// Missing keys are not an error: see [`GetResponse`].
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error>;

    async fn set(&self, request: SetRequest) -> Result<(), Error>;

    /// Deleting a missing key succeeds.
    async fn delete(&self, request: DeleteRequest) -> Result<(), Error>;

    /// All of the operations in their order, or none; others see none of it or all of it. Each may fail for the
    /// reasons that it may fail for alone, and the message names its key.
    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error>;
}
