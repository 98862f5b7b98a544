//! Secret stores: `secretstores.local.file`, `secretstores.local.env` and `secretstores.kubernetes`.
//!
//! Components refer to their secrets with `secretKeyRef` and name the store in `auth.secretStore`; guests ask for
//! them through `dapr:secrets/secret-store`, as far as a [scope](SecretScope) lets them.
//!
//! A scope is about what a store answers, and about nothing else: a guest sees the files of its container, and what
//! is mounted there as a file it can read as a file too.

pub mod kubernetes;
pub mod local_env;
pub mod local_file;
mod scope;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::sync::Arc;

use async_trait::async_trait;
use host_abi::error::{Error, ErrorClass};
use host_abi::secrets::{GetRequest, Secret, SecretStore};
use host_abi::state::Metadata;

pub use scope::{SecretScope, SecretScopes};

/// The store that is there in Kubernetes without a component, and that a component there means which names none.
pub(crate) const KUBERNETES_STORE: &str = "kubernetes";

/// What one store may hold, or one answer of it: Kubernetes takes Secrets of up to 1 MiB.
const MAX_BYTES: usize = 16 << 20;

/// How many names an error lists.
const LISTED: usize = 20;

/// Where a secret store has its secrets from: files or variables, so that components can be made of them before
/// anything runs, and nothing has to be waited for.
pub trait SecretSource: Send + Sync {
    /// None where there is no secret of that name.
    fn get(&self, name: &str) -> Result<Option<Secret>, Error>;

    /// Every secret there is, by name.
    fn all(&self) -> Result<BTreeMap<String, Secret>, Error>;
}

/// Why a component does not get the secret that it refers to.
#[derive(Debug, thiserror::Error)]
pub enum SecretProblem {
    #[error("the component names no secret store (`auth.secretStore`); known: {known}")]
    NoStore { known: String },
    #[error("there is no secret store {store:?}; known: {known}")]
    UnknownStore { store: String, known: String },
    #[error("the secret store {store} has no such secret; it has: {known}")]
    NoSecret { store: String, known: String },
    #[error("the secret has no key {key:?}; it has: {known}")]
    NoKey { key: String, known: String },
    #[error("the secret store {store} cannot read it: {source}")]
    Unreadable { store: String, source: Error },
}

/// The secret stores of one app, by name.
#[derive(Default)]
pub(crate) struct SecretSources(BTreeMap<String, Arc<dyn SecretSource>>);

impl SecretSources {
    pub(crate) fn insert(&mut self, name: String, source: Arc<dyn SecretSource>) {
        self.0.insert(name, source);
    }

    /// The value of a key, as a component refers to it.
    pub(crate) fn value(&self, store: Option<&str>, secret: &str, key: &str) -> Result<String, SecretProblem> {
        let known = || listed(self.0.keys());
        let store = store.ok_or_else(|| SecretProblem::NoStore { known: known() })?;
        let unknown = || SecretProblem::UnknownStore { store: store.to_owned(), known: known() };
        let source = self.0.get(store).ok_or_else(unknown)?;
        let unreadable = |source| SecretProblem::Unreadable { store: store.to_owned(), source };
        let Some(mut values) = source.get(secret).map_err(unreadable)? else {
            let known = listed(source.all().map_err(unreadable)?.keys());
            return Err(SecretProblem::NoSecret { store: store.to_owned(), known });
        };
        match values.remove(key) {
            Some(value) => Ok(value.expose().to_owned()),
            None => Err(SecretProblem::NoKey { key: key.to_owned(), known: listed(values.keys()) }),
        }
    }

    /// The stores as guests see them.
    pub(crate) fn for_guests(self, mut scopes: SecretScopes) -> BTreeMap<String, Arc<dyn SecretStore>> {
        let guest_store = |(name, source): (String, Arc<dyn SecretSource>)| {
            let scope = scopes.remove(&name);
            (name.clone(), Arc::new(ScopedStore { name, source, scope }) as Arc<dyn SecretStore>)
        };
        let known = listed(self.0.keys());
        let stores = self.0.into_iter().map(guest_store).collect();
        for (store, place) in scopes.rest() {
            tracing::warn!(%place, store, known, "a scope of secrets of a store that is not there");
        }
        stores
    }
}

/// Names for a message, not without end.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut names: Vec<&str> = names.take(LISTED).map(String::as_str).collect();
    let rest = format!("{more} more");
    match more {
        0 if names.is_empty() => names.push("none"),
        0 => {}
        _ => names.push(&rest),
    }
    names.join(", ")
}

/// A store as the guests of one app see it under its component's name.
struct ScopedStore {
    name: String,
    source: Arc<dyn SecretSource>,
    scope: Option<SecretScope>,
}

impl ScopedStore {
    fn allows(&self, secret: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.allows(secret))
    }

    fn error(&self, class: ErrorClass, message: impl std::fmt::Display) -> Error {
        Error::new(class, format!("component {}: {message}", self.name))
    }

    fn named<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| self.error(error.class, error.message))
    }
}

#[async_trait]
impl SecretStore for ScopedStore {
    async fn get(&self, request: GetRequest) -> Result<Secret, Error> {
        let name = &request.key;
        // The guest chose the name, and its length.
        let shown: String = name.chars().take(64).collect();
        if name.is_empty() {
            return Err(self.error(ErrorClass::InvalidArgument, "the name of the secret is empty"));
        }
        if !self.allows(name) {
            let message = format!("access to the secret {shown:?} is denied");
            return Err(self.error(ErrorClass::PermissionDenied, message));
        }
        let secret = self.named(self.source.get(name))?;
        secret.ok_or_else(|| self.error(ErrorClass::NotFound, format!("no secret {shown:?}")))
    }

    async fn bulk_get(&self, _: Option<Metadata>) -> Result<BTreeMap<String, Secret>, Error> {
        let mut secrets = self.named(self.source.all())?;
        secrets.retain(|name, _| self.allows(name));
        Ok(secrets)
    }
}

/// What may still be read.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(MAX_BYTES)
    }

    fn take(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, format!("over {MAX_BYTES} bytes")))?;
        Ok(())
    }

    /// All of a regular file. Nothing is waited for, if it was opened with [`NONBLOCK`].
    pub(crate) fn read(&mut self, file: &mut std::fs::File) -> io::Result<Vec<u8>> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(self.0 as u64 + 1).read_to_end(&mut bytes)?;
        self.take(bytes.len())?;
        Ok(bytes)
    }
}

/// A FIFO is then opened at once, and found out.
pub(crate) const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
