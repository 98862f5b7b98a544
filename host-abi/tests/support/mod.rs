//! A guest without an engine, and a host that writes down what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use host_abi::canonical::{
    AbiError, CoreValue, Fault, Guest, GuestExports, GuestLen, GuestMemory, GuestPtr, OutOfBounds,
};
use host_abi::error::Error;
use host_abi::host_functions::{HostContext, HostFunction, host_functions};
use host_abi::http::{HttpClient, HttpError, Request, Response};
use host_abi::secrets::{self, Secret, SecretStore};
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, Metadata, Operation, SetRequest, StateStore};

/// Answers an address for an alignment and a size; may grow the memory.
type Allocator = Box<dyn FnMut(&mut Vec<u8>, u32, u32) -> u32 + Send>;
type Export = Arc<dyn Fn(&mut TestGuest, &[CoreValue]) -> Option<CoreValue> + Send + Sync>;

pub(crate) struct TestGuest {
    pub(crate) memory: Vec<u8>,
    allocator: Allocator,
    exports: BTreeMap<String, Export>,
}

impl TestGuest {
    pub(crate) fn new(memory: Vec<u8>, allocator: impl FnMut(&mut Vec<u8>, u32, u32) -> u32 + Send + 'static) -> Self {
        Self { memory, allocator: Box::new(allocator), exports: BTreeMap::new() }
    }

    pub(crate) fn export(
        &mut self,
        name: &str,
        function: impl Fn(&mut Self, &[CoreValue]) -> Option<CoreValue> + Send + Sync + 'static,
    ) {
        self.exports.insert(name.to_owned(), Arc::new(function));
    }
}

/// The allocator of a guest that behaves: every block is new memory, which holds garbage.
pub(crate) fn grow(memory: &mut Vec<u8>, align: u32, size: u32) -> u32 {
    let start = memory.len().next_multiple_of(align as usize);
    memory.resize(start + size as usize, 0xa5);
    u32::try_from(start).unwrap()
}

impl GuestMemory for TestGuest {
    fn size(&self) -> u64 {
        self.memory.size()
    }

    fn read(&self, address: GuestPtr, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.memory.read(address, into)
    }

    fn write(&mut self, address: GuestPtr, bytes: &[u8]) -> Result<(), OutOfBounds> {
        self.memory.write(address, bytes)
    }
}

impl Guest for TestGuest {
    type Error = AbiError;

    async fn allocate(&mut self, align: u32, size: GuestLen) -> Result<GuestPtr, AbiError> {
        Ok(GuestPtr((self.allocator)(&mut self.memory, align, size.0)))
    }
}

impl GuestExports for TestGuest {
    fn has_function(&mut self, export: &str) -> bool {
        self.exports.contains_key(export)
    }

    async fn call(&mut self, export: &str, params: &[CoreValue]) -> Result<Option<CoreValue>, AbiError> {
        let function = self.exports.get(export).cloned().ok_or(Fault::Signature)?;
        Ok(function(self, params))
    }
}

/// What a [`TestHost`] was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Get(GetRequest),
    Set(SetRequest),
    Delete(DeleteRequest),
    Transact(Vec<Operation>),
    GetSecret(secrets::GetRequest),
    GetSecrets(Option<Metadata>),
    Send(Request),
}

/// The stores named `state`, and the HTTP client, of a guest's host.
pub(crate) struct TestHost {
    pub(crate) get: Result<GetResponse, Error>,
    pub(crate) write: Result<(), Error>,
    pub(crate) secrets: Result<BTreeMap<String, Secret>, Error>,
    pub(crate) send: Result<Response, HttpError>,
    pub(crate) asked: Mutex<Vec<Asked>>,
}

impl TestHost {
    pub(crate) fn new() -> Self {
        Self {
            get: Ok(GetResponse::default()),
            write: Ok(()),
            secrets: Ok(BTreeMap::new()),
            send: Ok(Response::default()),
            asked: Mutex::default(),
        }
    }

    fn ask(&self, what: Asked) {
        self.asked.lock().unwrap().push(what);
    }
}

/// Runs what only waits for test guests and test hosts, which answer at once.
pub(crate) fn finish<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing here waits")
}

pub(crate) fn context(host: &Arc<TestHost>) -> Arc<HostContext> {
    Arc::new(HostContext {
        state_stores: BTreeMap::from([("state".to_owned(), Arc::clone(host) as Arc<dyn StateStore>)]),
        secret_stores: BTreeMap::from([("state".to_owned(), Arc::clone(host) as Arc<dyn SecretStore>)]),
        http_client: Some(Arc::clone(host) as Arc<dyn HttpClient>),
    })
}

/// By `interface.name`, without the package.
pub(crate) fn host_function(import: &str) -> &'static HostFunction {
    let is_meant = |function: &&HostFunction| format!("{}.{}", function.interface, function.name).ends_with(import);
    host_functions().iter().find(is_meant).unwrap()
}

#[async_trait]
impl StateStore for TestHost {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        self.ask(Asked::Get(request));
        self.get.clone()
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        self.ask(Asked::Set(request));
        self.write.clone()
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.ask(Asked::Delete(request));
        self.write.clone()
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        self.ask(Asked::Transact(operations));
        self.write.clone()
    }
}

/// Every name is that of a secret with all the values there are.
#[async_trait]
impl SecretStore for TestHost {
    async fn get(&self, request: secrets::GetRequest) -> Result<Secret, Error> {
        self.ask(Asked::GetSecret(request));
        self.secrets.clone().map(|secrets| secrets.into_values().flatten().collect())
    }

    async fn bulk_get(&self, metadata: Option<Metadata>) -> Result<BTreeMap<String, Secret>, Error> {
        self.ask(Asked::GetSecrets(metadata));
        self.secrets.clone()
    }
}

#[async_trait]
impl HttpClient for TestHost {
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        self.ask(Asked::Send(request));
        self.send.clone()
    }
}
