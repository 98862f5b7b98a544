//! The engine `wasmer`: each guest has a thread for itself, which waits while the guest waits for its host.

mod config;
mod guest;
mod image;
mod interrupt;
mod lengths;
mod memory;
mod signal;
mod stop;
mod store;
mod thread;
mod wasi;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use host_abi::canonical::{ExportCall, GuestExports as _, call_export};
use tokio_util::sync::CancellationToken;

use crate::artifact_cache::Artifact;
use crate::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop};
use guest::RunningGuest;
use image::Image;
use interrupt::{Cancellation, GuestHandle};
use store::LinkedStore;
use thread::GuestThread;
use wasi::SharedWasi;

const NAME: &str = "wasmer";

/// Nothing is made before it is needed: see [`config::engine`].
#[derive(Default)]
pub struct Wasmer;

impl Wasmer {
    pub fn new() -> Self {
        Self
    }
}

impl Engine for Wasmer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fingerprint(&self) -> String {
        config::fingerprint(&config::engine(None))
    }

    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError> {
        let compile = || -> anyhow::Result<Vec<u8>> {
            let (image, module) = Image::take_from(module);
            let module = wasmer::Module::new(&config::engine(None), module)?;
            Ok(image.with_code(&module.serialize()?))
        };
        compile().map_err(|error| CompileError { engine: NAME, reason: format!("{error:#}") })
    }

    #[expect(unsafe_code, reason = "the caller vouches for the artifact")]
    unsafe fn load(&self, artifact: &Artifact) -> Result<Arc<dyn Module>, LoadError> {
        let load = || -> anyhow::Result<Arc<LoadedModule>> {
            let (image, code) = image::open(artifact)?;
            let engine = config::engine(image);
            // SAFETY: this function's own contract.
            let module = unsafe { wasmer::Module::deserialize_unchecked(&engine, code) }?;
            let wasi = SharedWasi::new(&engine);
            let code = signal::code(&module);
            let module = Arc::new(LoadedModule { engine, module, code, wasi });
            // Linking is tried out, so that a wrong import shows before any guest is started.
            LinkedStore::new(&module)?;
            Ok(module)
        };
        let module = load().map_err(|error| LoadError { engine: NAME, reason: format!("{error:#}") })?;
        Ok(Arc::new(SharedModule(module)))
    }
}

/// What the guests of a module share.
struct LoadedModule {
    engine: wasmer::Engine,
    module: wasmer::Module,
    /// Its native code.
    code: Range<usize>,
    wasi: SharedWasi,
}

struct SharedModule(Arc<LoadedModule>);

#[async_trait]
impl Module for SharedModule {
    async fn instantiate(&self, mut guest: GuestConfig) -> Result<Box<dyn Instance>, Stop> {
        let (handle, cancellation) = make_cancellable(&mut guest);
        let thread = cancellation.until_ended(GuestThread::start(Arc::clone(&self.0), guest, handle)).await?;
        Ok(Box::new(StartedInstance { thread, cancellation }))
    }

    /// Each way to the guest's thread and back takes longer than a short call: this is one.
    async fn call_once(&self, mut guest: GuestConfig, call: &mut dyn ExportCall) -> Result<(), Stop> {
        let (handle, cancellation) = make_cancellable(&mut guest);
        let work = make(call);
        cancellation.until_ended(GuestThread::run_once(Arc::clone(&self.0), guest, handle, work)).await
    }
}

/// Gives a guest that is to be made a token of its own, by which it can be cancelled alone.
fn make_cancellable(guest: &mut GuestConfig) -> (Arc<GuestHandle>, Cancellation) {
    let cancel = guest.cancel.as_ref().map_or_else(CancellationToken::new, CancellationToken::child_token);
    guest.cancel = Some(cancel.clone());
    let handle = Arc::new(GuestHandle::default());
    let cancellation = Cancellation::new(cancel, &handle);
    (handle, cancellation)
}

/// A call for the guest's thread to make.
fn make(call: &mut dyn ExportCall) -> impl FnOnce(RunningGuest<'_>) -> Result<(), Stop> + use<> {
    let mut call = call.detach();
    move |mut guest| at_once(call_export(&mut guest, &mut *call))
}

struct StartedInstance {
    thread: GuestThread,
    cancellation: Cancellation,
}

#[async_trait]
impl Instance for StartedInstance {
    async fn run(&mut self, export: &str) -> Result<(), Stop> {
        let export = export.to_owned();
        let work = move |mut guest: RunningGuest<'_>| at_once(guest.call(&export, &[])).map(drop);
        self.cancellation.until_ended(self.thread.run(work)).await
    }

    async fn call(&mut self, call: &mut dyn ExportCall) -> Result<(), Stop> {
        self.cancellation.until_ended(self.thread.run(make(call))).await
    }
}

/// What a guest does on its own thread is done when it returns.
fn at_once<T>(done: impl Future<Output = T>) -> T {
    match done.now_or_never() {
        Some(done) => done,
        None => unreachable!("a guest on its own thread waits there"),
    }
}
