//! `dapr:state/state-interface`: its types, and what a state store must do.

use async_trait::async_trait;
use bytes::Bytes;

use crate::canonical::{wit_enum, wit_record};
use crate::error::Error;

/// Name and value pairs of a request, in the order the guest gave them.
pub type Metadata = Vec<(String, String)>;

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
    #[derive(Copy)]
    pub struct GetOptions {
        pub consistency: Consistency,
    }
}

wit_record! {
    #[derive(Copy)]
    pub struct WriteOptions {
        pub concurrency: Concurrency,
        pub consistency: Consistency,
    }
}

wit_record! {
    pub struct GetRequest {
        pub key: String,
        pub metadata: Option<Metadata>,
        pub options: GetOptions,
    }
}

wit_record! {
    /// A key that does not exist is empty `data` without an `etag`.
    pub struct GetResponse {
        pub data: Bytes,
        pub etag: Option<String>,
        pub metadata: Option<Metadata>,
        pub content_type: Option<String>,
    }
}

wit_record! {
    pub struct SetRequest {
        pub key: String,
        pub value: Bytes,
        pub etag: Option<String>,
        pub metadata: Option<Metadata>,
        pub options: WriteOptions,
        pub content_type: Option<String>,
    }
}

wit_record! {
    pub struct DeleteRequest {
        pub key: String,
        pub etag: Option<String>,
        pub metadata: Option<Metadata>,
        pub options: WriteOptions,
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
///   next call tries again.
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
}
