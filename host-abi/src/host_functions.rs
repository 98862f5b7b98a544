//! The one table of functions that a guest can import. An engine adapter binds all of it in a loop and
//! knows no function by name.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};

use crate::canonical::{
    AbiError, AbiType, CoreType, CoreValue, Fault, Guest, GuestMemory, GuestPtr, Lower, Lowered, MAX_FLAT_PARAMS,
    MAX_FLAT_RESULTS, Params, Signature, Source,
};
use crate::error::{Error, ErrorClass};
use crate::http::{HttpClient, HttpError, Request, Response};
use crate::secrets::{self, Redacted, Secret, SecretError, SecretStore};
use crate::state::{
    BulkError, DeleteRequest, GetRequest, GetResponse, ItemError, Metadata, SetRequest, StateStore, StoreError,
    Transaction,
};

/// How many items of a bulk operation are on their way to a store.
const AT_ONCE: usize = 100;

/// What the host functions of one guest act on.
#[derive(Default)]
pub struct HostContext {
    /// By component name.
    pub state_stores: BTreeMap<String, Arc<dyn StateStore>>,
    /// By component name.
    pub secret_stores: BTreeMap<String, Arc<dyn SecretStore>>,
    /// Without one, every outbound request is `destination-not-allowed`.
    pub http_client: Option<Arc<dyn HttpClient>>,
}

impl HostContext {
    fn state_store(&self, name: &str) -> Result<&dyn StateStore, Error> {
        find("state store", &self.state_stores, name)
    }

    fn secret_store(&self, name: &str) -> Result<&dyn SecretStore, Error> {
        find("secret store", &self.secret_stores, name)
    }
}

fn find<'a, C: ?Sized>(kind: &str, components: &'a BTreeMap<String, Arc<C>>, name: &str) -> Result<&'a C, Error> {
    components.get(name).map(|component| &**component).ok_or_else(|| {
        let known: Vec<&str> = components.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        // The guest chose the name, and its length.
        let name: String = name.chars().take(64).collect();
        Error::new(ErrorClass::NotFound, format!("no {kind} {name:?}; configured: {known}"))
    })
}

/// Every host function there is.
pub fn host_functions() -> &'static [HostFunction] {
    static HOST_FUNCTIONS: LazyLock<Vec<HostFunction>> = LazyLock::new(table);
    &HOST_FUNCTIONS
}

fn table() -> Vec<HostFunction> {
    const STATE: &str = "dapr:state/state-interface";
    const STORE: &str = "dapr:state/state-store";
    const SECRETS: &str = "dapr:secrets/secret-store";
    const HTTP: &str = "dapr:http/http-client";
    vec![
        HostFunction::new(STATE, "get", &["name", "req"], get::<String>),
        HostFunction::new(STATE, "set", &["name", "req"], set_one),
        HostFunction::new(STATE, "delete", &["name", "req"], delete_one),
        HostFunction::new(STORE, "get", &["name", "req"], get::<StoreError>),
        HostFunction::new(STORE, "set", &["name", "req"], set),
        HostFunction::new(STORE, "delete", &["name", "req"], delete),
        HostFunction::new(STORE, "bulk-get", &["name", "reqs"], bulk_get),
        HostFunction::new(STORE, "bulk-set", &["name", "reqs"], bulk_set),
        HostFunction::new(STORE, "bulk-delete", &["name", "reqs"], bulk_delete),
        HostFunction::new(STORE, "transact", &["name", "req"], transact),
        HostFunction::new(SECRETS, "get", &["name", "req"], get_secret),
        HostFunction::new(SECRETS, "bulk-get", &["name", "metadata"], bulk_get_secrets),
        HostFunction::new(HTTP, "send", &["req"], send),
    ]
}

async fn get<E: From<Error>>(host: Arc<HostContext>, (name, request): (String, GetRequest)) -> Result<GetResponse, E> {
    Ok(host.state_store(&name)?.get(request).await?)
}

async fn set_one(host: Arc<HostContext>, (name, request): (String, SetRequest)) -> Result<u32, String> {
    host.state_store(&name)?.set(request).await?;
    Ok(1)
}

