//! `dapr:secrets`: the types of its interface, and what a secret store must do.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::canonical::{
    AbiError, AbiType, BlockId, CoreType, FlatValues, GuestPtr, Image, Lift, Lower, Slot, Source, wit_record,
    wit_variant,
};
use crate::error::{Error, ErrorClass};
use crate::state::Metadata;

/// A value that may be a secret: it prints as `***`, and only [`expose`](Self::expose) gives it away. To a guest
/// it is a `string`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redacted(String);

impl Redacted {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Redacted {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl AbiType for Redacted {
    const SIZE: u32 = String::SIZE;
    const ALIGN: u32 = String::ALIGN;
    const FLAT_LEN: usize = String::FLAT_LEN;

    fn flatten(flat: &mut Vec<CoreType>) {
        String::flatten(flat);
    }
}

impl Lift for Redacted {
    fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
        String::lift(source, flat).map(Self)
    }

    fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
        String::load(source, address).map(Self)
    }
}

impl Lower for Redacted {
    fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
        self.0.lower(image, flat);
    }

    fn store(self, image: &mut Image, block: BlockId, offset: u32) {
        self.0.store(image, block, offset);
    }
}

/// The values of one secret, by key.
pub type Secret = BTreeMap<String, Redacted>;

wit_record! {
    #[derive(Default)]
    pub struct GetRequest {
        /// The secret's name.
        pub key: String,
        pub metadata: Option<Metadata>,
    }
}

wit_variant! {
    /// An [`Error`] as the interface `secret-store` has it. A secret has no etag: the classes about etags are
    /// `internal`.
    pub enum SecretError {
        NotFound(String),
        InvalidArgument(String),
        Unavailable(String),
        PermissionDenied(String),
        Internal(String),
    }
}

impl From<Error> for SecretError {
    fn from(Error { class, message, .. }: Error) -> Self {
        match class {
            ErrorClass::NotFound => Self::NotFound(message),
            ErrorClass::InvalidArgument => Self::InvalidArgument(message),
            ErrorClass::Unavailable => Self::Unavailable(message),
            ErrorClass::PermissionDenied => Self::PermissionDenied(message),
            ErrorClass::Internal | ErrorClass::EtagMismatch | ErrorClass::EtagInvalid => Self::Internal(message),
        }
    }
}

/// A Dapr secret store component, ready for use by any number of guests at once.
///
/// Required of every store:
/// - a secret that is not there is [`ErrorClass::NotFound`], one that the guest may not have
///   [`ErrorClass::PermissionDenied`], whether it is there or not; [`bulk_get`](Self::bulk_get) leaves it out;
/// - an empty name is [`ErrorClass::InvalidArgument`];
/// - no value is ever part of an error.
#[async_trait]
pub trait SecretStore: Send + Sync {
    async fn get(&self, request: GetRequest) -> Result<Secret, Error>;

    /// Every secret that the guest may have, by name.
    async fn bulk_get(&self, metadata: Option<Metadata>) -> Result<BTreeMap<String, Secret>, Error>;
}