async fn delete_one(host: Arc<HostContext>, (name, request): (String, DeleteRequest)) -> Result<u32, String> {
    host.state_store(&name)?.delete(request).await?;
    Ok(1)
}

async fn set(host: Arc<HostContext>, (name, request): (String, SetRequest)) -> Result<(), StoreError> {
    Ok(host.state_store(&name)?.set(request).await?)
}

async fn delete(host: Arc<HostContext>, (name, request): (String, DeleteRequest)) -> Result<(), StoreError> {
    Ok(host.state_store(&name)?.delete(request).await?)
}

async fn bulk_get(
    host: Arc<HostContext>,
    (name, requests): (String, Vec<GetRequest>),
) -> Result<Vec<Result<GetResponse, StoreError>>, StoreError> {
    let store = host.state_store(&name)?;
    let answer = async |request| Ok(store.get(request).await?);
    Ok(stream::iter(requests).map(answer).buffered(AT_ONCE).collect().await)
}

async fn bulk_set(host: Arc<HostContext>, (name, requests): (String, Vec<SetRequest>)) -> Result<(), BulkError> {
    let store = host.state_store(&name).map_err(whole)?;
    bulk_write(requests.into_iter().map(|request| item(request.key.clone(), store.set(request))).collect()).await
}

async fn bulk_delete(host: Arc<HostContext>, (name, requests): (String, Vec<DeleteRequest>)) -> Result<(), BulkError> {
    let store = host.state_store(&name).map_err(whole)?;
    bulk_write(requests.into_iter().map(|request| item(request.key.clone(), store.delete(request))).collect()).await
}

/// A write of a bulk operation, which ends with what went wrong.
type Item<'a> = BoxFuture<'a, Option<ItemError>>;

fn item<'a>(key: String, write: impl Future<Output = Result<(), Error>> + Send + 'a) -> Item<'a> {
    Box::pin(async move { write.await.err().map(|error| ItemError { key, error: error.into() }) })
}

async fn bulk_write(writes: Vec<Item<'_>>) -> Result<(), BulkError> {
    let failed: Vec<_> = stream::iter(writes).buffered(AT_ONCE).filter_map(ready).collect().await;
    if failed.is_empty() { Ok(()) } else { Err(BulkError::Items(failed)) }
}

fn whole(error: Error) -> BulkError {
    BulkError::Store(error.into())
}

async fn transact(host: Arc<HostContext>, (name, request): (String, Transaction)) -> Result<(), StoreError> {
    Ok(host.state_store(&name)?.transact(request.into_operations()?).await?)
}

/// A [`Secret`] as the interface has it.
type Pairs = Vec<(String, Redacted)>;

async fn get_secret(
    host: Arc<HostContext>,
    (name, request): (String, secrets::GetRequest),
) -> Result<Pairs, SecretError> {
    Ok(pairs(host.secret_store(&name)?.get(request).await?))
}

async fn bulk_get_secrets(
    host: Arc<HostContext>,
    (name, metadata): (String, Option<Metadata>),
) -> Result<Vec<(String, Pairs)>, SecretError> {
    let secrets = host.secret_store(&name)?.bulk_get(metadata).await?;
    Ok(secrets.into_iter().map(|(name, secret)| (name, pairs(secret))).collect())
}

fn pairs(secret: Secret) -> Pairs {
    secret.into_iter().collect()
}

async fn send(host: Arc<HostContext>, (request,): (Request,)) -> Result<Response, HttpError> {
    match &host.http_client {
        Some(client) => client.send(request).await,
        None => Err(HttpError::DestinationNotAllowed),
    }
}

/// A future that holds a result by its address is small enough for the fast part of the C library's allocator.
type Pending = Pin<Box<dyn Future<Output = Box<Lowered>> + Send>>;
type Begin = dyn Fn(Arc<HostContext>, &dyn GuestMemory, &[CoreValue]) -> Result<Pending, AbiError> + Send + Sync;

/// A function that guests import, its types hidden from the engine that binds it.
pub struct HostFunction {
    /// The import's module, such as `dapr:state/state-interface`.
    pub interface: &'static str,
    pub name: &'static str,
    /// As the WIT has them, for errors.
    pub param_names: &'static [&'static str],
    pub signature: Signature,
    /// `interface.name`, for errors.
    import: String,
    /// Whether the last parameter is the address that the result goes to.
    result_in_memory: bool,
    /// Lifts the parameters and starts the work, which then needs nothing of the guest.
    begin: Box<Begin>,
}

impl HostFunction {
    fn new<P, R, F>(
        interface: &'static str,
        name: &'static str,
        param_names: &'static [&'static str],
        handler: fn(Arc<HostContext>, P) -> F,
    ) -> Self
    where
        P: Params,
        R: Lower,
        F: Future<Output = R> + Send + 'static,
    {
        let result_in_memory = R::FLAT_LEN > MAX_FLAT_RESULTS;
        let begin = move |host: Arc<HostContext>, memory: &dyn GuestMemory, arguments: &[CoreValue]| {
            let mut source = Source::new(memory);
            let params = P::lift_params(&mut source, param_names, arguments)?;
            if result_in_memory {
                let address = result_address(arguments)?;
                let check = source.check(address, u64::from(R::SIZE), R::ALIGN);
                check.map_err(|fault| AbiError::from(fault).inside("result"))?;
            }
            let work = handler(host, params);
            Ok(Box::pin(async move { Box::new(Lowered::result(work.await)) }) as Pending)
        };
        Self {
            interface,
            name,
            param_names,
            signature: signature::<P, R>(),
            import: format!("{interface}.{name}"),
            result_in_memory,
            begin: Box::new(begin),
        }
    }

    /// Serves one call. The guest's memory is read before the work starts and written after it ended: other
    /// guests run meanwhile.
    ///
    /// # Errors
    /// The guest broke the ABI, or its allocator trapped. What a component answers is a result, not an error.
    pub async fn call<G: Guest>(
        &self,
        host: Arc<HostContext>,
        guest: &mut G,
        arguments: &[CoreValue],
    ) -> Result<Option<CoreValue>, G::Error> {
        let begun = self.begin(host, guest, arguments)?;
        self.finish(begun, guest).await
    }

    /// The first part of a [`call`](Self::call): lifts the parameters.
    ///
    /// # Errors
    /// The guest broke the ABI.
    pub fn begin(
        &self,
        host: Arc<HostContext>,
        memory: &dyn GuestMemory,
        arguments: &[CoreValue],
    ) -> Result<BegunCall, AbiError> {
        let broken = |error: AbiError| error.of_function(&self.import);
        let work = (self.begin)(host, memory, arguments).map_err(broken)?;
        let root = if self.result_in_memory { Some(result_address(arguments).map_err(broken)?) } else { None };
        Ok(BegunCall { work, root })
    }

    /// The rest of a [`call`](Self::call): waits for the result and lowers it.
    ///
    /// # Errors
    /// The guest's allocator trapped, or broke the ABI.
    pub async fn finish<G: Guest>(&self, call: BegunCall, guest: &mut G) -> Result<Option<CoreValue>, G::Error> {
        let mut lowered = call.work.await;
        let values = lowered.place(guest, call.root, &self.import).await?;
        Ok(values.first().copied())
    }
}

/// A call of a host function whose parameters are lifted.
pub struct BegunCall {
    work: Pending,
    /// Where the guest wants the result.
    root: Option<GuestPtr>,
}

/// The core type that the canonical ABI gives an imported function.
fn signature<P: AbiType, R: AbiType>() -> Signature {
    let mut params = P::flat();
    if params.len() > MAX_FLAT_PARAMS {
        params = vec![CoreType::I32];
    }
    let mut results = R::flat();
    if results.len() > MAX_FLAT_RESULTS {
        params.push(CoreType::I32);
        results.clear();
    }
    Signature { params, results }
}

fn result_address(arguments: &[CoreValue]) -> Result<GuestPtr, AbiError> {
    match arguments.last() {
        Some(CoreValue::I32(address)) => Ok(GuestPtr(*address)),
        _ => Err(Fault::Signature.into()),
    }
}
